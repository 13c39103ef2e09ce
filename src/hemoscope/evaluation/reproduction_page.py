"""The reproduction as one self-contained page: the paper's tables with both numbers in each cell; nothing fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hemoscope.labels import LABELS
from hemoscope.reports.html_templates import render, template_text

Document = Mapping[str, Any]
MINUS = "\N{MINUS SIGN}"
# A cell of a measured table: its text, and the values behind a median.
Measured = tuple[str, str]
_PACKAGE = "hemoscope.evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number as text: published, recomputed (empty if it is not) with its interval, difference, status."""

    published: str
    recomputed: str
    interval: str
    difference: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture under its title; ``png`` is None if it needs something that was not given: ``note`` says what."""

    title: str
    note: str
    png: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section, table or equation of the paper.

    ``columns`` are those of a table of the paper; empty for numbers of the text, whose rows have one cell and a note.
    ``notes`` are those of single cells of a table.
    """

    title: str
    note: str
    commands: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]
    pictures: tuple[Picture, ...]


def render_reproduction(document: Document, pictures: Mapping[str, bytes]) -> str:
    """Return the page; every text is escaped.

    Args:
        document: the content of ``reproduction.json``.
        pictures: PNGs by name; those that are missing are named with what they need.
    """
    return render(
        _PACKAGE,
        "reproduction.html",
        document=document,
        style=template_text(_PACKAGE, "report.css") + template_text(_PACKAGE, "reproduction.css"),
        labels=[label.display for label in LABELS],
        sections=[_section(where, document, pictures) for where in document["places"]],
        figures=_pictures(_FIGURES, pictures),
        missing=_missing(document["numbers"]),
        timing=None if document["timing"] is None else timing_tables(document["timing"]),
    )


def _section(where: str, document: Document, pictures: Mapping[str, bytes]) -> Section:
    numbers = [number for number in document["numbers"] if number["where"] == where]
    place = document["places"][where]
    columns = tuple(dict.fromkeys(number["column"] for number in numbers if number["column"]))
    return Section(
        title=place["title"],
        note=place["note"],
        commands=tuple(dict.fromkeys(number["command"] for number in numbers if number["recomputed"])),
        columns=columns,
        rows=_matrix(numbers) if columns else _rows(numbers),
        notes=tuple(_cell_notes(numbers)) if columns else (),
        pictures=_pictures(where, pictures),
    )


def _matrix(numbers: Sequence[Document]) -> tuple[tuple[str, str, tuple[Cell, ...]], ...]:
    heads = dict.fromkeys(number["row"] for number in numbers)
    return tuple((head, "", tuple(_cell(number) for number in numbers if number["row"] == head)) for head in heads)


def _rows(numbers: Sequence[Document]) -> tuple[tuple[str, str, tuple[Cell, ...]], ...]:
    return tuple((number["row"], _note(number), (_cell(number),)) for number in numbers)


def _note(number: Document) -> str:
    """The note of a number of the text, and what the recomputed value rests on if that is not the whole dataset."""
    basis = "" if number["recomputed"] is None else number["recomputed"]["basis"]
    said = f"Here: {basis}." if basis and number["unit"] != "" and "slices" in basis else ""
    return " ".join(text for text in (number["note"], said) if text)


def _cell_notes(numbers: Sequence[Document]) -> list[str]:
    """The note of each cell of a table; cells with the same note share a line."""
    places: dict[str, list[str]] = {}
    for number in numbers:
        if number["note"]:
            places.setdefault(number["note"], []).append(f"{number['row']}, {number['column'].lower()}")
    return [f"{'; '.join(cells)}: {note}" for note, cells in places.items()]


def _cell(number: Document) -> Cell:
    found = number["recomputed"]
    space = " " if number["unit"] and not number["unit"].startswith("%") else ""
    published = f"{_grouped(number['printed'])}{space}{number['unit']}"
    if found is None:
        return Cell(published=published, recomputed="", interval="", difference="", status=number["status"])
    has_interval = found["low"] is not None
    return Cell(
        published=published,
        recomputed=_shown(found["value"], number),
        interval=f"{_shown(found['low'], number)} to {_shown(found['high'], number)}" if has_interval else "",
        difference=_difference(number),
        status=number["status"],
    )


