"""The evaluation report as one self-contained page: tables and pictures inside, nothing fetched, no script."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hemoscope.evaluation.metrics import METRICS
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
# Light and dark by the reader's own setting; curves are drawn for paper, so they keep a white ground in both.
_STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--soft:#595959;--page:#fff;--line:#ddd;--rule:#333;--stripe:#f6f7f8;
--note:#fff6ec;--edge:#b35900}
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--soft:#a8a8a8;--page:#16181b;--line:#33373c;--rule:#8a8f96;
--stripe:#1d2024;--note:#2b2118;--edge:#e08a2e}}
body{font:16px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--page)}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.4rem;margin-bottom:.5rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
.scroll>p{color:var(--soft);font-size:.9rem;margin:.2rem 0 .5rem}
th,td{padding:.3rem .7rem;text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;white-space:nowrap}td.words{text-align:left}
thead th{border-bottom:2px solid var(--rule)}tbody tr{border-bottom:1px solid var(--line)}
tbody tr:nth-child(even){background:var(--stripe)}small{color:var(--soft);display:block;white-space:nowrap}
.note{border-left:4px solid var(--edge);background:var(--note);padding:.5rem .9rem;margin:.8rem 0}
img{max-width:100%;height:auto;background:#fff;padding:.5rem;border:1px solid var(--line);border-radius:.4rem;
box-sizing:border-box}footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
"""


def render_page(report: Document, plots: Mapping[str, bytes]) -> str:
    """The whole page; every text from the report is escaped."""
    groups = report["n_groups"]
    drawn = f"{groups:,} groups (patients)" if groups is not None else "no groups given"
    # The disclaimer first: a page is passed on by people who never saw where it came from.
    notes = "".join(f'<p class="note">{escape(text)}</p>' for text in (report["disclaimer"], *report["warnings"]))
    sections = (
        _scores(report),
        _whole(report),
        _learned(report),
        _tradeoff(report),
        _recall(report),
        _calibration(report),
        _group_level(report),
        _pictures(plots),
        _definitions(report),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of {report['n_images']:,} images</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Evaluation of predictions</h1><p>{report['n_images']:,} images, {drawn}; "
        f"95% intervals from {report['bootstrap']['rounds']:,} bootstrap rounds.</p>{notes}\n"
        + "\n".join(section for section in sections if section)
        + f"\n<footer>Hemoscope {escape(report['hemoscope'])}. {escape(report['disclaimer'])}</footer></body></html>\n"
    )


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> str:
    """A section with one table; cells are HTML already."""
    said = f"<p>{escape(note)}</p>" if note else ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h2>{escape(title)}</h2><div class="scroll">{said}<table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _score(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "&ndash;"
    return f"{score['value']:.4f}<small>{score['low']:.4f} to {score['high']:.4f}</small>"


def _share(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.4f}"


def _threshold(value: float | None) -> str:
    """Three significant digits: saturated networks need thresholds far below what four decimals show."""
    return "&ndash;" if value is None else f"{value:.3g}"


def _scores(report: Document) -> str:
    header = ("", *(label.display for label in LABELS), "Mean")
    rows = [
        (
            escape(METRIC_NAMES[name]),
            *(_score(report["labels"][label.value][name]) for label in LABELS),
            _score(report["macro"][name]),
        )
        for name in METRICS
    ]
    counts = ("Positive images", *(f"{report['labels'][label.value]['n_positive']:,}" for label in LABELS), "")
    reasons = ("Why not defined", *(escape(report["labels"][label.value].get("reason", "")) for label in LABELS), "")
    extra = [counts, reasons] if any(reasons[1:]) else [counts]
    note = "Positive means above 0.5. The middle rows are Table II of the paper."
    return _table("Scores by label", header, [*rows, *extra], note=note)


def _whole(report: Document) -> str:
    rows = [
        ("All six labels right (exact match)", _score(report["exact_match"])),
        ("Weighted log loss (any counts double)", _score(report["weighted_log_loss"])),
        (
            f"Weighted log loss after cross-fitted calibration ({escape(report['calibrated']['method'])})",
            _score(report["calibrated"]["weighted_log_loss"]),
        ),
    ]
    return _table("Scores by image", ("", "Score"), rows)


def _learned(report: Document) -> str:
    names = ("accuracy", "precision", "recall")
    named = (("learned", "Learned as a label of its own"), ("explicit", "At least one of the five types"))
    rows = [(escape(text), *(_score(report["any"][way][name]) for name in names)) for way, text in named]
    return _table("Any hemorrhage, learned and explicit (Table III)", ("", *map(str.capitalize, names)), rows)


def _tradeoff(report: Document) -> str:
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
    return _table("Thresholds of any hemorrhage (Table IV)", header, rows, note=report["definitions"]["threshold"])


def _recall(report: Document) -> str:
    points = report["recall_at_precision"]
    rows = [
        (
            escape(label.display),
            _threshold(points[label.value]["threshold"]),
            *(_share(points[label.value][name]) for name in ("precision", "recall", "accuracy")),
            escape(points[label.value].get("reason", "")),
        )
        for label in LABELS
    ]
    header = ("", "Threshold", "Precision", "Recall", "Accuracy", "")
    return _table("Recall at precision 0.7 (Table V)", header, rows, note=report["definitions"]["threshold"])


def _calibration(report: Document) -> str:
    after = report["calibrated"]
    rows = [
        (
            escape(label.display),
            _score(report["labels"][label.value]["ece"]),
            _score(after["labels"][label.value]["ece"]),
            _score(report["labels"][label.value]["log_loss"]),
            _score(after["labels"][label.value]["log_loss"]),
        )
        for label in LABELS
    ]
    header = ("", "Error before", "Error after", "Log loss before", "Log loss after")
    note = f"{after['method']}, {after['folds']} folds by {after['folds_by']}; no image scored by a fit that saw it."
    return _table("Calibration, cross-fitted", header, rows, note=note)


def _group_level(report: Document) -> str:
    if report["group_level"] is None:
        return ""
    names = ("auroc", "average_precision", "recall", "specificity")
    labels = report["group_level"]["labels"]
    rows = [
        (
            escape(label.display),
            f"{labels[label.value]['n_positive']:,}",
            *(_score(labels[label.value][n]) for n in names),
        )
        for label in LABELS
    ]
    header = ("", "Positive groups", *(METRIC_NAMES[name] for name in names))
    return _table("Scores by group (patient)", header, rows, note=report["definitions"]["group_level"])


def _pictures(plots: Mapping[str, bytes]) -> str:
    return "\n".join(
        f"<h2>{escape(PLOT_NAMES.get(name, name))}</h2>"
        f'<img alt="{escape(PLOT_NAMES.get(name, name))}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in plots.items()
    )


def _definitions(report: Document) -> str:
    rows = [(escape(name), escape(text)) for name, text in report["definitions"].items()]
    return _table("What the words mean", ("", ""), rows).replace("<td>", '<td class="words">')
