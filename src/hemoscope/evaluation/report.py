"""Builds the evaluation report: all scores of a set of predictions as JSON, with plots and an HTML page.

Shape of ``report.json`` (``hemoscope.evaluation/1``; keys are only ever added): a score is
``{"value", "low", "high"}`` with its 95% interval, or null if undefined; ``labels.{label}.reason`` says why. An
``ece`` has no interval: its ``low`` and ``high`` are null.
Points on curves (``any_tradeoff``, ``recall_at_precision``) are plain numbers.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS, BootstrapScores, bootstrap_scores
from hemoscope.evaluation.calibrate import DEFAULT_METHOD
from hemoscope.evaluation.calibration_scores import calibration_of_labels
from hemoscope.evaluation.checklist import write_checklist
from hemoscope.evaluation.clinical_report import DEFINITIONS as CLINICAL_DEFINITIONS
from hemoscope.evaluation.clinical_report import clinical_document
from hemoscope.evaluation.decision_curves import draw_decision_curves
from hemoscope.evaluation.evaluation_context import HIGHEST_IMAGE, EvaluationContext
from hemoscope.evaluation.intervals import FEWEST_PATIENTS
from hemoscope.evaluation.level_scores import highest, level_document, points_document
from hemoscope.evaluation.metrics import CALIBRATION_BINS
from hemoscope.evaluation.paper_tables import any_learned_and_explicit, any_tradeoff, recall_at_precision
from hemoscope.evaluation.plots import draw_plots
from hemoscope.evaluation.prediction_files import LabelledPredictions, read_predictions
from hemoscope.evaluation.recalibration import Recalibrated, recalibrate
from hemoscope.evaluation.report_page import render_page
from hemoscope.evaluation.score_documents import (
    Document,
    calibration_document,
    error_document,
    label_document,
    score_document,
)
from hemoscope.evaluation.strata import strata_table
from hemoscope.files import write_bytes
from hemoscope.inference.card import to_plain
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.version import DISCLAIMER, __version__

SCHEMA = "hemoscope.evaluation/1"
DEFINITIONS = {
    "positive": "probability above 0.5, strictly",
    "interval": "95%, with the patient as the unit. AUROC: DeLong's variance for clustered data (Obuchowski) on the "
    "logit scale, Student's t. Accuracy, precision, recall, specificity, exact match: Clopper and Pearson, with the "
    "effective sample size of clustered slices (Korn and Graubard). Slope, intercept, observed to expected: "
    "cluster-robust. The rest: percentile bootstrap; rounds in which a label has one class only are dropped, counted",
    "unreliable": f"marked *: a bootstrap of fewer than {FEWEST_PATIENTS} patients in a class, which is too narrow",
    "slope": "of logistic regression of the label on the logit of the probability; 1 if calibrated, below 1 if "
    "probabilities are too extreme",
    "intercept": "of the same with slope 1 (calibration in the large); 0 if calibrated, above 0 if probabilities are "
    "too low",
    "observed_expected": "number of positives to sum of probabilities; 1 if calibrated",
    "ece": f"expected calibration error in {CALIBRATION_BINS} equal-width bins of probability; above 0 even if "
    "calibrated, so compare it with ece_if_calibrated; it has no interval",
    "ece_if_calibrated": "mean calibration error of labels that are drawn from the probabilities themselves",
    "log_loss": "as scikit-learn for float64: probabilities clipped 2.2e-16 from 0 and 1",
    "weighted_log_loss": "RSNA 2019: mean of six log losses, any weighted 2; probabilities clipped 1e-7 from 0 and 1",
    "average_precision": "as scikit-learn: sum of precision times gain in recall, no interpolation",
    "macro": "mean over the labels with a defined score",
    "threshold": "lowest score that counts as positive; chosen on the same images, so its performance is optimistic",
    "series_level": "one row per series, group_level one row per group (patient); scored_by says how it is scored",
    "operating_points": "performance of the model's own thresholds, chosen on other data; at or above is positive",
}


def evaluate_predictions(
    predictions: Path,
    labels: Path,
    output: Path,
    *,
    group_column: str | None = None,
    series_column: str | None = None,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
    method: str = DEFAULT_METHOD,
) -> Document:
    """Score a file of predictions; write report.json, report.html and PNGs into ``output``, and return the report.

    Args:
        predictions: table of probabilities, in any form that ``read_predictions`` knows.
        labels: table of labels of the same images.
        output: a folder, created if missing; files of an earlier report are replaced.
        group_column: the column with the patient; None resamples single images, with a warning.
        series_column: the column with the series; None gives no scores by series.
        rounds: bootstrap rounds.
        seed: of the bootstrap and of the folds of cross-fitting.
        method: of calibration: platt, isotonic or temperature.

    Raises:
        DataError: the files do not match, or the method is unknown.
        MissingExtraError: matplotlib is not installed.
    """
    data, context = read_evaluation(predictions, labels, group_column=group_column, series_column=series_column)
    return evaluate(data, output, context, rounds=rounds, seed=seed, method=method)


def read_evaluation(
    predictions: Path,
    labels: Path,
    *,
    group_column: str | None = None,
    series_column: str | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[LabelledPredictions, EvaluationContext]:
    """Read what :func:`evaluate` needs from files; arguments and errors as for :func:`evaluate_predictions`.

    ``names`` are columns that have other names, by role (``image_table.ROLES``).
    """
    data = read_predictions(predictions, labels, group_column=group_column, names=names)
    if series_column is None:
        return data, EvaluationContext()
    members = read_predictions(predictions, labels, group_column=series_column, names=names).groups or ()
    return data, EvaluationContext(series=highest(data, members), series_of=members)


def evaluate(
    data: LabelledPredictions,
    output: Path,
    context: EvaluationContext | None = None,
    *,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
    method: str = DEFAULT_METHOD,
) -> Document:
    """Score predictions in memory; arguments and errors as for :func:`evaluate_predictions`."""
    about = context or EvaluationContext()
    after = recalibrate(data.probabilities, data.labels, data.groups, method=method, seed=seed)
    report = evaluation_report(data, after, about, rounds=rounds, seed=seed)
    plots = draw_plots(data.probabilities, data.labels, after.probabilities, data.groups)
    plots |= draw_decision_curves(report["decision_curve"])
    if about.clinical.checklist:
        write_checklist(report, about.clinical.card, output)
    write_evaluation(report, plots, output, about)
    return report


def evaluation_report(
    data: LabelledPredictions,
    after: Recalibrated,
    context: EvaluationContext | None = None,
    *,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
) -> Document:
    """Return the content of report.json; see the module's docstring.

    Args:
        data: predictions beside labels.
        after: their result of :func:`recalibrate`.
        context: model, dataset, series and pictures.
        rounds: bootstrap rounds.
        seed: of the bootstrap.
    """
    about = context or EvaluationContext()
    scores = bootstrap_scores(data.probabilities, data.labels, data.groups, rounds=rounds, seed=seed)
    calibration = calibration_of_labels(data.probabilities, data.labels, data.groups, seed=seed)
    return {
        "schema": SCHEMA,
        "hemoscope": __version__,
        "disclaimer": DISCLAIMER,
        "source": about.source,
        "n_images": scores.n_images,
        "n_groups": scores.n_groups,
        "bootstrap": {"rounds": rounds, "seed": seed, "unit": "image" if scores.n_groups is None else "group"},
        "warnings": [*about.warnings, *_warnings(scores)],
        "definitions": {**DEFINITIONS, **CLINICAL_DEFINITIONS},
        "labels": {label.value: label_document(scores.labels[label], calibration[label]) for label in LABELS},
        "macro": {
            **{name: score_document(found) for name, found in scores.macro.items()},
            "ece": error_document(scores.macro_ece),
        },
        "exact_match": score_document(scores.exact_match),
        "weighted_log_loss": score_document(scores.weighted_log_loss),
        "any": any_learned_and_explicit(data.probabilities, data.labels, data.groups),
        "any_tradeoff": any_tradeoff(data.probabilities, data.labels),
        "recall_at_precision": recall_at_precision(data.probabilities, data.labels),
        "calibrated": _calibrated(data, after, rounds=rounds, seed=seed),
        **_levels(data, about, rounds=rounds, seed=seed),
        "strata": _strata(data, about),
        **clinical_document(data, after, about, rounds=rounds, seed=seed),
        "errors": None if about.errors is None else [error.as_dict() for error in about.errors],
    }


def _strata(data: LabelledPredictions, about: EvaluationContext) -> Document | None:
    """Return the strata of slices; None if nothing is known that divides them, or the slices lack a class."""
    if about.facts is None:
        return None
    facts, count = about.facts, len(data.image_ids)
    if {len(facts.edge), len(facts.height), len(facts.outline_px), len(facts.age)} != {count}:
        msg = (
            f"facts are of {len(facts.height)} slices, and there are {count} predictions. Give facts of each, in order"
        )
        raise DataError(msg)
    for column in about.clinical.subgroups:
        if column.name == "age" and (column.key == "image" or data.groups is not None):
            facts = replace(facts, age=np.array([_years(text) for text in column.texts(data)]))
    first = LABELS.index(Hemorrhage.ANY)
    owners = data.groups or data.image_ids
    table = strata_table("slices", data.probabilities[:, first], data.labels[:, first], owners, facts)
    return None if table is None else dict(to_plain(table))


def _years(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _levels(data: LabelledPredictions, about: EvaluationContext, *, rounds: int, seed: int) -> Document:
    """Return scores by series and patient and at the model's operating points; None if not given."""
    patients, scored_by = None, HIGHEST_IMAGE
    if data.groups is not None:
        patients = highest(data, data.groups)
    if about.series is not None and about.series.groups is not None:
        patients = highest(about.series, about.series.groups)
        scored_by = "the highest probability of its series, against its highest known label"
    series = about.series
    points = {
        name: points_document(rows, chosen, rounds=rounds, seed=seed)
        for name, rows, chosen in (("slice", data, about.slice_points), ("series", series, about.series_points))
        if rows is not None and chosen is not None
    }
    return {
        "series_level": None
        if series is None
        else level_document(series, about.series_scored_by, rounds=rounds, seed=seed),
        "group_level": None if patients is None else level_document(patients, scored_by, rounds=rounds, seed=seed),
        "operating_points": points or None,
    }