def _difference(number: Document) -> str:
    shown = _shown(abs(number["difference"]), number)
    if float(shown.replace(",", "")) == 0:
        return "0"
    return f"{'+' if number['difference'] > 0 else MINUS}{shown}"


def _shown(value: float, number: Document) -> str:
    """One digit more than the paper prints; thresholds and settings by significant digits."""
    if number["id"].endswith(".threshold"):
        return f"{value:.2g}"
    if float(value).is_integer() and number["recomputed"]["low"] is None:
        return _grouped(f"{value:.0f}")
    if "e" in number["printed"]:
        return f"{value:g}".replace("e-0", "e-")
    digits = len(number["printed"].partition(".")[2]) + 1
    return f"{value:.{digits}f}"


def _grouped(printed: str) -> str:
    """Digits in groups of three from 10,000 on."""
    return f"{int(printed):,}" if printed.isdigit() and len(printed) > 4 else printed


def _missing(numbers: Sequence[Document]) -> list[tuple[str, str, str | None]]:
    """What numbers that were not recomputed need: the need, the numbers, the command."""
    wanted: dict[tuple[str, str | None], list[Document]] = {}
    for number in numbers:
        if number["needs"] is not None:
            wanted.setdefault((number["needs"], number["command"]), []).append(number)
    return [(needs, _listed(those), command) for (needs, command), those in wanted.items()]


def _listed(numbers: Sequence[Document]) -> str:
    """Numbers of the text by name, numbers of a table by their table and count."""
    tables: dict[str, int] = {}
    texts = []
    for number in numbers:
        if number["column"]:
            tables[number["where"]] = tables.get(number["where"], 0) + 1
        else:
            texts.append(number["row"])
    return "; ".join([*(f"{table} ({count} numbers)" for table, count in tables.items()), *texts])


# Pictures by name: where they stand (a place of the paper, or the figures' own section), title, what they need.
_FIGURES = "figures"
_PICTURES: dict[str, tuple[str, str, str]] = {
    "windows": ("IV-A", "The three windows", ""),
    "label_counts": (_FIGURES, "Images by type", "it needs labels: --predictions and --labels, or --rsna-labels"),
    "precision_recall": (_FIGURES, "Precision and recall by label", "it needs --predictions and --labels"),
    "roc": (_FIGURES, "ROC by label", "it needs --predictions and --labels"),
}


def _pictures(where: str, pictures: Mapping[str, bytes]) -> tuple[Picture, ...]:
    return tuple(
        Picture(title=title, note="" if name in pictures else needs, png=pictures.get(name))
        for name, (place, title, needs) in _PICTURES.items()
        if place == where
    )


def timing_tables(timing: Document) -> list[tuple[str, tuple[str, ...], list[tuple[Measured, ...]]]]:
    """The measured deployment as tables: title, header, rows. A cell holds the median and all values."""
    processes: list[tuple[Measured, ...]] = [
        (
            (entry["what"], ""),
            (f"{entry['slices']}", ""),
            (f"{entry['threads']}", ""),
            _median(entry["wall_s"], 2),
            _median(entry["cpu_s"], 2),
            _median(entry["peak_memory_gb"], 2),
        )
        for entry in timing["processes"]
    ]
    forward: list[tuple[Measured, ...]] = [
        ((entry["what"], ""), (f"{entry['threads']}", ""), _median(entry["wall_ms"], 0), _median(entry["cpu_ms"], 0))
        for entry in timing["forward"]
    ]
    return [
        ("Forward pass, per slice", ("", "Threads", "Wall, ms", "Processor, ms"), forward),
        (
            "Whole process, from its start to its end",
            ("", "Slices", "Threads", "Wall, s", "Processor, s", "Peak memory, GB"),
            processes,
        ),
    ]


def _median(found: Document, digits: int) -> Measured:
    return f"{found['median']:.{digits}f}", ", ".join(f"{value:.{digits}f}" for value in found["values"])
