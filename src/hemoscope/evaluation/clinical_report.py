"""The parts of a report that a clinical journal asks for: net benefit, subgroups, a paired comparison, the flow."""

from collections.abc import Sequence
from typing import Any

from hemoscope.evaluation.comparison import comparison_document
from hemoscope.evaluation.cross_tabulation import cross_tabulation
from hemoscope.evaluation.decision_curves import DecisionLevel, decision_document
from hemoscope.evaluation.evaluation_context import EvaluationContext
from hemoscope.evaluation.flow import flow_document
from hemoscope.evaluation.level_scores import highest
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.recalibration import Recalibrated, recalibrate
from hemoscope.evaluation.subgroups import subgroup_document

DEFINITIONS = {
    "net_benefit": "at a threshold probability t: true positives per row, less t / (1 - t) of a true positive for each "
    "false positive (Vickers and Elkin 2006); cross-fitted calibrated probabilities at or above t; 95% band by "
    "percentile bootstrap over patients, in which the calibration is not fitted again. Calling none positive has 0",
    "at_prevalence": "rows weighted so that the given share has hemorrhage, and probabilities moved by Bayes' rule; it "
    "assumes that heads with hemorrhage, and heads without, look as they do in these data",
    "subgroups": "sensitivity and specificity as said in the table; a score needs five patients of its class; not "
    "adjusted for multiplicity",
    "difference": "these predictions less the others, on the same images. AUROC: DeLong's variance of the difference "
    "for clustered data (Obuchowski), Student's t. Sensitivity and specificity: exact test by sign flips of each "
    "patient's net discordant decisions (McNemar's with one row a patient); interval of Bonett and Price by patient",
    "p_holm": "p value after Holm's adjustment over the labels with a p value, separately for each measure and level",
    "noninferior": "whether the lower 95% bound of the difference lies above minus the margin; not adjusted for "
    "multiplicity; the margin must be chosen before the results are seen",
}


def clinical_document(
    data: LabelledPredictions, after: Recalibrated, about: EvaluationContext, *, rounds: int, seed: int
) -> dict[str, Any]:
    """Return ``decision_curve``, ``subgroups``, ``comparison``, ``cross_tabulation`` and ``flow`` of ``report.json``.

    ``subgroups`` and ``comparison`` are None if they were not asked for.

    Args:
        data: one row an image.
        after: cross-fitted probabilities of the images.
        about: series, thresholds, and what was asked for.
        rounds: bootstrap rounds.
        seed: of the bootstrap, and of the folds of the series.

    Raises:
        DataError: what was asked for does not fit the images.
    """
    asked = about.clinical
    name, rows, members = _cases(data, about)
    levels = [DecisionLevel(name="slice", data=data, after=after)]
    if rows is not None:
        fitted = recalibrate(rows.probabilities, rows.labels, rows.groups, method=after.method, seed=seed)
        levels.append(DecisionLevel(name=name, data=rows, after=fitted))
    thresholds = about.series_points if name == "series" else None
    tabulated = {"slice": cross_tabulation(data, about.slice_points)}
    if rows is not None:
        tabulated[name] = cross_tabulation(rows, thresholds)
    return {
        "decision_curve": decision_document(levels, prevalence=asked.prevalence, rounds=rounds, seed=seed),
        "subgroups": subgroup_document(
            asked.subgroups,
            data,
            about.slice_points,
            cases=None if rows is None or members is None else (name, rows, members, thresholds),
        ),
        "comparison": comparison_document(
            data, asked.second, None if members is None else (name, tuple(map(str, members)))
        ),
        "cross_tabulation": tabulated,
        "flow": flow_document(asked.flow, data, about.series),
    }


def _cases(
    data: LabelledPredictions, about: EvaluationContext
) -> tuple[str, LabelledPredictions | None, Sequence[str] | None]:
    """Return the level above images: series if they are known, or else patients; and the case of each image."""
    if about.series is not None:
        return "series", about.series, about.series_of
    if data.groups is not None:
        return "group", highest(data, data.groups), data.groups
    return "", None, None
