"""Losses on scores and maps: means over known labels, over all processes of a training."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits, logsigmoid

from hemoscope.errors import ConfigError
from hemoscope.labels import LABELS
from hemoscope.training.models.network import Output

Kind = Literal["bce", "focal"]
DivideBy = Literal["weights", "labels"]
MapTarget = Literal["covered", "share"]
ONES = (1.0,) * len(LABELS)
PREVALENCE = "prevalence"
_COVERED = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms.

    Attributes:
        labels: weight w of each label in the cross-entropy of scores, in label order (paper, equation 1).
        divide_by: what the sum of weighted cross-entropies is divided by: ``weights``, the sum of ``labels`` over the
            known labels (a weighted mean); or ``labels``, their number, as in the paper's equation 1 (C = 6).
        kind: ``bce``, or ``focal`` (Lin et al. 2017, "Focal loss for dense object detection"), which weights each
            score's cross-entropy by (1 - p)^gamma, with p the probability of the true class.
        gamma: see ``kind``; 0 makes ``focal`` equal to ``bce``.
        positive: additional weight of each label where it is positive: with ``negative``, the doubly weighted loss of
            the paper's future work. Six numbers, or ``prevalence``; see ``resolved``.
        negative: the same where the label is negative.
        map: weight of the maps' cross-entropy; ``map_positive`` is the weight of a pixel inside a lesion.
        dice: weight of the Dice loss of the ``any`` map. With 0 for both, only labels are trained on.
        map_target: what a position of a map shall say. ``covered``: 1 if a lesion covers more than 30% of it, else 0;
            of a small lesion, perhaps nowhere. ``share``: the share that is covered, over 30% and at most 1, and 1
            where most is covered.
    """

    labels: tuple[float, ...] = (2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    divide_by: DivideBy = "weights"
    kind: Kind = "bce"
    gamma: float = 2.0
    positive: tuple[float, ...] | str = ONES
    negative: tuple[float, ...] | str = ONES
    map: float = 1.0
    map_positive: float = 5.0
    dice: float = 0.5
    map_target: MapTarget = "covered"

    def __post_init__(self) -> None:
        """Reject a number of weights other than six, and weights that are negative or all 0."""
        for name, choice in (("kind", Kind), ("divide_by", DivideBy), ("map_target", MapTarget)):
            if getattr(self, name) not in get_args(choice):
                msg = f"loss.{name} must be one of {', '.join(get_args(choice))}, got {getattr(self, name)}"
                raise ConfigError(msg)
        for name in ("labels", "positive", "negative"):
            _check_weights(name, getattr(self, name), word=name != "labels")
        numbers = {name: getattr(self, name) for name in ("gamma", "map", "map_positive", "dice")}
        if not all(0 <= value < np.inf for value in numbers.values()):
            msg = f"loss: {', '.join(numbers)} must not be negative, got {', '.join(map(str, numbers.values()))}"
            raise ConfigError(msg)

    def resolved(self, labels: NDArray[np.floating[Any]]) -> "LossConfig":
        """Replace the word ``prevalence`` by numbers from the training labels (n, 6), NaN where unknown.

        With r the share of positives among a label's known values, ``positive`` becomes 1 / (2 r) and ``negative``
        1 / (2 (1 - r)): both classes of every label have the same total weight, and a label's mean weight stays 1.

        Raises:
            ConfigError: a label has no known positive, or no known negative.
        """
        if PREVALENCE not in (self.positive, self.negative):
            return self
        share = _positive_share(labels)
        positive = self.positive if self.positive != PREVALENCE else tuple(float(x) for x in 1 / (2 * share))
        negative = self.negative if self.negative != PREVALENCE else tuple(float(x) for x in 1 / (2 * (1 - share)))
        return replace(self, positive=positive, negative=negative)


def loss_parts(
    output: Output,
    labels: Tensor,
    mask: Tensor,
    typed: Tensor,
    config: LossConfig,
    *,
    mask_known: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the weighted loss terms; their sum is minimised.

    Every term is a mean over the known labels in the batches of all processes. Distributed training averages gradients
    over processes, so each term is scaled by their number: the average is then the gradient of one process on all
    slices, however the unknown labels are distributed.

    Args:
        output: scores (N, 6) and map logits (N, 6, h, w).
        labels: (N, 6) of 0 and 1, NaN where unknown.
        mask: (N, S, S), lesions of any type.
        typed: (N,), 1 if the mask belongs to at most one type: only these train the maps of types.
        config: the weights, as numbers (``LossConfig.resolved``).
        mask_known: (N,), 1 if the mask is known: only these train the maps. None: all.
    """
    parts = {"scores": score_loss(output.logits, labels, config)}
    if config.map or config.dice:
        shown = torch.ones_like(typed) if mask_known is None else mask_known
        parts |= _map_losses(output.maps, labels, mask, typed, shown, config)
    return parts


def score_loss(logits: Tensor, labels: Tensor, config: LossConfig) -> Tensor:
    """Return the weighted cross-entropy of scores over the known labels of all processes; see ``loss_parts``."""
    return _global_mean(*score_sums(logits, labels, config))


def score_sums(logits: Tensor, labels: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Return the sum of weighted cross-entropies over known labels, and its divisor (``LossConfig.divide_by``)."""
    logits = logits.float()  # in half precision, large sums and counts would be rounded
    weights = logits.new_tensor(config.labels)
    truth, known = labels.nan_to_num(0), (~labels.isnan()).to(logits.dtype)
    sided = torch.where(truth > 0.5, logits.new_tensor(config.positive), logits.new_tensor(config.negative))
    loss = binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if config.kind == "focal":
        # The probability of the opposite class from the logit itself: 1 - exp(-loss) loses digits near 0.
        loss = loss * (config.gamma * logsigmoid(torch.where(truth > 0.5, -logits, logits))).exp()
    divisor = known.sum() if config.divide_by == "labels" else (weights * known).sum()
    return (loss * sided * weights * known).sum(), divisor


def _map_losses(
    maps: Tensor, labels: Tensor, mask: Tensor, typed: Tensor, mask_known: Tensor, config: LossConfig
) -> dict[str, Tensor]:
    maps = maps.float()
    height, width = maps.shape[2:]
    truth, known = labels.nan_to_num(0), (~labels.isnan()).to(maps.dtype) * mask_known[:, None]
    target = _map_target(mask, (height, width), config).to(maps.dtype)[:, None] * truth[:, :, None, None]
    learned = torch.cat([known[:, :1], known[:, 1:] * typed[:, None]], dim=1)
    places = binary_cross_entropy_with_logits(
        maps, target, reduction="none", pos_weight=maps.new_tensor(config.map_positive)
    ).mean((2, 3))
    anywhere = known[:, 0, None, None]
    return {
        "map": config.map * _global_mean((places * learned).sum(), learned.sum()),
        "dice": config.dice * _dice(torch.sigmoid(maps[:, 0]) * anywhere, target[:, 0] * anywhere),
    }


def _map_target(mask: Tensor, size: tuple[int, int], config: LossConfig) -> Tensor:
    """Return what the positions of a map (N, h, w) shall say of lesions (N, S, S); see ``LossConfig.map_target``."""
    covered = adaptive_avg_pool2d(mask, size)
    if config.map_target == "covered":
        return covered > _COVERED
    highest = covered.amax((1, 2), keepdim=True)
    return torch.where((covered == highest) & (covered > 0), 1.0, (covered / _COVERED).clamp(max=1))


def _dice(probability: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss over all pixels of all slices: slices without a lesion count through their false alarms."""
    own = torch.stack([(probability * target).sum(), probability.sum(), target.sum()])
    # Only this process's sums have gradients.
    overlap, found, there = own + (_everywhere(own) - own.detach())
    loss = 1 - (2 * overlap + 1) / (found + there + 1)
    scaled: Tensor = loss.detach() + _processes() * (loss - loss.detach())
    return scaled


def _global_mean(total: Tensor, count: Tensor) -> Tensor:
    """This process's share of the global mean, scaled by the number of processes; 0 if nothing is known."""
    return total * _processes() / _everywhere(count).clamp(min=torch.finfo(total.dtype).tiny)


def _everywhere(value: Tensor) -> Tensor:
    """Sum over all processes, without a gradient."""
    value = value.detach().clone()
    if _processes() > 1:
        distributed.all_reduce(value)
    return value


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _check_weights(name: str, weights: tuple[float, ...] | str, *, word: bool) -> None:
    if word and weights == PREVALENCE:
        return
    choice = f", or the word {PREVALENCE}" if word else ""
    if isinstance(weights, str) or len(weights) != len(LABELS):
        found = repr(weights) if isinstance(weights, str) else len(weights)
        msg = f"loss.{name} needs {len(LABELS)} weights in the order {', '.join(LABELS)}{choice}, got {found}"
        raise ConfigError(msg)
    if not all(0 <= weight < np.inf for weight in weights) or not sum(weights):
        msg = f"loss.{name}: weights must not be negative, nor all zero, got {', '.join(map(str, weights))}"
        raise ConfigError(msg)


def _positive_share(labels: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    known = (~np.isnan(labels)).sum(axis=0)
    positive: NDArray[np.float64] = np.nansum(labels, axis=0, dtype=np.float64)
    bare = [label for label, p, k in zip(LABELS, positive, known, strict=True) if p in (0, k)]
    if bare:
        found = f"{', '.join(bare)} has no known positive or no known negative in the training data"
        msg = f"loss: {PREVALENCE} weights cannot be derived, {found}. Give six numbers instead"
        raise ConfigError(msg)
    share: NDArray[np.float64] = positive / known
    return share
