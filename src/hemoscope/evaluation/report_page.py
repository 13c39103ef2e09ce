"""The evaluation report as one self-contained page: tables and pictures inside, nothing fetched, no script."""

from collections.abc import Mapping, Sequence
from typing import Any

from hemoscope.evaluation.clinical_tables import PLOT_NAMES as CLINICAL_PLOT_NAMES
from hemoscope.evaluation.clinical_tables import clinical_tables
from hemoscope.evaluation.evaluation_context import ErrorPicture
from hemoscope.evaluation.metrics import METRICS
from hemoscope.evaluation.page_table import Cell, Table
from hemoscope.evaluation.terminal_summary import stratum_words
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports.html_templates import render, template_text

Document = Mapping[str, Any]
METRIC_NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "Calibration error",
    "log_loss": "Log loss",
}
PLOT_NAMES = {
    "precision_recall": "Precision and recall",
    "roc": "ROC",
    "reliability": "Reliability, before and after calibration",
    "sweep": "Threshold sweeps",
    **CLINICAL_PLOT_NAMES,
}
POINT_NAMES = {"recall": "Sensitivity", "specificity": "Specificity", "precision": "Precision", "f1": "F1"}
_PACKAGE = "hemoscope.evaluation"
_ERROR_KINDS = {"missed": "missed (worst false negatives)", "false alarm": "false alarms (worst false positives)"}


def render_page(report: Document, plots: Mapping[str, bytes], errors: Sequence[ErrorPicture] | None = None) -> str:
    """The whole page; every text from the report is escaped. ``errors`` are drawn if images were available."""
    groups = report["n_groups"]
    drawn = f"{groups:,} groups (patients)" if groups is not None else "no groups given"
    return render(
        _PACKAGE,
        "report.html",
        report=report,
        style=template_text(_PACKAGE, "report.css"),
        title=f"Evaluation of {report['n_images']:,} images",
        heading=f"Evaluation of {'predictions' if report['source'] is None else 'a model'}",
        source=_source(report["source"]),
        about=f"{report['n_images']:,} images, {drawn}. Intervals are of 95%; their methods stand at the end.",
        tables=[table for table in _tables(report) if table is not None],
        plots=[(PLOT_NAMES.get(name, name), png) for name, png in plots.items()],
        gallery=None if errors is None else _gallery(errors),
        definitions=Table(
            title="What the words mean", header=("", ""), rows=list(report["definitions"].items()), words=True
        ),
    )


def _tables(report: Document) -> tuple[Table | None, ...]:
    return (
        _scores(report),
        _whole(report),
        _learned(report),
        _tradeoff(report),
        _recall(report),
        _calibration(report),
        _recalibration(report),
        _points(report, "slice", "At the model's operating points, by slice"),
        _level(report["series_level"], "series", "Scores by series"),
        _points(report, "series", "At the model's operating points, by series"),
        _level(report["group_level"], "groups", "Scores by group (patient)"),
        _strata(report["strata"]),
        *clinical_tables(report),
    )


def _strata(document: Document | None) -> Table | None:
    """The strata of slices at one specificity."""
    if document is None:
        return None
    rows = [
        (f"{one['kind']}: {one['name']}", stratum_words(one["found"]), stratum_words(one["false_alarms"]))
        for one in document["strata"]
    ]
    note = f"Slices flagged where any hemorrhage has a specificity of {document['specificity']:g} over all slices."
    header = ("", "Found, of those with hemorrhage", "Flagged, of the others")
    return Table(title="Strata of slices", header=header, rows=rows, note=note)


def _scores(report: Document) -> Table:
    header = ("", *(label.display for label in LABELS), "Mean")
    rows = [
        (
            METRIC_NAMES[name],
            *(report["labels"][label.value][name] for label in LABELS),
            report["macro"][name],
        )
        for name in METRICS
    ]
    counts = ("Positive images", *(f"{report['labels'][label.value]['n_positive']:,}" for label in LABELS), "")
    note = "Positive means above 0.5. The middle rows are Table II of the paper."
    return Table(
        title="Scores by label", header=header, rows=[*rows, counts], note=note, reasons=_reasons(report["labels"])
    )


def _reasons(labels: Document) -> list[str]:
    """Why dashes stand where they stand, a line for each label that has some."""
    return [
        f"{label.display}: {labels[label.value]['reason']}." for label in LABELS if labels[label.value].get("reason")
    ]


def _not_estimable(labels: Document) -> list[str]:
    """Why calibration scores are dashes, a line for each label of few patients."""
    found = {label: labels[label.value].get("calibration") or {} for label in LABELS}
    return [f"{label.display}: {entry['reason']}." for label, entry in found.items() if "reason" in entry]


def _whole(report: Document) -> Table:
    rows = [
        ("All six labels right (exact match)", report["exact_match"]),
        ("Weighted log loss (any counts double)", report["weighted_log_loss"]),
        (
            f"Weighted log loss after cross-fitted calibration ({_method(report)})",
            report["calibrated"]["weighted_log_loss"],
        ),
    ]
    return Table(title="Scores by image", header=("", "Score"), rows=rows)


def _learned(report: Document) -> Table:
    names = ("accuracy", "precision", "recall")
    named = (("learned", "Learned as a label of its own"), ("explicit", "At least one of the five types"))
    rows = [(text, *(report["any"][way][name] for name in names)) for way, text in named]
    return Table(
        title="Any hemorrhage, learned and explicit (Table III)", header=("", *map(str.capitalize, names)), rows=rows
    )


