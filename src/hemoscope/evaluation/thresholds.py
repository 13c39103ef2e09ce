"""Operating points: thresholds of calibrated probabilities, and their performance on the tuning data.

At or above a threshold is positive. A threshold is halfway between the lowest positive and the highest negative
probability, so that rounding in a file or on another processor does not change a decision.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hemoscope.errors import DataError
from hemoscope.evaluation.metrics import Booleans, Floats, check_probabilities, checked_pair
from hemoscope.inference.calibration import OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cuts:
    """All distinct thresholds of one label's scores, from no image positive to all images positive.

    In row ``k``, images with a score at or above ``scores[k]`` are positive; in row 0 (score infinite), none. All
    arrays are (cuts,); counts are of images.
    """

    scores: Floats
    true_positives: Floats
    false_positives: Floats

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike) -> "Cuts":
        """Count at each distinct score; (images,) each. Raises DataError if the labels have only one class."""
        values, truth = checked_pair(scores, labels)
        if truth.all() or not truth.any():
            msg = f"all {len(truth)} labels are {int(truth[0])}; an operating point needs both classes"
            raise DataError(msg)
        order = np.argsort(-values, kind="stable")
        ranked, hits = values[order], truth[order]
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        true_positives = np.cumsum(hits)[last]
        return cls(
            scores=np.concatenate([[np.inf], ranked[last]]),
            true_positives=np.concatenate([[0.0], true_positives]),
            false_positives=np.concatenate([[0.0], last + 1 - true_positives]),
        )

    @property
    def sensitivity(self) -> Floats:
        """Sensitivity, rising from 0 to 1."""
        return np.asarray(self.true_positives / self.true_positives[-1])

    @property
    def specificity(self) -> Floats:
        """Specificity, falling from 1 to 0.

        A quotient of counts, as every metric is: ``1 - false / all`` is rounded twice and misses a target by a digit.
        """
        negatives = self.false_positives[-1]
        return np.asarray((negatives - self.false_positives) / negatives)

    @property
    def precision(self) -> Floats:
        """Precision; NaN in row 0, which has no positive decision."""
        taken = self.true_positives + self.false_positives
        return np.divide(self.true_positives, taken, out=np.full_like(taken, np.nan), where=taken > 0)

    @property
    def accuracy(self) -> Floats:
        """Share of correct decisions."""
        right = self.true_positives + self.false_positives[-1] - self.false_positives
        return np.asarray(right / (self.true_positives[-1] + self.false_positives[-1]))

    def f_beta(self, beta: float) -> Floats:
        """F-measure that weights recall ``beta`` times as much as precision (van Rijsbergen 1979)."""
        missed = self.true_positives[-1] - self.true_positives
        gain = (1 + beta**2) * self.true_positives
        return np.asarray(gain / (gain + beta**2 * missed + self.false_positives))

    def threshold(self, row: int) -> float:
        """Return a threshold inside (0, 1) for exactly the images of ``row``. Raises DataError if none exists."""
        lowest_taken = min(float(self.scores[row]), 1.0)
        highest_left = max(float(self.scores[row + 1]) if row + 1 < len(self.scores) else 0.0, 0.0)
        middle = (lowest_taken + highest_left) / 2
        threshold = middle if middle > highest_left else lowest_taken
        if not highest_left < threshold < 1.0 or (row + 1 == len(self.scores) and lowest_taken <= 0.0):
            msg = "the threshold would be exactly 0 or 1. Calibrate the scores first"
            raise DataError(msg)
        return threshold


def at_sensitivity(probabilities: ArrayLike, labels: ArrayLike, target: float) -> OperatingPoint:
    """Return the highest threshold whose sensitivity is at least ``target``."""
    cuts = _cuts(probabilities, labels, target)
    return _point(cuts, int(np.argmax(cuts.sensitivity >= target)), f"sensitivity >= {target:g}")


def at_specificity(probabilities: ArrayLike, labels: ArrayLike, target: float) -> OperatingPoint:
    """Return the lowest threshold whose specificity is at least ``target``."""
    cuts = _cuts(probabilities, labels, target)
    return _point(cuts, int(np.flatnonzero(cuts.specificity >= target)[-1]), f"specificity >= {target:g}")


def at_precision(probabilities: ArrayLike, labels: ArrayLike, target: float) -> OperatingPoint:
    """Return the lowest threshold whose precision is at least ``target``. Raises DataError if there is none."""
    cuts = _cuts(probabilities, labels, target)
    return _point(cuts, row_at_precision(cuts, target), f"precision >= {target:g}")


def row_at_precision(cuts: Cuts, target: float) -> int:
    """Return the row of highest recall with a precision of at least ``target``. Raises DataError if there is none."""
    reached = np.flatnonzero(cuts.precision >= target)
    if reached.size == 0:
        msg = f"no threshold reaches a precision of {target:g}; the highest is {np.nanmax(cuts.precision):.3f}"
        raise DataError(msg)
    return int(reached[-1])


def youden(probabilities: ArrayLike, labels: ArrayLike) -> OperatingPoint:
    """Return the threshold of highest sensitivity + specificity - 1 (Youden 1950); of equals, the most sensitive."""
    cuts = _cuts(probabilities, labels)
    return _point(cuts, _last_best(cuts.sensitivity + cuts.specificity), "youden")


def best_f_beta(probabilities: ArrayLike, labels: ArrayLike, beta: float = 1.0) -> OperatingPoint:
    """Return the threshold of highest F-beta; of equal ones, the most sensitive."""
    if not beta > 0:
        msg = f"beta must be positive, got {beta}"
        raise DataError(msg)
    cuts = _cuts(probabilities, labels)
    return _point(cuts, _last_best(cuts.f_beta(beta)), f"f-beta {beta:g}")


def stated(probabilities: ArrayLike, labels: ArrayLike, threshold: float, *, rule: str) -> OperatingPoint:
    """Return the performance of a threshold that was chosen on other data."""
    values, truth = checked_pair(probabilities, labels)
    taken = values >= threshold
    return OperatingPoint(
        threshold=threshold, rule=rule, sensitivity=_share(taken[truth]), specificity=_share(~taken[~truth])
    )


def _share(flags: Booleans) -> float | None:
    return float(flags.mean()) if flags.size else None


def _last_best(values: Floats) -> int:
    """Return the last row equal to the maximum within rounding."""
    return int(np.flatnonzero(values >= values.max() - 1e-12)[-1])


def _cuts(probabilities: ArrayLike, labels: ArrayLike, target: float = 1.0) -> Cuts:
    if not 0.0 < target <= 1.0:
        msg = f"a target must lie above 0 and not above 1, got {target}"
        raise DataError(msg)
    check_probabilities(np.asarray(probabilities, dtype=np.float64))
    return Cuts.of(probabilities, labels)


def _point(cuts: Cuts, row: int, rule: str) -> OperatingPoint:
    return OperatingPoint(
        threshold=cuts.threshold(row),
        rule=rule,
        sensitivity=float(cuts.sensitivity[row]),
        specificity=float(cuts.specificity[row]),
    )
