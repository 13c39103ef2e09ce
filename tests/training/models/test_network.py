"""The network: shapes, gradients, frozen parts, how a score follows from its map, and the mirrored pair."""

import pytest
import torch

from hemoscope.errors import ConfigError
from hemoscope.labels import LABELS
from hemoscope.training.models.network import HemorrhageNetwork, MapHead, MirroredNetwork, NetworkConfig

SMALL = NetworkConfig(backbone="test_efficientnet", width=8, pooled=4)
FULL = NetworkConfig()
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as in every ImageNet recipe


def image(count: int = 2, channels: int = 3, size: int = 64) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def network(config: NetworkConfig = SMALL, channels: int = 3) -> HemorrhageNetwork:
    torch.manual_seed(2)
    return HemorrhageNetwork(config, channels=channels, size=64)


@pytest.mark.parametrize("config", [SMALL, FULL], ids=lambda config: config.backbone)
@pytest.mark.parametrize("channels", [3, 9])
def test_scores_and_maps_come_out_for_every_label(config: NetworkConfig, channels: int) -> None:
    logits, maps, embedding = network(config, channels)(image(channels=channels, size=96))
    assert logits.shape == (2, len(LABELS))
    assert maps.shape == (2, len(LABELS), 12, 12)
    assert embedding.shape == (2, network(config, channels).embedding_size)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize("config", [SMALL, FULL], ids=lambda config: config.backbone)
def test_every_parameter_that_trains_has_a_gradient(config: NetworkConfig) -> None:
    model = network(config)
    output = model(image())
    (output.logits.square().sum() + output.maps.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    touched = sum(bool(parameter.grad.abs().sum() > 0) for parameter in model.parameters())  # type: ignore[union-attr]
    assert touched > 0.95 * len(list(model.parameters()))


@pytest.mark.parametrize("stages", [1, 2])
def test_frozen_stages_keep_their_weights_and_the_rest_learns(stages: int) -> None:
    model = network(NetworkConfig(frozen_stages=stages))
    model(image()).logits.sum().backward()
    fixed = ("backbone.conv_stem.", "backbone.bn1.", *(f"backbone.blocks.{stage}." for stage in range(stages)))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(fixed), name
    assert any(name.startswith(fixed) for name, _ in model.named_parameters())


def test_a_frozen_stem_still_learns_to_see_neighbours_that_start_at_zero() -> None:
    model = network(NetworkConfig(frozen_stages=2, neighbour_init="middle"), channels=9)
    model(image(channels=9)).logits.sum().backward()
    fixed = ("backbone.bn1.", "backbone.blocks.0.", "backbone.blocks.1.")
    assert model.backbone.conv_stem.weight.grad is not None
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(fixed), name


def test_frozen_stages_still_follow_the_batch_statistics() -> None:
    """ImageNet's statistics are not those of CT."""
    model = network(NetworkConfig(frozen_stages=2))
    before = model.backbone.bn1.running_mean.clone()
    model.train()(image())
    assert not torch.equal(model.backbone.bn1.running_mean, before)


def test_a_frozen_base_keeps_weights_and_batch_statistics_and_the_head_learns() -> None:
    model = network(NetworkConfig(backbone="test_resnet", head="flatten", hidden=16, frozen_base=True)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(image()).logits.square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert model.training
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("backbone."))
    assert all(not torch.equal(after[name], before[name]) for name in before if name.startswith("head."))
    assert any("running_mean" in name for name in before)


def test_a_frozen_base_gives_the_same_features_in_training_as_when_serving() -> None:
    model = network(NetworkConfig(backbone="test_resnet", head="pooled", frozen_base=True))
    with torch.inference_mode():
        assert torch.equal(model.train()(image()).embedding, model.eval()(image()).embedding)
        assert torch.equal(model.train()(image()).embedding, model(image()).embedding)


def test_a_score_is_the_mean_of_its_maps_highest_logits() -> None:
    logits, maps, _ = network().eval()(image())
    highest = maps.flatten(2).sort(dim=2, descending=True).values[:, :, : SMALL.pooled]
    assert torch.allclose(logits, highest.mean(2), atol=1e-6)


def test_before_training_lesions_are_taken_for_rare() -> None:
    bias = network().head.maps.bias
    assert bias is not None
    assert bias.tolist() == [-3.0] * len(LABELS)


def test_the_head_sums_coarse_features_into_fine_ones_in_place() -> None:
    """A coarse feature of stride 32 speaks in the four by four places of stride 8 that it covers."""
    torch.manual_seed(3)
    head = MapHead([4, 4, 4], width=4, pooled=1).eval()
    features = [torch.zeros(1, 4, side, side) for side in (8, 4, 2)]
    quiet = head(features).maps
    features[2][:, :, 0, 1] = 5
    changed = (head(features).maps - quiet).abs().sum(1)[0] > 1e-6
    assert changed[:4, 4:].all()
    assert not changed[5:, :3].any()


def test_slices_of_a_batch_do_not_know_each_other_when_serving() -> None:
    model = network().eval()
    pair = image()
    with torch.inference_mode():
        together, alone = model(pair).logits, torch.cat([model(pair[:1]).logits, model(pair[1:]).logits])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_mirrored_network_gives_a_slice_and_its_mirror_image_equal_scores() -> None:
    model = MirroredNetwork(network()).eval()
    plain, mirrored = model(image()), model(torch.flip(image(), dims=[3]))
    assert torch.allclose(plain.logits, mirrored.logits, atol=1e-5)
    assert torch.allclose(plain.maps, torch.flip(mirrored.maps, dims=[3]), atol=1e-5)


def test_the_mirrored_network_is_the_mean_of_both_looks() -> None:
    inner = network().eval()
    one, other = inner(image()), inner(torch.flip(image(), dims=[3]))
    found = MirroredNetwork(inner).eval()(image())
    assert torch.allclose(found.logits, (one.logits + other.logits) / 2)
    assert torch.allclose(found.maps, (one.maps + other.maps.flip(3)) / 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "linear"}, "head must be one of maps, pooled, flatten, got linear"),
        ({"width": 0}, "must be positive, got 0, 8 and 256"),
        ({"pooled": 0}, "must be positive, got 64, 0 and 256"),
        ({"neighbour_init": "left"}, "neighbour_init must be one of repeated, middle, got left"),
        ({"normalization": "unit"}, "normalization must be one of symmetric, published, none, got unit"),
        ({"frozen_base": True, "frozen_stages": 1}, "frozen_base freezes every stage, got frozen_stages = 1 too"),
        ({"frozen_stages": -1}, "frozen_stages must not be negative, got -1"),
    ],
)
def test_what_no_network_could_be_built_from_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NetworkConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet_of_dreams", "hf-hub:someone/something", "local-dir:somewhere"])
def test_an_unknown_backbone_is_refused_and_named_and_never_fetched(name: str) -> None:
    with pytest.raises(ConfigError, match=f"timm has no backbone '{name}'"):
        HemorrhageNetwork(NetworkConfig(backbone=name), channels=3, size=64)