def _warnings(scores: BootstrapScores) -> list[str]:
    warnings = []
    if scores.n_groups is None:
        warnings.append(
            "No patients are given: intervals and calibration folds are by image. Slices of one head resemble each "
            "other, so the intervals are too narrow and calibration is optimistic."
        )
    few = [
        f"{label.display} {found.n_positive_groups}"
        for label, found in scores.labels.items()
        if found.n_positive_groups is not None and 0 < found.n_positive_groups < FEWEST_PATIENTS
    ]
    if few:
        warnings.append(
            f"Few patients are positive: {', '.join(few)}. Their scores and intervals may not apply to other patients."
        )
    unknown = [(label, scores.n_images - found.n_images) for label, found in scores.labels.items()]
    named = ", ".join(f"{label.display} {count:,}" for label, count in unknown if count)
    if named:
        warnings.append(
            f"Unknown labels are excluded for each label (of {scores.n_images:,} images): {named}. Exact match and "
            f"weighted log loss count fully labelled images only."
        )
    return warnings


def _calibrated(data: LabelledPredictions, after: Recalibrated, *, rounds: int, seed: int) -> Document:
    """Return scores of the cross-fitted probabilities; a label that could not be fitted is null with the reason."""
    # The bootstrap needs numbers; those that replace NaN do not affect reported scores.
    values = np.where(np.isfinite(after.probabilities), after.probabilities, 0.5)
    scores = bootstrap_scores(values, data.labels, data.groups, rounds=rounds, seed=seed, ranked=False)
    calibration = calibration_of_labels(after.probabilities, data.labels, data.groups, seed=seed)

    def entry(label: Hemorrhage) -> Document:
        found, reason = scores.labels[label], after.reasons[label]
        if reason is not None:
            return {**dict.fromkeys(("ece", "brier", "log_loss", "calibration")), "reason": reason}
        return {
            "ece": error_document(found.ece),
            **{name: score_document(found[name]) for name in ("brier", "log_loss")},
            "calibration": calibration_document(calibration[label]),
        }

    every_label = all(reason is None for reason in after.reasons.values)
    return {
        "method": after.method,
        "folds": after.folds,
        "folds_by": "image" if data.groups is None else "group",
        "weighted_log_loss": score_document(scores.weighted_log_loss) if every_label else None,
        "labels": {label.value: entry(label) for label in LABELS},
    }


def write_evaluation(
    report: Document, plots: Mapping[str, bytes], output: Path, context: EvaluationContext | None = None
) -> None:
    """Write report.json, report.html and one PNG per plot into ``output``, created if missing.

    Raises:
        DataError: the folder cannot be written.
    """
    files = {f"{name}.png": png for name, png in plots.items()}
    files["report.html"] = render_page(report, plots, (context or EvaluationContext()).errors).encode()
    # Last, so that report.json exists only in a complete report.
    files["report.json"] = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_bytes(output / name, content)
    except OSError as error:
        msg = f"{output.name}: cannot be written ({error.strerror}). Choose a writable folder as --output"
        raise DataError(msg) from error
