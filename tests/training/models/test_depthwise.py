"""Depthwise convolutions of a network that a processor trains in bf16."""

import pytest
import torch
from torch import nn

from hemoscope.training.models.depthwise import depthwise_in_float32


def test_depthwise_convolutions_alone_stay_float32_under_autocast() -> None:
    torch.manual_seed(1)
    depthwise, pointwise = nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 4, 1)
    image = torch.rand(2, 8, 16, 16)
    exact = depthwise(image)
    depthwise_in_float32(nn.Sequential(depthwise, pointwise))
    with torch.autocast("cpu", torch.bfloat16):
        inner = depthwise(image)
        outer = pointwise(inner)
    assert torch.equal(inner, exact)
    assert outer.dtype == torch.bfloat16


def test_without_autocast_nothing_changes() -> None:
    torch.manual_seed(1)
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    image = torch.rand(2, 8, 16, 16)
    exact = depthwise(image)
    depthwise_in_float32(depthwise)
    assert torch.equal(depthwise(image), exact)


def test_gradients_are_those_of_float32() -> None:
    torch.manual_seed(1)
    depthwise = nn.Conv2d(8, 8, 5, groups=8, padding=2)
    image = torch.rand(2, 8, 16, 16)
    depthwise(image).square().mean().backward()
    assert depthwise.weight.grad is not None
    exact = depthwise.weight.grad.clone()
    depthwise.zero_grad()
    depthwise_in_float32(depthwise)
    with torch.autocast("cpu", torch.bfloat16):
        loss = depthwise(image).square().mean()
    loss.backward()
    assert torch.allclose(depthwise.weight.grad, exact, rtol=1e-5, atol=1e-7)


def test_after_an_error_autocast_goes_on() -> None:
    depthwise, pointwise = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
    depthwise_in_float32(depthwise)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="channels"):
            depthwise(torch.rand(1, 3, 8, 8))
        assert pointwise(torch.rand(1, 8, 8, 8)).dtype == torch.bfloat16
