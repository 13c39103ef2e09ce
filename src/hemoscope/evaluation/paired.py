"""Paired comparison of models on the same patients: AUROCs, their means and their differences.

Intervals take the patient as the unit. The variance is DeLong's (1988) in Obuchowski's form for clustered data (1997).
It is linear in the models, so that a patient's difficulty cancels in a difference, whatever the number of models.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.intervals import Interval, area_interval, group_indices, placements
from hemoscope.evaluation.metrics import Booleans, Floats, Integers
from hemoscope.evaluation.paired_tests import half_width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedAuroc:
    """AUROC of several models on one set of images.

    Attributes:
        values: of each model, NaN if only one class is known.
        excess: of each model, (known,): the placements of its images less its AUROC.
        truth: (known,) the known labels.
        groups: (known,) the number of each image's patient.
    """

    values: Mapping[str, float]
    excess: Mapping[str, Floats]
    truth: Booleans
    groups: Integers

    def value(self, weights: Mapping[str, float]) -> float:
        """Return a weighted sum of the models' AUROCs; NaN if undefined."""
        return sum(weight * self.values[name] for name, weight in weights.items())

    def interval(self, weights: Mapping[str, float]) -> Interval | None:
        """Return a mean or a difference of the models' AUROCs with its 95% interval.

        A mean has the interval of :func:`hemoscope.evaluation.intervals.auroc_interval`, a difference that of
        :func:`hemoscope.evaluation.paired_tests.auroc_difference`.

        Args:
            weights: ``{"a": 1}`` is the AUROC of ``a``; ``{"a": 1, "b": -1}`` is that of ``a`` less that of ``b``.

        Returns:
            None if only one class is known; of a difference also with fewer than five patients in a class, or if the
            models rank all images alike.

        Raises:
            DataError: weights that sum neither to 1 (a mean) nor to 0 (a difference).
        """
        value, total = self.value(weights), math.fsum(weights.values())
        if not (mean := math.isclose(total, 1.0)) and not math.isclose(total, 0.0, abs_tol=1e-9):
            msg = f"weights sum to {total:g}. Give weights that sum to 1 (a mean) or to 0 (a difference)"
            raise DataError(msg)
        if not np.isfinite(value):
            return None
        excess = sum((weight * self.excess[name] for name, weight in weights.items()), start=np.zeros(len(self.truth)))
        if mean:
            return area_interval(value, excess, self.truth, self.groups)
        half = half_width(excess, self.truth, self.groups)
        if half is None:
            return None
        return Interval(value=value, low=max(value - half, -1.0), high=min(value + half, 1.0))


def paired_auroc(scores: Mapping[str, Floats], labels: Floats, patients: Sequence[Hashable]) -> PairedAuroc:
    """Score every model on the same images.

    Args:
        scores: of each model, (images,).
        labels: (images,) of 0, 1 or NaN; images with unknown labels are excluded.
        patients: of each image.

    Raises:
        DataError: scores and labels differ in length.
    """
    lengths = {len(labels), *map(len, scores.values())}
    if len(lengths) != 1:
        msg = f"models with {', '.join(map(str, sorted(lengths)))} scores and labels: each must score the same images"
        raise DataError(msg)
    known: Booleans = np.isfinite(labels)
    truth = labels[known] == 1.0
    groups = group_indices(patients, len(labels))[0][known]
    if not truth.any() or truth.all():
        values, excess = dict.fromkeys(scores, math.nan), dict.fromkeys(scores, np.full(len(truth), math.nan))
    else:
        wins = {name: placements(one[known], truth) for name, one in scores.items()}
        values = {name: float(one[truth].mean()) for name, one in wins.items()}
        excess = {name: one - values[name] for name, one in wins.items()}
    return PairedAuroc(values=values, excess=excess, truth=truth, groups=groups)
