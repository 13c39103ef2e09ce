"""Initial weights of a network that sees neighbouring slices: its first layer starts from the middle slice alone."""

import pytest
import torch
from torch import Tensor

from hemoscope.training.models.checkpoint import load_imagenet
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig


@pytest.fixture(scope="module")
def stored() -> Tensor:
    """The first layer's ImageNet weights."""
    network = HemorrhageNetwork(NetworkConfig(), channels=3, size=64)
    load_imagenet(network)
    return network.backbone.conv_stem.weight.detach()


def test_a_network_that_starts_from_the_middle_slice_gives_what_one_slice_gives(stored: Tensor) -> None:
    """Whatever the neighbours show, until the first layer has learned to see them."""
    config = NetworkConfig(neighbour_init="middle")
    torch.manual_seed(3)
    network = HemorrhageNetwork(config, channels=9, size=64, neighbours=1).eval()
    torch.manual_seed(3)
    single = HemorrhageNetwork(NetworkConfig(), channels=3, size=64).eval()
    assert load_imagenet(network) == load_imagenet(single)
    assert torch.equal(network.backbone.conv_stem.weight[:, 3:6], stored)
    single.head.load_state_dict(network.head.state_dict())
    images = torch.rand(2, 9, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network(images).logits, single(images[:, 3:6]).logits, atol=1e-5)
    network.train()(images).logits.sum().backward()
    assert network.backbone.conv_stem.weight.grad[:, :3].abs().sum() > 0


def test_the_middle_of_five_slices_of_two_windows_is_found(stored: Tensor) -> None:
    network = HemorrhageNetwork(NetworkConfig(neighbour_init="middle"), channels=10, size=64, neighbours=2)
    load_imagenet(network)
    first = network.backbone.conv_stem.weight
    assert torch.allclose(first[:, 4] + first[:, 5], stored.sum(1))
    assert not first[:, :4].any()
    assert not first[:, 6:].any()
