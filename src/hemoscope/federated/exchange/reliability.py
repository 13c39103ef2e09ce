"""How far probabilities are from shares, from histograms: the bins of a reliability diagram and their error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemoscope.evaluation.metrics import CALIBRATION_BINS
from hemoscope.federated.exchange.pooled import PooledScores
from hemoscope.inference.calibration import AnyCalibration
from hemoscope.labels import Hemorrhage


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Rows of about one probability: their mean probability, the share that is positive, and how many they are."""

    probability: float
    share: float
    rows: float


def reliability_bins(
    parts: Sequence[tuple[PooledScores, AnyCalibration]], label: Hemorrhage
) -> tuple[ReliabilityBin, ...]:
    """Probability against share in 15 equal-width bins, rows spread evenly over their cells; empty bins left out.

    Args:
        parts: sets of rows, each with a calibration that was not fitted on it.
        label: whose.
    """
    sums = np.zeros((CALIBRATION_BINS, 3))  # rows, positives, probabilities
    for pooled, calibration in parts:
        for found, truth in ((pooled.positive[label], 1.0), (pooled.negative[label], 0.0)):
            probabilities = calibration.apply(found.placed())
            bins = np.minimum((probabilities * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
            weight = found.rows / max(len(probabilities), 1)
            columns = np.stack([np.ones_like(probabilities), np.full_like(probabilities, truth), probabilities], axis=1)
            np.add.at(sums, bins, columns * weight)
    return tuple(
        ReliabilityBin(probability=float(total / rows), share=float(positives / rows), rows=float(rows))
        for rows, positives, total in sums
        if rows
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """Expected calibration error (Naeini et al. 2015): mean distance over rows; None where there are no rows."""
    rows = sum(one.rows for one in bins)
    if not rows:
        return None
    return sum(one.rows * abs(one.probability - one.share) for one in bins) / rows
