"""What personalisation did to each label, on the patients of a site that no training saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.evaluation.metrics import Ranking
from hemoscope.federated.site.personal import Personalised
from hemoscope.inference.calibration import sigmoid
from hemoscope.inference.probabilities import calibrated
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.fitted_levels import fit_calibration
from hemoscope.training.run_scores import LevelScores

Floats = NDArray[np.float64]
Pair = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChange:
    """One label on the test part; pairs are before and after, None where a value is not defined.

    Attributes:
        label: which.
        positives: slices with it.
        slice_auroc: ranking of slices.
        study_auroc: ranking of studies.
        brier: mean squared error of the slices' probabilities: the federated network's own before, calibrated on the
            validation part after.
    """

    label: Hemorrhage
    positives: int
    slice_auroc: Pair
    study_auroc: Pair
    brier: Pair


def label_changes(found: Personalised) -> tuple[LabelChange, ...]:
    """Before and after, for the labels that the test part has slices of."""
    before, after = found.before.test, found.after.test
    table = fit_calibration(found.after.validation.slices).calibration
    raw, fitted = sigmoid(before.slices.logits), calibrated(after.slices.logits, table)
    truth = before.slices.truth
    return tuple(
        LabelChange(
            label=label,
            positives=int((truth[:, k] == 1).sum()),
            slice_auroc=(_auroc(before.slices, k), _auroc(after.slices, k)),
            study_auroc=(_auroc(before.studies, k), _auroc(after.studies, k)),
            brier=(_brier(raw[:, k], truth[:, k]), _brier(fitted[:, k], truth[:, k])),
        )
        for k, label in enumerate(LABELS)
        if (truth[:, k] == 1).any()
    )


def _auroc(scores: LevelScores, k: int) -> float | None:
    truth = scores.truth[:, k]
    known = np.isfinite(truth)
    if set(truth[known].tolist()) != {0.0, 1.0}:
        return None
    ranking = Ranking.of(scores.logits[known, k], truth[known])
    return float(ranking.evaluate(np.ones((1, int(known.sum()))))[0][0])


def _brier(probabilities: Floats, truth: Floats) -> float:
    known = np.isfinite(truth)
    return float(np.mean((probabilities[known] - truth[known]) ** 2))
