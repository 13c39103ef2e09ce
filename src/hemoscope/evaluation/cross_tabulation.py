"""Cross tabulation of decisions and labels: true and false positives and negatives of every label."""

from typing import Any

import numpy as np

from hemoscope.evaluation.metrics import DEFAULT_THRESHOLD, decide
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.labels import LABELS, PerLabel


def cross_tabulation(data: LabelledPredictions, points: PerLabel[OperatingPoint] | None) -> dict[str, Any]:
    """Return ``decided_by`` and the four counts of each label; rows with an unknown label do not count.

    Args:
        data: one row an image or a case.
        points: thresholds, at or above is positive; None means above 0.5.
    """
    decisions = decide(data.probabilities, None if points is None else [point.threshold for point in points.values])
    positive, negative = data.labels == 1.0, data.labels == 0.0
    cells = {
        "true_positive": positive & decisions,
        "false_negative": positive & ~decisions,
        "false_positive": negative & decisions,
        "true_negative": negative & ~decisions,
    }
    sums = {name: np.asarray(cell.sum(axis=0)) for name, cell in cells.items()}
    return {
        "decided_by": decision_words(points),
        "labels": {
            label.value: {name: int(total[k]) for name, total in sums.items()} for k, label in enumerate(LABELS)
        },
    }


def decision_words(points: PerLabel[OperatingPoint] | None) -> str:
    """Return what decides: the model's operating points, or 0.5 without them."""
    return f"probability above {DEFAULT_THRESHOLD:g}" if points is None else "the model's operating points"
