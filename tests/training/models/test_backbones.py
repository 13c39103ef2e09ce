"""Backbones of timm under every head: shapes, gradients, frozen stages, published sizes, and the paper to the unit."""

import pytest
import torch
import torchvision

from hemoscope.errors import ConfigError
from hemoscope.labels import LABELS
from hemoscope.training.models.network import Head, HemorrhageNetwork, NetworkConfig

FAMILIES = ("resnet50", "efficientnet_b0", "convnext_atto", "densenet121", "regnetx_002")
HEADS: tuple[Head, ...] = ("maps", "pooled", "flatten")


def build(backbone: str, head: Head = "pooled", *, size: int = 64, **options: int) -> HemorrhageNetwork:
    torch.manual_seed(1)
    config = NetworkConfig(backbone=backbone, head=head, width=8, pooled=4, hidden=16, **options)  # type: ignore[arg-type]
    return HemorrhageNetwork(config, channels=3, size=size)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_every_family_gives_scores_maps_and_embedding_under_every_head(backbone: str, head: Head) -> None:
    network = build(backbone, head)
    output = network(torch.rand(2, 3, 64, 64))
    side = 8 if head == "maps" else 2
    assert output.logits.shape == (2, len(LABELS))
    assert output.maps.shape == (2, len(LABELS), side, side)
    assert output.embedding.shape == (2, network.embedding_size)
    output.logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    ("backbone", "published"), [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("resnet101", 44_549_160)]
)
def test_residual_networks_have_the_published_sizes_without_their_classifier(backbone: str, published: int) -> None:
    """Published with a classifier of 1,000 classes; torchvision's own record of the weights is the reference."""
    names = {"resnet18": "ResNet18", "resnet50": "ResNet50", "resnet101": "ResNet101", "resnet152": "ResNet152"}
    weights = getattr(torchvision.models, f"{names[backbone]}_Weights").DEFAULT
    assert weights.meta["num_params"] == published
    network = build(backbone)
    assert parameters(network.backbone) == published - (network.embedding_size + 1) * 1000
    assert parameters(network.head) == (network.embedding_size + 1) * len(LABELS)


@pytest.mark.slow
def test_resnet152_has_the_published_size_too() -> None:
    test_residual_networks_have_the_published_sizes_without_their_classifier("resnet152", 60_192_808)


def test_the_papers_network_is_explained_to_the_unit() -> None:
    """The paper's code has 49,279,622 parameters, as Keras counts; see docs/explanation/the-paper-re-examined.md."""
    network = HemorrhageNetwork(NetworkConfig(backbone="resnet50", head="flatten", hidden=256), channels=3, size=224)
    keras_backbone, moving_statistics, convolution_biases = 23_587_712, 53_120, 26_560
    assert parameters(network.backbone) == keras_backbone - moving_statistics - convolution_biases == 23_508_032
    layers = {name: parameters(module) for name, module in network.head.named_children()}
    assert layers == {"hidden": 7 * 7 * 2048 * 256 + 256, "classifier": 256 * 6 + 6}
    assert parameters(network) == 49_199_942
    # What Keras counts beside: the moving statistics of each normalisation, which PyTorch keeps as buffers, and a bias
    # in front of each, one for each channel, which the normalisation takes away again.
    named = dict(network.backbone.named_buffers())
    assert sum(t.numel() for name, t in named.items() if "running" in name) == moving_statistics
    convolutions = [m for m in network.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(layer.bias is None for layer in convolutions)
    assert sum(layer.out_channels for layer in convolutions) == convolution_biases
    assert parameters(network) + moving_statistics + convolution_biases == 49_279_622


@pytest.mark.parametrize(
    ("backbone", "stages", "fixed", "free"),
    [
        ("resnet18", 2, ("conv1.", "bn1.", "layer1.", "layer2."), "layer3."),
        ("convnext_atto", 1, ("stem_0.", "stem_1.", "stages_0."), "stages_1."),
        ("efficientnet_b0", 1, ("conv_stem.", "bn1.", "blocks.0."), "blocks.1."),
    ],
)
def test_frozen_stages_of_each_family_keep_their_weights(
    backbone: str, stages: int, fixed: tuple[str, ...], free: str
) -> None:
    network = build(backbone, frozen_stages=stages)
    frozen = {name for name, parameter in network.backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in network.backbone.named_parameters() if name.startswith(fixed)}
    assert any(name.startswith(free) for name, _ in network.backbone.named_parameters())


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convmixer_768_32"])
def test_backbones_whose_features_no_head_could_take_are_refused(backbone: str) -> None:
    with pytest.raises(ConfigError, match=rf"{backbone} has features of strides .* the heads need 8, 16, 32 and NCHW"):
        build(backbone, "maps", size=224)


@pytest.mark.parametrize("size", [0, 16, 100])
def test_a_size_that_is_no_multiple_of_the_last_stride_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"must be a multiple of 32, got {size}"):
        build("resnet18", size=size)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": 0, "head": "flatten"}, "width, pooled and hidden must be positive, got 64, 8 and 0"),
        ({"head_std": 0.0, "head": "flatten"}, "head_std must be positive, got 0.0"),
        ({"head_std": float("nan"), "head": "pooled"}, "head_std must be positive, got nan"),
        ({"head_std": 0.05}, "head_std is for the heads pooled and flatten, got 0.05 with maps"),
    ],
)
def test_options_of_heads_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NetworkConfig(**options)  # type: ignore[arg-type]
