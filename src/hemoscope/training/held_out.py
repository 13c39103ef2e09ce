"""What fitted settings show and decide on rows that they were not fitted on, and the performance of their points.

A run on folds has no further rows: settings are cross-fitted, each fold of patients by a fit on the other folds. So the
performance describes the rules of the operating points, as ``hemoscope tune`` reports it. A run on one split has a test
set: its performance is that of exactly the fitted thresholds. Both are after consistency, as served.
"""

from dataclasses import dataclass, replace

from hemoscope.evaluation.conformal import measured_rule
from hemoscope.evaluation.performance import Method, measured, with_performance
from hemoscope.evaluation.tuning import CrossFitted, LevelSettings
from hemoscope.inference.card import OperatingPointTable
from hemoscope.training.fitted_levels import cross_fit_level
from hemoscope.training.fitted_settings import Fit
from hemoscope.training.fitted_smoothing import Smoothing, smoothing_of
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores

IN_SAMPLE = (
    "Sensitivity and specificity of the operating points are in sample, on the patients that the thresholds were "
    "chosen on: expect lower values. There are too few patients to cross-fit them."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Probabilities and decisions of both levels, by settings that were not fitted on these rows."""

    slices: CrossFitted
    studies: CrossFitted
    method: Method


def cross_fitted(scored: SliceAndStudyScores, found: Fit, smoothing: Smoothing | None = None) -> HeldOut | None:
    """Cross-fit the settings of ``found`` on the scores that it was fitted on; None if there are too few patients.

    With ``smoothing``, the width that smooths a fold of patients is chosen on the others, too.
    """
    logits_by = None if smoothing is None else smoothing.smoothed_by
    slices = cross_fit_level(scored.slices, found.points.slice, found.established, logits_by=logits_by)
    studies = cross_fit_level(
        scored.studies, found.points.study, found.established, found.points.urgent, unsure=found.unsure
    )
    if slices is None or studies is None:
        return None
    return HeldOut(slices=slices, studies=studies, method="cross_fitted")


def on_test_set(test: SliceAndStudyScores, found: Fit) -> HeldOut:
    """Apply fitted settings to a test set, smoothed by the width that was fitted."""

    def of(scores: LevelScores, settings: LevelSettings) -> CrossFitted:
        shown = settings.probabilities(scores.logits)
        return CrossFitted(
            probabilities=shown,
            decisions=settings.decisions(shown),
            urgent=settings.urgent_decisions(shown),
            logits=scores.logits,
            sets=settings.conformal_sets(shown),
        )

    slices, studies = settings_of(found)
    smoothing = smoothing_of(test)
    served = test.slices
    if smoothing is not None and found.slice_rule is not None:
        served = replace(served, logits=smoothing.logits[found.slice_rule.width_mm])
    return HeldOut(slices=of(served, slices), studies=of(test.studies, studies), method="test_set")


def settings_of(found: Fit) -> tuple[LevelSettings, LevelSettings]:
    """Return the settings of slices, smoothed where the fit smooths them, and of studies."""
    calibration, points, rule = found.calibration, found.points, found.slice_rule
    of_slices = calibration.slice if rule is None or rule.calibration is None else rule.calibration
    return (
        LevelSettings(calibration=of_slices, points=points.slice, established=found.established),
        LevelSettings(
            calibration=calibration.study,
            points=points.study,
            established=found.established,
            urgent=points.urgent,
            unsure=found.unsure,
        ),
    )


def with_held_out_performance(found: Fit, scored: SliceAndStudyScores, held_out: HeldOut | None) -> Fit:
    """Return the fit, its points with their performance on ``scored``; without held-out decisions, with a limit."""
    if held_out is None:
        return replace(found, limits=(*found.limits, IN_SAMPLE))
    method, points = held_out.method, found.points
    slices, studies = scored.slices, scored.studies
    any_of_studies = studies.truth[:, 0]
    table = OperatingPointTable(
        slice=with_performance(points.slice, held_out.slices.decisions, slices.truth, slices.patients, method),
        study=with_performance(points.study, held_out.studies.decisions, studies.truth, studies.patients, method),
        urgent=measured(points.urgent, held_out.studies.urgent, any_of_studies, studies.patients, method),
    )
    rule = found.unsure
    if rule is not None:
        rule = measured_rule(rule, held_out.studies.sets, any_of_studies, studies.patients, method)
    return replace(found, points=table, unsure=rule)
