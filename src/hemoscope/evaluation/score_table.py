"""Computes a score table of a model's card: six labels at one level, with patient-level intervals."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hemoscope.evaluation.bootstrap import bootstrap_scores
from hemoscope.evaluation.calibration_scores import CalibrationScores, calibration_scores
from hemoscope.evaluation.intervals import Interval, auroc_interval
from hemoscope.inference.card import Estimate, LabelScore, ScoreTable
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

_DIGITS = 4
# A ratio or a slope whose interval ends beyond this is unknown.
_UNBOUNDED = 100.0


def score_table(
    *,
    ranked: ArrayLike,
    probabilities: ArrayLike,
    truth: ArrayLike,
    patients: Sequence[str],
    name: str,
    description: str,
    level: Literal["slice", "patient"],
) -> ScoreTable:
    """Compute one score table.

    Args:
        ranked: (n, 6) in [0, 1]: probabilities as served, for AUROC and average precision.
        probabilities: (n, 6): for the calibration scores; not fitted on these rows.
        truth: (n, 6) of 0, 1 or NaN (unknown).
        patients: the patient of each row, the unit of every interval.
        name: of the evaluation.
        description: of the evaluation, for readers of the card.
        level: whether a row is a slice or a study.
    """
    served, held_out = np.asarray(ranked, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    labels, names = np.asarray(truth, dtype=np.float64), np.array(patients)
    resampled = bootstrap_scores(served, labels, patients).labels

    def of(label: Hemorrhage) -> LabelScore:
        k = LABELS.index(label)
        known = np.isfinite(labels[:, k])
        positive, negative = labels[:, k] == 1.0, labels[:, k] == 0.0
        rows = labels[known, k], names[known]
        calibration = calibration_scores(held_out[known, k], *rows) if known.any() else None
        return LabelScore(
            auroc=_estimate(auroc_interval(served[known, k], *rows)) if known.any() else None,
            average_precision=_estimate(resampled[label]["average_precision"]),
            n_positive=int(positive.sum()),
            n_positive_patients=len(np.unique(names[positive])),
            reason=resampled[label].reason,
            n_negative=int(negative.sum()),
            n_negative_patients=len(np.unique(names[negative])),
            **_calibration(calibration),
        )

    return ScoreTable(
        name=name,
        description=description,
        level=level,
        n_images=len(labels),
        n_patients=len(set(patients)),
        labels=PerLabel.build(of),
    )


def _calibration(found: CalibrationScores | None) -> dict[str, Estimate | None]:
    """Return the calibration scores by the card's keys; all None without known rows."""
    if found is None:
        return {"ece": None}
    return {
        "ece": _value(found.ece),
        "ece_if_calibrated": _value(found.ece_if_calibrated),
        "slope": _estimate(found.slope),
        "intercept": _estimate(found.intercept),
        "observed_expected": _estimate(found.observed_expected),
    }


def _estimate(measured: Interval | None) -> Estimate | None:
    """Return the rounded score; None if its interval is unbounded, as from two patients."""
    if measured is None or not max(abs(measured.low), abs(measured.high)) < _UNBOUNDED:
        return None
    return Estimate(
        value=round(measured.value, _DIGITS), low=round(measured.low, _DIGITS), high=round(measured.high, _DIGITS)
    )


def _value(measured: float | None) -> Estimate | None:
    return None if measured is None else Estimate(value=round(measured, _DIGITS), low=None, high=None)
