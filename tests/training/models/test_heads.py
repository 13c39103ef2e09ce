"""Heads against autograd and manual computation: maps show where a score comes from."""

import math

import pytest
import torch
from torch import Tensor

from hemoscope.labels import LABELS
from hemoscope.training.models.heads import FlattenHead, MapHead, Output, PooledHead


def features(*, channels: int = 5, side: int = 3, count: int = 4) -> list[Tensor]:
    """Features as after a ReLU: never negative."""
    return [torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)).mul(2).sub(0.5).relu()]


def flatten(*, hidden: int = 7, std: float | None = 0.3) -> FlattenHead:
    torch.manual_seed(2)
    return FlattenHead(5, side=3, hidden=hidden, std=std)


def by_autograd(head: FlattenHead, last: Tensor) -> Tensor:
    """Gradient times activation, one backward pass a label."""
    maps = []
    for label in range(len(LABELS)):
        leaf = last.clone().requires_grad_()
        head([leaf]).logits[:, label].sum().backward()
        assert leaf.grad is not None
        maps.append((leaf.grad * last).sum(1))
    return torch.stack(maps, dim=1) * last[0, 0].numel()  # the places' mean, not their sum, is the score


def test_maps_of_the_flattened_head_are_gradient_times_activation() -> None:
    head = flatten()
    with torch.no_grad():
        head.hidden.bias.normal_()  # biases move the ReLU's switches, and the closed form has to follow
        head.classifier.bias.normal_()
    found = head(features())
    assert ((head.hidden(features()[0].flatten(1)) > 0).float().mean() - 0.5).abs() < 0.4  # some on, some off
    assert torch.allclose(found.maps, by_autograd(head, features()[0]), atol=1e-5)


def test_without_biases_the_mean_of_a_map_of_the_flattened_head_is_its_score() -> None:
    found = flatten()(features())
    assert found.logits.abs().min() > 1e-3
    assert torch.allclose(found.maps.mean((2, 3)), found.logits, atol=1e-5)


def test_with_biases_a_map_misses_exactly_what_the_biases_gave() -> None:
    head = flatten()
    with torch.no_grad():
        head.classifier.bias.copy_(torch.arange(6.0))
    found = head(features())
    assert torch.allclose(found.maps.mean((2, 3)) + torch.arange(6.0), found.logits, atol=1e-5)


def test_a_map_of_the_flattened_head_points_at_the_pixel_that_contributes() -> None:
    last = torch.zeros(1, 5, 3, 3)
    last[0, :, 0, 2] = 1
    maps = flatten()([last]).maps
    assert maps[0, :, 0, 2].abs().min() > 0
    maps[0, :, 0, 2] = 0
    assert maps.abs().max() == 0


def test_maps_of_the_pooled_head_have_the_scores_as_their_means() -> None:
    head = PooledHead(5, std=0.3)
    with torch.no_grad():
        head.classifier.bias.copy_(torch.arange(6.0))
    found = head(features())
    assert torch.allclose(found.maps.mean((2, 3)), found.logits, atol=1e-6)


def test_the_pooled_head_is_average_pooling_and_a_linear_layer() -> None:
    head = PooledHead(5, std=0.3)
    weight, bias = head.classifier.weight.flatten(1), head.classifier.bias
    expected = torch.nn.functional.linear(features()[0].mean((2, 3)), weight, bias)
    assert torch.allclose(head(features()).logits, expected, atol=1e-6)


@pytest.mark.parametrize("head", [flatten(), PooledHead(5, std=None), MapHead([5], width=4, pooled=2).eval()])
def test_the_embedding_is_the_mean_of_the_last_features_over_places(head: torch.nn.Module) -> None:
    found: Output = head(features())
    assert torch.equal(found.embedding, features()[0].mean((2, 3)))


@pytest.mark.parametrize("std", [0.01, 0.05])
def test_weights_are_drawn_from_the_normal_distribution_requested_and_biases_are_zero(std: float) -> None:
    torch.manual_seed(1)
    head = FlattenHead(64, side=4, hidden=256, std=std)
    weights = head.hidden.weight.detach()
    assert float(weights.std()) == pytest.approx(std, rel=0.01)
    kurtosis = float((weights / weights.std()).pow(4).mean())
    assert kurtosis == pytest.approx(3, rel=0.03)  # of a uniform distribution: 1.8
    assert float(head.classifier.weight.detach().std()) == pytest.approx(std, rel=0.1)
    assert not head.hidden.bias.any()
    assert not head.classifier.bias.any()


def test_without_a_deviation_weights_are_pytorchs_own() -> None:
    head = flatten(std=None)
    bound = 1 / math.sqrt(45)
    assert float(head.hidden.weight.detach().abs().max()) <= bound
    assert head.hidden.bias.any()
