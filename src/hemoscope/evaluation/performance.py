"""Performance of an operating point on held-out rows: proportions with 95% intervals and the counts behind them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemoscope.evaluation.intervals import proportion_interval
from hemoscope.evaluation.metrics import Booleans, Floats, Integers
from hemoscope.inference.calibration import OperatingPoint, PointPerformance, Proportion
from hemoscope.labels import LABELS, PerLabel

_DIGITS = 4

Method = Literal["cross_fitted", "test_set"]


def with_performance(
    points: PerLabel[OperatingPoint],
    decisions: Booleans,
    truth: Floats,
    groups: Sequence[str] | Integers,
    method: Method,
) -> PerLabel[OperatingPoint]:
    """Return the points of one level with their performance on held-out rows.

    Args:
        points: of one level.
        decisions: (n, 6) by settings that were not fitted on these rows.
        truth: (n, 6) of 0, 1 or NaN (unknown).
        groups: the patient of each row.
        method: how the rows were held out.
    """
    found = [measured(points[label], decisions[:, k], truth[:, k], groups, method) for k, label in enumerate(LABELS)]
    return PerLabel.of(found)


def measured(
    point: OperatingPoint, decisions: Booleans, truth: Floats, groups: Sequence[str] | Integers, method: Method
) -> OperatingPoint:
    """Return a point with its performance; if the rows lack one class, with the performance that it had before."""
    found = held_out_performance(decisions, truth, groups, method)
    return point if found is None else replace(point, performance=found)


def held_out_performance(
    decisions: Booleans, truth: Floats, groups: Sequence[str] | Integers, method: Method
) -> PointPerformance | None:
    """Return the performance of one label's decisions (n,); None if the rows lack positives or negatives.

    Args:
        decisions: (n,) by settings that were not fitted on these rows.
        truth: (n,) of 0, 1 or NaN (unknown: the row is ignored).
        groups: the patient of each row, the unit of the intervals.
        method: how the rows were held out.
    """
    patients = np.asarray(groups)
    positive, negative = truth == 1.0, truth == 0.0
    if not positive.any() or not negative.any():
        return None
    flagged = decisions & (positive | negative)
    return PointPerformance(
        method=method,
        sensitivity=proportion(decisions[positive], patients[positive]),
        specificity=proportion(~decisions[negative], patients[negative]),
        precision=proportion(positive[flagged], patients[flagged]),
    )


def proportion(hits: Booleans, patients: NDArray[np.generic]) -> Proportion | None:
    """Return the share of hits (rows,) with its interval by patient and its counts; None without rows."""
    found = proportion_interval(hits, patients)
    if found is None:
        return None
    return Proportion(
        value=round(found.value, _DIGITS),
        low=round(found.low, _DIGITS),
        high=round(found.high, _DIGITS),
        hits=int(hits.sum()),
        rows=len(hits),
        patients=len(np.unique(patients)),
    )