def _tradeoff(report: Document) -> Table:
    rows = [
        (
            f"{point['target']:.2f}",
            _threshold(point["threshold"]),
            _share(point["precision"]),
            _share(point["recall"]),
            _share(point["accuracy"]),
        )
        for point in report["any_tradeoff"]
    ]
    header = ("Precision wanted", "Threshold", "Precision", "Recall", "Accuracy")
    return Table(
        title="Thresholds of any hemorrhage (Table IV)",
        header=header,
        rows=rows,
        note=report["definitions"]["threshold"],
    )


def _recall(report: Document) -> Table:
    points = report["recall_at_precision"]
    rows = [
        (
            label.display,
            _threshold(points[label.value]["threshold"]),
            *(_share(points[label.value][name]) for name in ("precision", "recall", "accuracy")),
            points[label.value].get("reason", ""),
        )
        for label in LABELS
    ]
    header = ("", "Threshold", "Precision", "Recall", "Accuracy", "")
    return Table(
        title="Recall at precision 0.7 (Table V)", header=header, rows=rows, note=report["definitions"]["threshold"]
    )


_CALIBRATION = ("", "Slope", "Intercept", "Observed / expected", "Binned error", "The same if calibrated", "Log loss")


def _calibration_row(label: Hemorrhage, entry: Document) -> Sequence[Cell]:
    found = entry["calibration"] or {}
    reference = found.get("ece_if_calibrated")
    scores = [found.get(name) for name in ("slope", "intercept", "observed_expected")]
    return (label.display, *scores, entry["ece"], _share(reference), entry["log_loss"])


def _calibration(report: Document) -> Table:
    rows = [_calibration_row(label, report["labels"][label.value]) for label in LABELS]
    words = report["definitions"]
    note = f"Slope {words['slope']}. Intercept {words['intercept']}. Observed to expected {words['observed_expected']}."
    return Table(
        title="Calibration of the probabilities as given",
        header=_CALIBRATION,
        rows=rows,
        note=note,
        reasons=_not_estimable(report["labels"]),
    )


def _recalibration(report: Document) -> Table:
    after = report["calibrated"]
    rows = [_calibration_row(label, after["labels"][label.value]) for label in LABELS]
    note = (
        f"{_method(report)}, {after['folds']} folds by {after['folds_by']}; no image is scored by a fit that saw it. "
        f"{_gain(report)}"
    )
    return Table(
        title="Calibration, cross-fitted",
        header=_CALIBRATION,
        rows=rows,
        note=note,
        reasons=[*_reasons(after["labels"]), *_not_estimable(after["labels"])],
    )


def _method(report: Document) -> str:
    return str(report["calibrated"]["method"]).capitalize()


def _gain(report: Document) -> str:
    """What calibration alone does to the loss, in words."""
    before, after = report["weighted_log_loss"], report["calibrated"]["weighted_log_loss"]
    if before is None or after is None:
        return "The weighted log loss after it is not defined: some label could not be fitted or is never fully known."
    return f"Calibration alone takes the weighted log loss from {before['value']:.3f} to {after['value']:.3f}."


def _source(source: Document | None) -> str:
    """Which model on which images; nothing for a bare file of predictions."""
    if source is None:
        return ""
    model, split = source["model"], source["split"]
    said = f"{model['name']} {model['version']} on {source['dataset']}"
    if split is not None:
        how = "" if split["by"] is None else f" of a split by {split['by']}, seed {split['seed']}"
        said += f": {split['part']}{how}"
    return said


def _points(report: Document, level: str, title: str) -> Table | None:
    points = (report["operating_points"] or {}).get(level)
    if points is None:
        return None
    rows = [
        (
            label.display,
            _threshold(points[label.value]["threshold"]),
            *(points[label.value][name] for name in POINT_NAMES),
            points[label.value]["rule"],
        )
        for label in LABELS
    ]
    header = ("", "Threshold", *POINT_NAMES.values(), "Chosen by")
    return Table(title=title, header=header, rows=rows, note=report["definitions"]["operating_points"])


def _level(level: Document | None, what: str, title: str) -> Table | None:
    if level is None:
        return None
    names = ("auroc", "average_precision", "recall", "specificity")
    labels = level["labels"]
    rows = [
        (
            label.display,
            f"{labels[label.value]['n_positive']:,} of {labels[label.value]['n_images']:,}",
            *(labels[label.value][name] for name in names),
            *(labels[label.value]["calibration"][name] for name in ("slope", "observed_expected")),
        )
        for label in LABELS
    ]
    header = (
        "",
        f"Positive {what}",
        *(METRIC_NAMES[name] for name in names),
        "Calibration slope",
        "Observed / expected",
    )
    note = f"{level['n']:,} {what}. Each is scored by {level['scored_by']}. Positive means above 0.5."
    return Table(title=title, header=header, rows=rows, note=note, reasons=_not_estimable(labels))


def _gallery(errors: Sequence[ErrorPicture]) -> list[tuple[str, list[ErrorPicture]]]:
    """The errors of each level, label and kind that has some, under a title."""
    return [
        (f"{label.display}, by {level}: {words}", shown)
        for level in ("slice", "study")
        for label in LABELS
        for kind, words in _ERROR_KINDS.items()
        if (shown := [one for one in errors if (one.level, one.label, one.kind) == (level, label, kind)])
    ]


def _share(value: float | None) -> str | None:
    """A point on a curve."""
    return None if value is None else f"{value:.4f}"


def _threshold(value: float | None) -> str | None:
    """Three significant digits: saturated networks need thresholds far below what four decimals show."""
    return None if value is None else f"{value:.3g}"
