"""The evaluation report as one self-contained page: tables and pictures inside, nothing fetched, no script."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hemoscope.evaluation.context import ErrorPicture
from hemoscope.evaluation.gallery import gallery
from hemoscope.evaluation.metrics import METRICS
from hemoscope.evaluation.page_parts import STYLE, score_cell, share_cell, table, threshold_cell
from hemoscope.labels import LABELS

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
}
POINT_NAMES = {"recall": "Sensitivity", "specificity": "Specificity", "precision": "Precision", "f1": "F1"}


def render_page(report: Document, plots: Mapping[str, bytes], errors: Sequence[ErrorPicture] | None = None) -> str:
    """The whole page; every text from the report is escaped. ``errors`` are drawn where images were at hand."""
    groups = report["n_groups"]
    drawn = f"{groups:,} groups (patients)" if groups is not None else "no groups given"
    # The disclaimer first: a page is passed on by people who never saw where it came from.
    notes = f'<p class="note">{escape(report["disclaimer"])}</p>' + "".join(
        f'<p class="warning" role="note">{escape(text)}</p>' for text in report["warnings"]
    )
    sections = (
        _scores(report),
        _whole(report),
        _learned(report),
        _tradeoff(report),
        _recall(report),
        _calibration(report),
        _points(report, "slice", "At the model's operating points, by slice"),
        _level(report["series_level"], "series", "Scores by series"),
        _points(report, "series", "At the model's operating points, by series"),
        _level(report["group_level"], "groups", "Scores by group (patient)"),
        _pictures(plots),
        gallery(errors),
        _definitions(report),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of {report['n_images']:,} images</title><style>{STYLE}</style></head><body>\n"
        f"<h1>Evaluation of {'predictions' if report['source'] is None else 'a model'}</h1>{_source(report['source'])}"
        f"<p>{report['n_images']:,} images, {drawn}; "
        f"95% intervals from {report['bootstrap']['rounds']:,} bootstrap rounds.</p>{notes}\n"
        + "\n".join(section for section in sections if section)
        + f"\n<footer>Hemoscope {escape(report['hemoscope'])}. {escape(report['disclaimer'])}</footer></body></html>\n"
    )


def _scores(report: Document) -> str:
    header = ("", *(label.display for label in LABELS), "Mean")
    rows = [
        (
            escape(METRIC_NAMES[name]),
            *(score_cell(report["labels"][label.value][name]) for label in LABELS),
            score_cell(report["macro"][name]),
        )
        for name in METRICS
    ]
    counts = ("Positive images", *(f"{report['labels'][label.value]['n_positive']:,}" for label in LABELS), "")
    note = "Positive means above 0.5. The middle rows are Table II of the paper."
    return table("Scores by label", header, [*rows, counts], note=note) + _reasons(report["labels"])


def _reasons(labels: Document) -> str:
    """Why dashes stand where they stand, a line for each label that has some."""
    said = [
        f"<li>{escape(label.display)}: {escape(labels[label.value]['reason'])}.</li>"
        for label in LABELS
        if labels[label.value].get("reason")
    ]
    return f'<ul class="reasons">{"".join(said)}</ul>' if said else ""


def _whole(report: Document) -> str:
    rows = [
        ("All six labels right (exact match)", score_cell(report["exact_match"])),
        ("Weighted log loss (any counts double)", score_cell(report["weighted_log_loss"])),
        (
            f"Weighted log loss after cross-fitted calibration ({_method(report)})",
            score_cell(report["calibrated"]["weighted_log_loss"]),
        ),
    ]
    return table("Scores by image", ("", "Score"), rows)


def _learned(report: Document) -> str:
    names = ("accuracy", "precision", "recall")
    named = (("learned", "Learned as a label of its own"), ("explicit", "At least one of the five types"))
    rows = [(escape(text), *(score_cell(report["any"][way][name]) for name in names)) for way, text in named]
    return table("Any hemorrhage, learned and explicit (Table III)", ("", *map(str.capitalize, names)), rows)


def _tradeoff(report: Document) -> str:
    rows = [
        (
            f"{point['target']:.2f}",
            threshold_cell(point["threshold"]),
            share_cell(point["precision"]),
            share_cell(point["recall"]),
            share_cell(point["accuracy"]),
        )
        for point in report["any_tradeoff"]
    ]
    header = ("Precision wanted", "Threshold", "Precision", "Recall", "Accuracy")
    return table("Thresholds of any hemorrhage (Table IV)", header, rows, note=report["definitions"]["threshold"])


def _recall(report: Document) -> str:
    points = report["recall_at_precision"]
    rows = [
        (
            escape(label.display),
            threshold_cell(points[label.value]["threshold"]),
            *(share_cell(points[label.value][name]) for name in ("precision", "recall", "accuracy")),
            escape(points[label.value].get("reason", "")),
        )
        for label in LABELS
    ]
    header = ("", "Threshold", "Precision", "Recall", "Accuracy", "")
    return table("Recall at precision 0.7 (Table V)", header, rows, note=report["definitions"]["threshold"])


def _calibration(report: Document) -> str:
    after = report["calibrated"]
    rows = [
        (
            escape(label.display),
            score_cell(report["labels"][label.value]["ece"]),
            score_cell(after["labels"][label.value]["ece"]),
            score_cell(report["labels"][label.value]["log_loss"]),
            score_cell(after["labels"][label.value]["log_loss"]),
        )
        for label in LABELS
    ]
    header = ("", "Error before", "Error after", "Log loss before", "Log loss after")
    note = (
        f"{_method(report)}, {after['folds']} folds by {after['folds_by']}; no image is scored by a fit that saw it. "
        f"{_gain(report)}"
    )
    return table("Calibration, cross-fitted", header, rows, note=note) + _reasons(after["labels"])


def _method(report: Document) -> str:
    return escape(report["calibrated"]["method"].capitalize())


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
    return f"<p><strong>{escape(said)}</strong></p>"


def _points(report: Document, level: str, title: str) -> str:
    points = (report["operating_points"] or {}).get(level)
    if points is None:
        return ""
    rows = [
        (
            escape(label.display),
            threshold_cell(points[label.value]["threshold"]),
            *(score_cell(points[label.value][name]) for name in POINT_NAMES),
            f'<span class="words">{escape(points[label.value]["rule"])}</span>',
        )
        for label in LABELS
    ]
    header = ("", "Threshold", *POINT_NAMES.values(), "Chosen by")
    return table(title, header, rows, note=report["definitions"]["operating_points"])


def _level(level: Document | None, what: str, title: str) -> str:
    if level is None:
        return ""
    names = ("auroc", "average_precision", "recall", "specificity", "ece")
    labels = level["labels"]
    rows = [
        (
            escape(label.display),
            f"{labels[label.value]['n_positive']:,} of {labels[label.value]['n_images']:,}",
            *(score_cell(labels[label.value][n]) for n in names),
        )
        for label in LABELS
    ]
    header = ("", f"Positive {what}", *(METRIC_NAMES[name] for name in names))
    note = f"{level['n']:,} {what}. Each is scored by {level['scored_by']}. Positive means above 0.5."
    return table(title, header, rows, note=note)


def _pictures(plots: Mapping[str, bytes]) -> str:
    return "\n".join(
        f"<h2>{escape(PLOT_NAMES.get(name, name))}</h2>"
        f'<img alt="{escape(PLOT_NAMES.get(name, name))}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in plots.items()
    )


def _definitions(report: Document) -> str:
    rows = [(escape(name), escape(text)) for name, text in report["definitions"].items()]
    return table("What the words mean", ("", ""), rows).replace("<td>", '<td class="words">')
