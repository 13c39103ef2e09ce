"""Heads: from a backbone's features to one score and one map per label, in operations that export to ONNX."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hemoscope.labels import LABELS


class Output(NamedTuple):
    """The outputs of a network for N slices.

    Attributes:
        logits: raw scores (N, 6) in label order.
        maps: (N, 6, h, w), where in the image each score comes from; how they relate depends on the head.
        embedding: (N, channels), the spatial mean of the backbone's last features.
    """

    logits: Tensor
    maps: Tensor
    embedding: Tensor


class MapHead(nn.Module):
    """One map per label at the finest of the given strides; a score is the mean of its map's highest logits."""

    def __init__(self, channels: list[int], *, width: int, pooled: int) -> None:
        """``channels`` are those of the features, finest first."""
        super().__init__()
        self.pooled = pooled
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.mix = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.maps = nn.Conv2d(width, len(LABELS), 1)
        assert self.maps.bias is not None
        nn.init.constant_(self.maps.bias, -3.0)

    def forward(self, features: list[Tensor]) -> Output:
        """Apply to features, finest first, each with half the side of the previous one."""
        lateral = [layer(feature) for layer, feature in zip(self.lateral, features, strict=True)]
        summed = lateral[-1]
        for finer in reversed(lateral[:-1]):
            summed = finer + nn.functional.interpolate(summed, scale_factor=2.0, mode="nearest")
        maps = self.maps(self.mix(summed))
        logits = maps.flatten(2).topk(self.pooled, dim=2).values.mean(2)
        return Output(logits, maps, features[-1].mean((2, 3)))


class PooledHead(nn.Module):
    """Global average pool and one linear layer.

    The layer is linear, so it can also be applied before the pool: at every position it gives class activation maps
    (Zhou et al. 2016, "Learning deep features for discriminative localization") whose means are exactly the scores.
    """

    def __init__(self, channels: int, *, std: float | None) -> None:
        """``channels`` are those of the last features; ``std`` is ``NetworkConfig.head_std``."""
        super().__init__()
        self.classifier = nn.Conv2d(channels, len(LABELS), 1)
        _draw_weights(self, std)

    def forward(self, features: list[Tensor]) -> Output:
        """Apply to the last features."""
        maps = self.classifier(features[-1])
        return Output(maps.mean((2, 3)), maps, features[-1].mean((2, 3)))


class FlattenHead(nn.Module):
    """The paper's head: flattened features, a hidden layer with ReLU, six scores.

    Maps are gradient times activation (Shrikumar et al. 2017, "Learning important features through propagating
    activation differences"), summed over channels. For two linear layers with a ReLU that gradient has a closed form,
    so it needs no backward pass: the rows of the second layer, where the hidden unit is active, times the first.
    The head is piecewise linear in the features: with zero biases a map's mean is exactly its score, as in
    ``PooledHead``, so that one calibration turns both maps and scores of every head into probabilities.
    """

    def __init__(self, channels: int, *, side: int, hidden: int, std: float | None) -> None:
        """``channels`` and ``side`` of the last features; ``hidden`` and ``std`` as in ``NetworkConfig``."""
        super().__init__()
        self.hidden = nn.Linear(channels * side * side, hidden)
        self.classifier = nn.Linear(hidden, len(LABELS))
        _draw_weights(self, std)

    def forward(self, features: list[Tensor]) -> Output:
        """Apply to the last features."""
        last = features[-1]
        before = self.hidden(last.flatten(1))
        logits = self.classifier(before.relu())
        return Output(logits, self._contributions(last, before), last.mean((2, 3)))

    def _contributions(self, last: Tensor, before: Tensor) -> Tensor:
        """Gradient of each score by the features, times the features and the number of positions: (N, 6, h, w)."""
        on = (before > 0).to(before.dtype)
        rows = (on[:, None, :] * self.classifier.weight).flatten(0, 1)
        # The weights come first: as the second factor, OpenVINO would keep another copy of them (.1 GB), transposed.
        gradient = (self.hidden.weight.t() @ rows.t()).t()
        placed: Tensor = gradient.reshape(-1, len(LABELS), *last.shape[1:]) * last[:, None]
        return placed.sum(2) * (last.shape[2] * last.shape[3])


def _draw_weights(head: nn.Module, std: float | None) -> None:
    """Initialise all layers from a normal distribution with zero biases; None keeps PyTorch's initialisation."""
    if std is None:
        return
    for name, parameter in head.named_parameters():
        torch.nn.init.zeros_(parameter) if name.endswith("bias") else torch.nn.init.normal_(parameter, std=std)
