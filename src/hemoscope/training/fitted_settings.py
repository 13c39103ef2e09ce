"""Fits what a card needs on scores of held-out data: calibration, operating points, and which labels are established.

The performance of the fitted points on rows that they were not fitted on is in :mod:`hemoscope.training.held_out`.
"""

from dataclasses import dataclass, replace

import numpy as np

from hemoscope.evaluation.conformal import fit_unsure
from hemoscope.evaluation.established import established_by_rows
from hemoscope.evaluation.threshold_rules import ThresholdRule
from hemoscope.inference.calibration import SliceRule, UnsureRule
from hemoscope.inference.card import CalibrationTable, OperatingPointTable
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.training.fitted_levels import (
    FittedCalibration,
    fit_calibration,
    fit_points,
    fit_urgent,
    never_urgent,
    unfitted,
)
from hemoscope.training.fitted_smoothing import Smoothing
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores

# A missed bleed costs more than a false alarm, so the study's `any` is set by sensitivity. For slices, F1 marks those
# that most likely show the bleed.
STUDY_SENSITIVITY = 0.90
URGENT_PRECISION = 0.90
NO_VALIDATION = "the split has no validation set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What was fitted for a card, and lines for its limits about what could not be fitted."""

    calibration: CalibrationTable
    points: OperatingPointTable
    established: PerLabel[bool]
    limits: tuple[str, ...]
    slice_rule: SliceRule | None = None
    unsure: UnsureRule | None = None


def established_labels(scored: SliceAndStudyScores) -> PerLabel[bool]:
    """Return which labels the network's own scores establish, by slice and by study."""

    def of(label: Hemorrhage) -> bool:
        k = LABELS.index(label)
        return all(
            established_by_rows(scores.logits[:, k], scores.truth[:, k], scores.patients)
            for scores in (scored.slices, scored.studies)
        )

    return PerLabel.build(of)


def fit(scored: SliceAndStudyScores, supported: PerLabel[bool], smoothing: Smoothing | None = None) -> Fit:
    """Calibrate both levels and choose operating points; a ``supported`` label that can be fitted is established.

    Slices are calibrated twice if ``smoothing`` helps: as they are, and smoothed, which their points are chosen on.
    """
    slices, studies = fit_calibration(scored.slices), fit_calibration(scored.studies)
    fine = PerLabel.build(
        lambda label: supported[label] and slices.reasons[label] is None and studies.reasons[label] is None
    )
    of_studies = fit_points(scored.studies, studies, fine, _study_rule)
    urgent, why_never = fit_urgent(
        scored.studies,
        studies,
        fine,
        ThresholdRule(kind="precision", target=URGENT_PRECISION),
        lowest=of_studies[Hemorrhage.ANY].threshold,
    )
    width_mm, served, smooth = None if smoothing is None else smoothing.width_mm(), scored.slices, slices
    if smoothing is not None and width_mm is not None:
        served = replace(scored.slices, logits=smoothing.smoothed_by())
        smooth = fit_calibration(served)
    of_slices = fit_points(served, smooth, fine, lambda _: ThresholdRule(kind="f-beta", target=1.0))
    return Fit(
        calibration=CalibrationTable(slice=slices.calibration, study=studies.calibration),
        points=OperatingPointTable(slice=of_slices, study=of_studies, urgent=urgent),
        established=fine,
        limits=(*_unfitted_lines(slices, studies), *_urgency_lines(why_never)),
        slice_rule=None if width_mm is None else SliceRule(width_mm=width_mm, calibration=smooth.calibration),
    )


def with_unsure(found: Fit, scored: SliceAndStudyScores) -> Fit:
    """Return the fit with its conformal rule, if ``any`` is established and there are enough studies."""
    if not found.established[Hemorrhage.ANY]:
        return found
    shown = consistent(calibrated(scored.studies.logits, found.calibration.study), found.established)
    return replace(found, unsure=fit_unsure(shown[:, 0], scored.studies.truth[:, 0]))


def nothing_fitted(reason: str) -> Fit:
    """Return the network's own probabilities, positive above 0.5, with no label established."""
    raw = unfitted(reason)
    nothing = LevelScores(logits=np.zeros((1, 6)), truth=np.full((1, 6), np.nan), patients=("",))
    none = PerLabel.build(lambda _: False)
    points = fit_points(nothing, raw, none, _study_rule)
    return Fit(
        calibration=CalibrationTable(slice=raw.calibration, study=raw.calibration),
        points=OperatingPointTable(slice=points, study=points, urgent=never_urgent(reason)),
        established=none,
        limits=(
            f"Neither calibration nor thresholds are fitted, and no label is established: {reason}. Probabilities are "
            "the network's own, and above 0.5 is positive. To fit them on other patients: hemoscope tune.",
            *_urgency_lines(reason),
        ),
    )


def _study_rule(label: Hemorrhage) -> ThresholdRule:
    if label is Hemorrhage.ANY:
        return ThresholdRule(kind="sensitivity", target=STUDY_SENSITIVITY)
    return ThresholdRule(kind="youden")


def _unfitted_lines(slices: FittedCalibration, studies: FittedCalibration) -> list[str]:
    """Return one line for each label that could not be fitted at a level."""
    return [
        f"{label.display}: neither calibrated nor given its own threshold ({reason}); its probability is the "
        "network's own, and above 0.5 is positive."
        for label, reason in ((label, slices.reasons[label] or studies.reasons[label]) for label in Hemorrhage)
        if reason
    ]


def _urgency_lines(reason: str | None) -> list[str]:
    return [f"No study is called urgent: {reason}."] if reason else []
