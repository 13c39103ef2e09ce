"""Computes a score table of a model's card: six labels at one level, with patient-level intervals."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hemoscope.evaluation.bootstrap import bootstrap_scores
from hemoscope.evaluation.intervals import Interval
from hemoscope.inference.card import Estimate, LabelScore, ScoreTable
from hemoscope.labels import LABELS, Hemorrhage, PerLabel


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
        ranked: (n, 6) in [0, 1]: scores for AUROC and average precision.
        probabilities: (n, 6): for the calibration error; not fitted on these rows.
        truth: (n, 6) of 0, 1 or NaN (unknown).
        patients: the patient of each row; the bootstrap resamples patients.
        name: of the evaluation.
        description: of the evaluation, for readers of the card.
        level: whether a row is a slice or a study.
    """
    labels = np.asarray(truth, dtype=np.float64)
    order = bootstrap_scores(ranked, labels, patients)
    honest = bootstrap_scores(probabilities, labels, patients)
    names = np.array(patients)

    def of(label: Hemorrhage) -> LabelScore:
        positive = labels[:, LABELS.index(label)] == 1
        return LabelScore(
            auroc=_estimate(order.labels[label]["auroc"]),
            average_precision=_estimate(order.labels[label]["average_precision"]),
            ece=_without_interval(honest.labels[label].ece),
            n_positive=int(positive.sum()),
            n_positive_patients=len(set(names[positive])),
            reason=order.labels[label].reason,
        )

    return ScoreTable(
        name=name,
        description=description,
        level=level,
        n_images=len(labels),
        n_patients=len(set(patients)),
        labels=PerLabel.build(of),
    )


def _estimate(measured: Interval | None) -> Estimate | None:
    if measured is None:
        return None
    return Estimate(value=round(measured.value, 4), low=round(measured.low, 4), high=round(measured.high, 4))


def _without_interval(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value=round(value, 4), low=None, high=None)
