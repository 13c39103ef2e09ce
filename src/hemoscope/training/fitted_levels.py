"""Calibration and operating points of one level, slices or studies, fitted on scores of held-out data.

If too few patients have a label, nothing is fitted for it: it keeps the network's own probability and a threshold of
0.5, is not established, and carries the reason, which the card lists among its limits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import DataError
from hemoscope.evaluation.calibrate import fit_platt
from hemoscope.evaluation.intervals import group_indices
from hemoscope.evaluation.metrics import Booleans
from hemoscope.evaluation.threshold_rules import ThresholdRule
from hemoscope.evaluation.tuning import CrossFitted, LevelSettings, ValidationScores, cross_fit, not_below
from hemoscope.inference.calibration import Calibration, ConformalSets, OperatingPoint, UnsureRule
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.training.run_scores import LevelScores

Floats = NDArray[np.float64]

# A fit to a single patient would not generalise.
FEWEST_PATIENTS = 2
RAW = Calibration(scale=1.0, bias=0.0)
# An operating point includes its threshold; the paper counts only probabilities above 0.5.
ABOVE_HALF = math.nextafter(0.5, 1.0)
NEVER = math.nextafter(1.0, 0.0)
EXCLUDES_NOTHING = 1.0 - NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCalibration:
    """Calibrations of one level, and the reason if a label could not be calibrated (else None)."""

    calibration: PerLabel[Calibration]
    reasons: PerLabel[str | None]


def unfitted(reason: str) -> FittedCalibration:
    """Return the identity calibration for every label."""
    return FittedCalibration(calibration=PerLabel.build(lambda _: RAW), reasons=PerLabel.build(lambda _: reason))


def fit_calibration(scores: LevelScores) -> FittedCalibration:
    """Fit Platt scaling for every label that enough patients have and lack."""
    reasons = PerLabel.build(lambda label: _too_few(scores, label))

    def fit(label: Hemorrhage) -> Calibration:
        logits, truth, _ = _known(scores, label)
        return RAW if reasons[label] else fit_platt(logits, truth)

    return FittedCalibration(calibration=PerLabel.build(fit), reasons=reasons)


def cross_fit_level(
    scores: LevelScores,
    points: PerLabel[OperatingPoint],
    established: PerLabel[bool],
    urgent: OperatingPoint | None = None,
    *,
    seed: int = 0,
    logits_by: Callable[[Booleans], Floats] | None = None,
    unsure: UnsureRule | None = None,
) -> CrossFitted | None:
    """Fit calibration and thresholds on all folds of patients but one and apply them to that fold, for each fold.

    Args:
        scores: that calibration and points were fitted on.
        points: fitted on all of ``scores``; only their rules are used. A point without a rule stays above 0.5.
        established: fixed, because it decides what is served.
        urgent: the second point on ``any``.
        seed: of the assignment of patients to folds.
        logits_by: as for ``tuning.cross_fit``.
        unsure: the conformal rule of studies; only its alphas are used. A fold with too few studies for one excludes
            nothing.

    Returns:
        None if there are too few patients: fewer than folds, or no label that two of them have.
    """
    groups, _ = group_indices(scores.patients, len(scores.patients))
    if unsure is not None:  # its quantiles were fitted on all patients, and on calibrated probabilities
        sets = (ConformalSets(alpha=one.alpha, low=EXCLUDES_NOTHING, high=NEVER) for one in unsure.sets)
        unsure = replace(unsure, sets=tuple(sets))
    rules = LevelSettings(
        calibration=PerLabel.build(lambda _: RAW),
        points=PerLabel.of([replace(point, threshold=ABOVE_HALF) for point in points.values]),
        established=established,
        urgent=None if urgent is None else replace(urgent, threshold=NEVER),
        unsure=unsure,
    )
    known = ValidationScores(logits=scores.logits, truth=scores.truth, groups=groups)
    try:
        return cross_fit(known, rules, seed=seed, logits_by=logits_by)
    except DataError:  # documented: too few patients for folds
        return None


def fit_points(
    scores: LevelScores,
    fitted: FittedCalibration,
    established: PerLabel[bool],
    rules: Callable[[Hemorrhage], ThresholdRule],
) -> PerLabel[OperatingPoint]:
    """Choose an operating point for each label by its rule on calibrated probabilities; above 0.5 if not fitted."""
    probabilities = consistent(calibrated(scores.logits, fitted.calibration), established)

    def point(label: Hemorrhage) -> OperatingPoint:
        found, reason = _point(scores, probabilities, label, rules(label), fitted.reasons[label])
        # Remains true when hemoscope tune converts the threshold to another calibration.
        rule = f"above 0.5 of the network's own probability, not fitted: {reason}"
        return found or OperatingPoint(threshold=ABOVE_HALF, rule=rule)

    return PerLabel.build(point)


def fit_urgent(
    scores: LevelScores,
    fitted: FittedCalibration,
    established: PerLabel[bool],
    rule: ThresholdRule,
    *,
    lowest: float,
) -> tuple[OperatingPoint, str | None]:
    """Choose the stricter point on ``any``; if it cannot be fitted, return one that no study reaches and why.

    ``lowest`` is the threshold of ``any``, which an urgent study reaches too.
    """
    probabilities = consistent(calibrated(scores.logits, fitted.calibration), established)
    found, reason = _point(scores, probabilities, Hemorrhage.ANY, rule, fitted.reasons[Hemorrhage.ANY])
    if found is None:
        return never_urgent(reason), reason
    return not_below(found, lowest, probabilities[:, 0], scores.truth[:, 0]), None


def never_urgent(reason: str) -> OperatingPoint:
    """Return a point that no study reaches, because no study can be called urgent."""
    return OperatingPoint(threshold=NEVER, rule=f"never: {reason}")


def _point(
    scores: LevelScores, probabilities: Floats, label: Hemorrhage, rule: ThresholdRule, reason: str | None
) -> tuple[OperatingPoint | None, str]:
    """Return the point and None, or None and the reason."""
    if reason:
        return None, reason
    k = LABELS.index(label)
    known = np.isfinite(scores.truth[:, k])
    try:
        return rule.point(probabilities[known, k], scores.truth[known, k]), ""
    except DataError as error:
        return None, str(error)


def _too_few(scores: LevelScores, label: Hemorrhage) -> str | None:
    _, truth, patients = _known(scores, label)
    names = np.array(patients)
    for what, chosen in (("with it", truth == 1), ("known to be without it", truth == 0)):
        count = len(set(names[chosen]))
        if count < FEWEST_PATIENTS:
            return f"{count} {'patient' if count == 1 else 'patients'} {what}, and a fit needs {FEWEST_PATIENTS}"
    return None


def _known(scores: LevelScores, label: Hemorrhage) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Return logits, truth and patients of the rows whose label is known."""
    k = LABELS.index(label)
    rows = np.flatnonzero(np.isfinite(scores.truth[:, k]))
    return scores.logits[rows, k], scores.truth[rows, k], tuple(scores.patients[row] for row in rows)
