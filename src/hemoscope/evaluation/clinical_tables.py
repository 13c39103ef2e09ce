"""Tables of the report's page for :mod:`hemoscope.evaluation.clinical_report`."""

from collections.abc import Iterator, Mapping
from typing import Any

from hemoscope.evaluation.page_table import Cell, Table
from hemoscope.labels import LABELS, Hemorrhage

Document = Mapping[str, Any]
LEVELS = {"slice": "by image", "series": "by series", "group": "by patient"}
MEASURES = {"auroc": "AUROC", "recall": "Sensitivity", "specificity": "Specificity"}
PLOT_NAMES = {
    "decision_curve_slice": "Decision curves, by image",
    "decision_curve_series": "Decision curves, by series",
    "decision_curve_group": "Decision curves, by patient",
    "decision_curve_series_at_prevalence": "Decision curves, by series, at the given prevalence",
    "decision_curve_group_at_prevalence": "Decision curves, by patient, at the given prevalence",
}


def clinical_tables(report: Document) -> list[Table]:
    """Return the tables of net benefit, subgroups and the comparison, those that the report has."""
    return [*_net_benefit(report), *_subgroups(report["subgroups"]), *_comparison(report)]


def _net_benefit(report: Document) -> Iterator[Table]:
    document = report["decision_curve"]
    header = ("", "Prevalence", *(f"At {threshold:g}" for threshold in document["shown"]))
    for name, level in document["levels"].items():
        where = LEVELS[name.removesuffix("_at_prevalence")]
        if level["prevalence"] is not None:
            where += f", if {level['prevalence']:.1%} have hemorrhage"
        found = {label: level["labels"][label.value] for label in LABELS}
        rows: list[list[Cell]] = []
        for label, entry in found.items():
            points = entry["points"]
            if points is None:
                rows.append([label.display, *(None for _ in header[1:])])
                continue
            rows.append([label.display, f"{entry['prevalence']:.4f}", *(point["model"] for point in points)])
            rows.append(["all positive", "", *(f"{point['all']:.4f}" for point in points)])
            rows.append(["gain over the better default", "", *(point["gain"] for point in points)])
        yield Table(
            title=f"Net benefit, {where}",
            header=header,
            rows=rows,
            note=_net_benefit_note(report, name),
            reasons=[f"{label.display}: {entry['reason']}." for label, entry in found.items() if entry["reason"]],
        )


def _net_benefit_note(report: Document, level: str) -> str:
    """Return what net benefit is, at the first table, and what another prevalence means."""
    words = report["definitions"]
    if level.endswith("_at_prevalence"):
        return f"{words['at_prevalence']}."
    if level != "slice":
        return "As by image."
    return f"{words['net_benefit']}. The better default is all or none, whichever is higher."


def _subgroups(document: Document | None) -> Iterator[Table]:
    if document is None:
        return
    for name, level in document["levels"].items():
        for column, subgroups in level["columns"].items():
            rows = [
                _subgroup_row(subgroup, label, subgroup["labels"][label.value])
                for subgroup in subgroups
                for label in LABELS
            ]
            yield Table(
                title=f"Subgroups of {column}, {LEVELS[name]}",
                header=("", "Positive (patients)", "Negative (patients)", *MEASURES.values()),
                rows=rows,
                note=f"Positive is decided by {level['decided_by']}. Intervals are not adjusted for multiplicity. A "
                f"dash: sensitivity needs at least {document['fewest_patients']} patients with the label in the "
                f"subgroup, specificity as many without it, and AUROC both; without patients, images.",
            )


def _subgroup_row(subgroup: Document, label: Hemorrhage, found: Document) -> tuple[Cell, ...]:
    name = f"{subgroup['value'] or 'unknown'}: {label.display.lower()}"
    return (name, _counts(found, "positive"), _counts(found, "negative"), *(found[measure] for measure in MEASURES))


def _counts(found: Document, which: str) -> str:
    patients = found[f"n_{which}_groups"]
    return f"{found[f'n_{which}']:,}" + ("" if patients is None else f" ({patients:,})")


def _comparison(report: Document) -> Iterator[Table]:
    document = report["comparison"]
    if document is None:
        return
    margin = document["margin"]
    header = ["", "These", "Others", "Difference", "p", "p (Holm)"]
    if margin is not None:
        header.append(f"Not worse by {margin:g}")
    for name, level in document["levels"].items():
        rows, reasons = [], []
        for measure, words in MEASURES.items():
            for label in LABELS:
                found = level["labels"][label.value][measure]
                numbers = (_number(found["first"]), _number(found["second"]), found["difference"])
                row: list[Cell] = [
                    f"{words}: {label.display.lower()}",
                    *numbers,
                    _p_value(found["p"]),
                    _p_value(found["p_holm"]),
                ]
                rows.append(row if margin is None else [*row, _noninferior(found.get("noninferior"))])
                if found["reason"]:
                    reasons.append(f"{words}, {label.display.lower()}: {found['reason']}.")
        yield Table(
            title=f"Compared with {document['with']}, {LEVELS[name]}",
            header=header,
            rows=rows,
            note=f"{report['definitions']['difference']}. {document['multiplicity']}. "
            f"Positive: {document['decided_by']}. {_margin_note(margin)}",
            reasons=reasons,
        )


def _margin_note(margin: float | None) -> str:
    if margin is None:
        return ""
    return (
        f"Non-inferiority is shown if the lower bound of the difference lies above -{margin:g}; this is not adjusted "
        f"for multiplicity, and the margin must have been chosen before the results were seen."
    )


def _noninferior(shown: bool | None) -> str | None:
    return None if shown is None else "shown" if shown else "not shown"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _p_value(value: float | None) -> str | None:
    """Three decimals; below them, the bound."""
    return None if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
