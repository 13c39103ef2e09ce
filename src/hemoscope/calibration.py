"""Calibration and operating points as values: how to apply them. Fitting them is ``evaluation``'s work."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits to probabilities without overflow, any shape."""
    return np.exp(-np.logaddexp(0.0, -logits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt's calibration of one label: probability = sigmoid(scale * logit + bias); scale > 0 keeps the order."""

    scale: float
    bias: float

    def __post_init__(self) -> None:
        """Reject a scale that would turn the order of scores round."""
        if not (self.scale > 0 and np.isfinite(self.scale) and np.isfinite(self.bias)):
            msg = f"calibration needs a positive finite scale and a finite bias, got {self.scale} and {self.bias}"
            raise ValueError(msg)

    def apply(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits of any shape to calibrated probabilities."""
        return sigmoid(self.scale * np.asarray(logits, dtype=np.float64) + self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A threshold on a calibrated probability, and the rule that chose it; at or above it is positive.

    ``sensitivity`` and ``specificity`` are what the rule reached on the scores it was fitted on.
    """

    threshold: float
    rule: str
    sensitivity: float | None = None
    specificity: float | None = None

    def __post_init__(self) -> None:
        """Reject a threshold that no probability can meet or miss."""
        if not 0.0 < self.threshold < 1.0:
            msg = f"a threshold must lie between 0 and 1, got {self.threshold}"
            raise ValueError(msg)
