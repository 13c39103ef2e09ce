"""Statistics of a dataset for people: PNG pictures and one self-contained HTML page, nothing fetched, no script."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hemoscope.data.statistics import KINDS, Six, Statistics
from hemoscope.errors import MissingExtraError
from hemoscope.files import write_bytes
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.reports.html_templates import render, template_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colors, which color-blind readers can distinguish.
_COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#BBBBBB")
_PICTURES = {
    "kinds": "Images with no, one and more diagnoses",
    "balance": "Positive images of each class",
    "co_occurrence": "Labels that come together",
    "slices": "Slices a patient",
}
# The picture beside each table of ``statistics_tables``.
_BESIDE = ("slices", "balance", "kinds", "co_occurrence", None, None)
_SHOWN_COMBINATIONS = 20
_MOST_BARS = 60
_SHORT = tuple(label.abbreviation for label in LABELS)
_PACKAGE = "hemoscope.evaluation"


def write_statistics(found: Statistics, folder: Path) -> tuple[Path, ...]:
    """Write ``stats.html``, ``stats.json`` and a PNG for each picture; returns the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_statistics(found)
    contents = {f"{name}.png": png for name, png in pictures.items()}
    contents["stats.json"] = (json.dumps(found.to_json(), indent=2) + "\n").encode()
    contents["stats.html"] = render_statistics(found, pictures).encode()
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return tuple(folder / name for name in contents)


def draw_statistics(found: Statistics) -> dict[str, bytes]:
    """Every picture as PNG, by file name without ending."""
    return {
        "kinds": _draw((6.4, 4.2), lambda axes: _pie(axes, found)),
        "balance": _draw((6.8, 3.6), lambda axes: _balance(axes, found)),
        "co_occurrence": _draw((6.8, 5.4), lambda axes: _matrix(axes, found)),
        "slices": _draw((6.8, 3.6), lambda axes: _histogram(axes, found)),
    }


def render_statistics(found: Statistics, pictures: Mapping[str, bytes]) -> str:
    """The whole page; every text is escaped."""
    sections = [
        (*table, None if picture is None else {"alt": _PICTURES[picture], "png": pictures[picture]})
        for table, picture in zip(statistics_tables(found), _BESIDE, strict=True)
    ]
    short = ", ".join(f"{name} {label.display.lower()}" for name, label in zip(_SHORT[1:], SUBTYPES, strict=True))
    return render(
        _PACKAGE,
        "statistics.html",
        dataset=found.dataset,
        style=template_text(_PACKAGE, "statistics.css"),
        short_names=short,
        sections=sections,
    )


Row = tuple[str, ...]


def statistics_tables(found: Statistics) -> list[tuple[str, Row, list[Row]]]:
    """The numbers as tables of text: title, header, rows; for the page and for a terminal."""
    names = tuple(label.display for label in LABELS)
    labels: list[Row] = [
        (
            label.display,
            f"{count.positive:,}",
            _share(count.positive, count.positive + count.negative),
            f"{count.negative:,}",
            f"{count.unknown:,}",
            f"{count.positive_patients:,}",
        )
        for label, count in found.labels.items()
    ]
    kinds: list[Row] = [(kind, f"{found.kinds[kind]:,}", _share(found.kinds[kind], found.images)) for kind in KINDS]
    together: list[Row] = [
        (name, *(f"{count:,}" for count in row)) for name, row in zip(names, found.co_occurrence.tolist(), strict=True)
    ]
    combinations: list[Row] = [(f"{count:,}", *_digits(six)) for six, count in found.combinations[:_SHOWN_COMBINATIONS]]
    rows: list[Row] = [(image_id, *_digits(six)) for image_id, six in found.rows]
    header = ("Class", "Positive", "of known", "Negative", "Unknown", "Positive patients")
    return [
        ("Size", ("", "Count"), _size(found)),
        ("Images of each class (the paper's figure 2)", header, labels),
        (
            "Images with no, one and more diagnoses (the paper's section III: 85.7%, 10.1%, 4.2%)",
            ("Diagnoses", "Images", "Share"),
            kinds,
        ),
        ("Labels that come together, in images", ("", *_SHORT), together),
        ("Images by their six labels", ("Images", *_SHORT), combinations),
        ("Rows of labels by image id, as in the paper's Table I", ("Image id", *_SHORT), rows),
    ]


def _digits(six: Six) -> Row:
    return tuple("?" if value is None else str(value) for value in six)


def _size(found: Statistics) -> list[Row]:
    spread = found.slices_a_patient
    rows: list[Row] = [
        (name, f"{count:,}")
        for name, count in (
            ("Images", found.images),
            ("Series", found.series),
            ("Studies", found.studies),
            ("Patients", found.patients),
            ("Images whose any contradicts their types", found.contradictions),
        )
    ]
    rows.append(("Slices a patient: least, median, most", f"{spread.least:,}, {spread.median:,g}, {spread.most:,}"))
    return rows


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"


def _draw(size: tuple[float, float], draw: Callable[["Axes"], None]) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(package="matplotlib", extra="study") from error
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    stream = io.BytesIO()
    # No software name in the file: the same numbers give the same bytes.
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def _pie(axes: "Axes", found: Statistics) -> None:
    parts = [(kind, found.kinds[kind], colour) for kind, colour in zip(KINDS, _COLOURS, strict=True)]
    kept = [part for part in parts if part[1]]
    wedges = axes.pie(
        [count for _, count, _ in kept],
        colors=[colour for _, _, colour in kept],
        startangle=90,
        counterclock=False,
        wedgeprops={"edgecolor": "white"},
    )[0]
    # A legend, since the words of two thin parts side by side would lie on each other.
    names = [f"{kind}: {count:,} ({_share(count, found.images)})" for kind, count, _ in kept]
    axes.figure.legend(wedges, names, loc="outside right center", frameon=False)


def _balance(axes: "Axes", found: Statistics) -> None:
    names = [label.display for label in LABELS]
    counts = [count.positive for _, count in found.labels.items()]
    bars = axes.barh(names, counts, color=_COLOURS[0])
    known = [count.positive + count.negative for _, count in found.labels.items()]
    axes.bar_label(bars, [f"{n:,} ({_share(n, of)})" for n, of in zip(counts, known, strict=True)], padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="Positive images (share of those known)", xlim=(0, max(*counts, 1) * 1.3))
    axes.spines[["top", "right"]].set_visible(False)


def _matrix(axes: "Axes", found: Statistics) -> None:
    names = [label.display for label in LABELS]
    counts = found.co_occurrence
    share = counts / np.maximum(np.diag(counts), 1)[:, None]
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("... are also positive for this")
    axes.set_ylabel("Of the images positive for this ...")
    for (row, column), value in np.ndenumerate(share):
        text = f"{value:.0%}\n{counts[row, column]:,}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "black")


def _histogram(axes: "Axes", found: Statistics) -> None:
    least, most = int(found.slices.min()), int(found.slices.max())
    # One bar a number of slices, centred on it, as long as bars can be distinguished.
    edges = np.arange(least, most + 2) - 0.5 if most - least < _MOST_BARS else np.linspace(least, most, _MOST_BARS)
    axes.hist(found.slices, bins=edges.tolist(), color=_COLOURS[0])
    axes.set(xlabel="Slices", ylabel="Patients")
    axes.locator_params(axis="y", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
