"""Checklists of reporting guidelines, filled with the facts of an evaluation; what is missing is marked as open.

An item is ``filled in`` only if the facts answer all that it asks, ``partly`` if authors must add something, and
else ``open``. The facts are in the evaluation's own files; whether they suffice for a journal is for its reviewers to
say.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from hemoscope.errors import DataError
from hemoscope.evaluation.checklist_facts import FACTS, Evidence
from hemoscope.evaluation.clinical_tables import LEVELS
from hemoscope.evaluation.flow import counted
from hemoscope.evaluation.flow_diagram import flow_boxes
from hemoscope.evaluation.page_table import Table
from hemoscope.files import write_text
from hemoscope.inference.card import ModelCard
from hemoscope.labels import LABELS
from hemoscope.reports.html_templates import render, template_text
from hemoscope.version import DISCLAIMER, __version__

Status = Literal["filled in", "partly", "open"]
STATUSES: tuple[Status, ...] = ("filled in", "partly", "open")
NOTE = (
    "A draft for authors, not a proof of compliance. Items are paraphrased: the articles have the exact wording, and "
    "journals their own forms. Filled in: files of this evaluation answer the item. Partly: they answer some of it. "
    "Open: the authors must supply it."
)
_PACKAGE = "hemoscope.evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item: its number and section, what it asks in our words, the facts found, and what to supply."""

    number: str
    section: str
    asks: str
    status: Status
    facts: tuple[str, ...]
    supply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guideline:
    """One reporting guideline with its source and its items."""

    name: str
    title: str
    source: str
    doi: str
    items: tuple[Item, ...]

    @property
    def summary(self) -> str:
        """Number of items by status."""
        counts = Counter(item.status for item in self.items)
        return f"{len(self.items)} items: " + ", ".join(f"{counts[status]} {status}" for status in STATUSES)


def read_guidelines(evidence: Evidence) -> tuple[Guideline, ...]:
    """Return every guideline with its items answered as far as the evidence goes."""
    text = files(_PACKAGE).joinpath("reporting_items.toml").read_text(encoding="utf-8")
    return tuple(
        Guideline(
            **{key: value for key, value in guideline.items() if key != "items"},
            items=tuple(_answered(item, evidence) for item in guideline["items"]),
        )
        for guideline in tomllib.loads(text)["guidelines"]
    )


def _answered(item: Mapping[str, Any], evidence: Evidence) -> Item:
    found = [FACTS[name](evidence) for name in item.get("facts", ())]
    facts = tuple(fact for fact in found if fact is not None)
    status: Status = "partly" if facts else "open"
    if facts and item.get("complete", False) and len(facts) == len(found):
        status = "filled in"
    return Item(
        number=item["number"],
        section=item["section"],
        asks=item["asks"],
        status=status,
        facts=facts,
        supply="" if status == "filled in" else item["supply"],
    )


def write_checklist(report: Mapping[str, Any], card: ModelCard | None, folder: Path) -> None:
    """Write checklist.html, with a flow diagram, and checklist.md into ``folder``, created if missing.

    Args:
        report: content of report.json.
        card: of the model; None for a file of predictions.
        folder: of the report.

    Raises:
        DataError: the folder cannot be written.
    """
    guidelines = read_guidelines(Evidence(report=report, card=card))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "checklist.html", _page(report, guidelines))
        write_text(folder / "checklist.md", _markdown(report, guidelines))
    except OSError as error:
        msg = f"{folder.name}: cannot be written ({error.strerror}). Choose a writable folder as --output"
        raise DataError(msg) from error


def _page(report: Mapping[str, Any], guidelines: tuple[Guideline, ...]) -> str:
    boxes, height = flow_boxes(report["flow"])
    return render(
        _PACKAGE,
        "checklist.html",
        style=template_text(_PACKAGE, "report.css") + template_text(_PACKAGE, "checklist.css"),
        disclaimer=DISCLAIMER,
        version=__version__,
        note=NOTE,
        guidelines=guidelines,
        boxes=boxes,
        height=height,
        tables=_cross_tables(report),
    )


def _cross_tables(report: Mapping[str, Any]) -> list[Table]:
    header = ("", "True positive", "False negative", "False positive", "True negative")
    return [
        Table(
            title=f"Cross tabulation, {LEVELS[name]}",
            header=header,
            rows=[(label.display, *(f"{n:,}" for n in level["labels"][label.value].values())) for label in LABELS],
            note=f"Positive is decided by {level['decided_by']}.",
        )
        for name, level in report["cross_tabulation"].items()
    ]


def _markdown(report: Mapping[str, Any], guidelines: tuple[Guideline, ...]) -> str:
    lines = ["# Reporting checklists", "", NOTE, "", f"{DISCLAIMER}", "", "## Flow of images", ""]
    flow = report["flow"]
    lines += [f"- {flow['inputs']:,} {flow['unit']}"]
    left = [*flow["left"], *([flow["unlabelled"]] if flow["unlabelled"]["count"] else [])]
    lines += [f"- left: {counted(step['count'], step['unit'])}, {step['reason']}" for step in left]
    lines += [f"- scored: {flow['scored_images']:,} images", ""]
    for table in _cross_tables(report):
        lines += [f"## {table.title}", "", table.note, "", _row(table.header), _row(["---"] * len(table.header))]
        lines += [*(_row([str(cell) for cell in row]) for row in table.rows), ""]
    for guideline in guidelines:
        lines += [f"## {guideline.name}", "", f"{guideline.title}. {guideline.source}. DOI {guideline.doi}.", ""]
        lines += [f"{guideline.summary}.", "", _row(["Item", "What it asks", "Status", "Facts", "To supply"])]
        lines += [_row(["---"] * 5)]
        lines += [
            _row([item.number, item.asks, item.status, " ".join(item.facts), item.supply]) for item in guideline.items
        ]
        lines.append("")
    return "\n".join(lines)


def _row(cells: Any) -> str:
    escaped = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