@pytest.mark.parametrize(("backbone", "stages"), [("regnetx_002", 1), ("tf_efficientnet_lite0", 8), ("resnet18", 5)])
def test_freezing_stages_that_a_backbone_does_not_have_is_refused(backbone: str, stages: int) -> None:
    with pytest.raises(ConfigError, match=f"{backbone} does not have {stages} stages that can be frozen"):
        HemorrhageNetwork(NetworkConfig(backbone=backbone, frozen_stages=stages), channels=3, size=64)


def test_the_default_network_keeps_the_names_that_weights_of_earlier_versions_have() -> None:
    state = HemorrhageNetwork(FULL, channels=3, size=64).state_dict()
    laterals = [f"head.lateral.{number}.{part}" for number in range(3) for part in ("weight", "bias")]
    norm = [f"head.mix.1.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    head = [*laterals, "head.mix.0.weight", *norm, "head.maps.weight", "head.maps.bias"]
    assert [name for name in state if not name.startswith("backbone.")] == head
    assert len(state) == 302
    assert sum(tensor.numel() for tensor in state.values()) == 3_066_263


@pytest.mark.parametrize("channels", [3, 9])
def test_published_normalization_is_what_the_backbones_weights_were_trained_on(channels: int) -> None:
    model = network(NetworkConfig(backbone="resnet18", head="pooled", normalization="published"), channels).eval()
    both = (IMAGENET_MEAN, IMAGENET_STD)
    mean, deviation = (torch.tensor(values).repeat(channels // 3)[:, None, None] for values in both)
    given = image(channels=channels)
    expected = model.backbone((given - mean) / deviation)[-1].mean((2, 3))
    assert torch.allclose(model(given).embedding, expected, rtol=1e-4, atol=1e-5)
    plain = network(NetworkConfig(backbone="resnet18", head="pooled"), channels).eval()
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert not torch.allclose(plain(given).embedding, model(given).embedding, rtol=1e-2)


def test_without_normalization_the_backbone_sees_the_input_as_it_is() -> None:
    model = network(NetworkConfig(backbone="resnet18", head="pooled", normalization="none")).eval()
    given = image()
    assert torch.equal(model(given).embedding, model.backbone(given)[-1].mean((2, 3)))


def test_where_weights_were_trained_on_the_symmetric_range_both_normalizations_agree() -> None:
    published = NetworkConfig(backbone="tf_efficientnet_lite0", normalization="published")
    assert torch.allclose(network(published).eval()(image()).logits, network(FULL).eval()(image()).logits, atol=1e-5)


def test_a_backbone_without_published_weights_has_no_published_normalization() -> None:
    with pytest.raises(ConfigError, match="timm publishes no weights, and so no mean, of efficientnet_b8"):
        network(NetworkConfig(backbone="efficientnet_b8", head="pooled", normalization="published"))
