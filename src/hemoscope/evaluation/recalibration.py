"""Cross-fitted calibration of all six labels, to show the effect of calibration alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import UNKNOWN
from hemoscope.evaluation.calibrate import DEFAULT_FOLDS, DEFAULT_METHOD, cross_fitted, fit_of, logit
from hemoscope.evaluation.metrics import Floats
from hemoscope.labels import LABELS, PerLabel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recalibrated:
    """Cross-fitted probabilities, (images, 6); NaN if a label is unknown or cannot be fitted (with a reason)."""

    probabilities: Floats
    method: str
    folds: int
    reasons: PerLabel[str | None]


def recalibrate(
    probabilities: Floats,
    labels: Floats,
    groups: Sequence[Hashable] | None = None,
    *,
    method: str = DEFAULT_METHOD,
    seed: int = 0,
) -> Recalibrated:
    """Cross-fit each label separately, in five folds by group.

    Args:
        probabilities: (images, 6) in label order.
        labels: (images, 6) of 0, 1 or NaN (unknown).
        groups: the patient of each image; None splits by image.
        method: platt, isotonic or temperature.
        seed: of the assignment of groups to folds.

    Raises:
        DataError: the method is unknown.
    """
    fit = fit_of(method)
    logits = logit(probabilities)
    values = np.full(logits.shape, np.nan)
    reasons: list[str | None] = [None] * len(LABELS)
    for k in range(len(LABELS)):
        known = np.flatnonzero(np.isfinite(labels[:, k]))
        if known.size == 0:
            reasons[k] = UNKNOWN
            continue
        members = None if groups is None else [groups[int(row)] for row in known]
        try:
            values[known, k] = cross_fitted(logits[known, k], labels[known, k], members, seed=seed, fit=fit)
        except DataError as error:
            reasons[k] = str(error)
    return Recalibrated(probabilities=values, method=method, folds=DEFAULT_FOLDS, reasons=PerLabel.of(reasons))
