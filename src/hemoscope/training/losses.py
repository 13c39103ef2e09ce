"""Losses on scores and maps."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits

from hemoscope.errors import ConfigError
from hemoscope.labels import LABELS
from hemoscope.models.network import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of the parts.

    Attributes:
        labels: weight of each label in the cross-entropy of scores, in label order (paper, equation 1).
        map: weight of the maps' cross-entropy; ``map_positive`` is the weight of a place inside a lesion.
        dice: weight of the Dice loss of the ``any`` map.
    """

    labels: tuple[float, ...] = (2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    map: float = 1.0
    map_positive: float = 5.0
    dice: float = 0.5

    def __post_init__(self) -> None:
        """Reject any other number of label weights than six."""
        if len(self.labels) != len(LABELS):
            msg = f"loss.labels needs {len(LABELS)} weights in the order {', '.join(LABELS)}, got {len(self.labels)}"
            raise ConfigError(msg)


def loss_parts(output: Output, labels: Tensor, outline: Tensor, typed: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """The parts of the loss, weighted; their sum is minimised.

    Args:
        output: scores (N, 6) and map logits (N, 6, h, w).
        labels: (N, 6) of 0 and 1.
        outline: (N, S, S), lesions outlined, whatever their type.
        typed: (N,), 1 where the outline belongs to at most one type: only there do the maps of types learn from it.
        config: the weights.
    """
    weights = torch.tensor(config.labels, device=labels.device)
    scores = binary_cross_entropy_with_logits(output.logits, labels, reduction="none")
    height, width = output.maps.shape[2:]
    target = (adaptive_avg_pool2d(outline[:, None], (height, width)) > 0.3).float() * labels[:, :, None, None]
    known = typed[:, None].expand(-1, len(LABELS)).clone()
    known[:, 0] = 1
    places = binary_cross_entropy_with_logits(
        output.maps, target, reduction="none", pos_weight=torch.tensor(config.map_positive)
    ).mean((2, 3))
    return {
        "scores": (scores * weights).mean() / weights.mean(),
        "map": config.map * (places * known).sum() / known.sum(),
        "dice": config.dice * _dice(output.maps[:, 0], target[:, 0]),
    }


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss over the batch's places together: slices without a lesion count through their false alarms."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + target.sum() + 1)
