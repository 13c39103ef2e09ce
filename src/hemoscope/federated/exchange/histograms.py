"""Scores of a site as histograms: what pooled ranking and calibration need, without any row.

A site counts its logits in fixed cells a quarter wide, for each label and class (label known positive, known
negative). Neighbouring cells are merged until each holds nothing or at least ``least_cell`` rows. A class of fewer
rows, or of a single patient, is not sent; and then the other class of that label neither, unless the small one is
empty: its total beside the site's number of rows would give the small count away, and half a
site would shift the share of positives that a calibration learns.

What an attacker learns. This hides single rows from a reader of one histogram; it is no differential privacy.

- Cells count rows. At slice level the five slices of a cell may be of one patient; two patients at least make a class.
  ``count_cells`` counts such cells, for the site's audit file.
- The outermost quarter logits of a cell hold at least one row each, or the cell would be narrower: where the lowest and
  the highest score of a class lie is known to a quarter logit, though not whose they are.
- Differencing. The same patients are counted in every round that is evaluated. The cells stay and the scores move with
  the model, so rows that cross an edge show in the difference of two rounds, one by one where few cross. A server that
  is curious enough to send nearly the same model often, such as with one bias shifted by small steps, can read single
  scores in this way. Who holds a patient's scan and the model can then test whether such a patient was in the set. The
  remedy is to evaluate seldom (``histograms.every = 0``: after the last round alone); each answer stands in the site's
  audit file.
- Secure aggregation does not cover histograms, which come from each site by itself, and an epsilon does not count them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.labels import LABELS, PerLabel
from hemoscope.training.run_scores import LevelScores

Level = Literal["slice", "patient"]
Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

FORMAT = "hemoscope.histograms/1"
# Logits. Fine cell 0 lies below the first edge, cell k from edge k - 1 (inclusive) to edge k, the last above them all.
EDGES: Floats = np.arange(-32, 33) / 4
FINE_CELLS = len(EDGES) + 1
# A class of one patient's slices would describe that patient.
FEWEST_PATIENTS = 2
MOST_ROWS = 100_000_000
_MOST_CHARACTERS = 1 << 16  # all cells of all labels with counts of nine figures need half of it
_WRITE_ANEW = "Have the site score its part again with this version of Hemoscope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """So many rows lie in the fine cells ``first`` to ``last``, both included."""

    first: int
    last: int
    count: int

    @property
    def bounds(self) -> tuple[float, float]:
        """Logits: at least the one, below the other; infinite at the open ends."""
        low = -np.inf if self.first == 0 else float(EDGES[self.first - 1])
        high = np.inf if self.last == FINE_CELLS - 1 else float(EDGES[self.last])
        return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounts:
    """The rows of one class of one label: its cells from low to high, and of how many patients (at least) they are."""

    cells: tuple[Cell, ...]
    patients: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(cell.count for cell in self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreHistograms:
    """What one site reports of its scores at one level.

    Attributes:
        level: what a row is: a slice, or a patient's study scored by the study rule.
        least_cell: rows that a cell holds at least, if any.
        rows: scored; 0 where they are fewer than ``least_cell``.
        patients: scored, at least; below ``least_cell`` only 2 (several) or 0 is reported.
        positive: rows known to have each label; None where they are not sent, no cells where there are none.
        negative: rows known not to have it.
    """

    level: Level
    least_cell: int
    rows: int
    patients: int
    positive: PerLabel[ClassCounts | None]
    negative: PerLabel[ClassCounts | None]

    def __post_init__(self) -> None:
        """Refuse what no site could have counted; FederationError."""
        if not 1 <= self.least_cell <= MOST_ROWS:
            _refuse(f"least_cell is {self.least_cell}")
        if not 0 <= self.patients <= MOST_ROWS or not 0 <= self.rows <= MOST_ROWS:
            _refuse(f"{self.rows} rows of {self.patients} patients")
        for label in LABELS:
            classes = [found for found in (self.positive[label], self.negative[label]) if found is not None]
            for found in classes:
                _check_class(found, self.least_cell, self.patients, label.value)
            if sum(found.rows for found in classes) > self.rows:
                _refuse(f"{label.value} counts more rows than the {self.rows} that were scored")

    def to_json(self) -> str:
        """One line of JSON, the same for the same counts."""
        labels = {
            label.value: {"positive": _plain(self.positive[label]), "negative": _plain(self.negative[label])}
            for label in LABELS
        }
        facts = {"level": self.level, "least_cell": self.least_cell, "rows": self.rows, "patients": self.patients}
        return json.dumps({"format": FORMAT, **facts, "labels": labels}, separators=(",", ":"))


def score_histograms(scores: LevelScores, *, level: Level, least_cell: int) -> ScoreHistograms:
    """Count a site's scores.

    Args:
        scores: logits and truth (n, 6) with the patient of each row; n may be 0.
        level: what a row is.
        least_cell: rows that a cell holds at least, if any; 1 merges nothing.

    Raises:
        FederationError: a logit is not finite, or ``least_cell`` is below 1.
    """
    if least_cell < 1:
        msg = f"least_cell is {least_cell}, and a cell that is sent holds a row at least. Choose 1 or more, such as 5"
        raise FederationError(msg)
    if not np.isfinite(scores.logits).all():
        msg = "a score is not a finite number, so the network is broken. Look at the losses of the rounds before"
        raise FederationError(msg)
    classes = [_both_classes(scores, k, least_cell) for k in range(len(LABELS))]
    rows = len(scores.patients)
    return ScoreHistograms(
        level=level,
        least_cell=least_cell,
        rows=rows if rows >= least_cell else 0,
        patients=_at_least(len(set(scores.patients)), least_cell),
        positive=PerLabel.of([positive for positive, _ in classes]),
        negative=PerLabel.of([negative for _, negative in classes]),
    )


@dataclass(frozen=True, slots=True)
class CellCounts:
    """Cells of histograms, and how many of them hold rows of one patient alone. Only the site can count the latter."""

    cells: int
    of_one_patient: int

    def __add__(self, other: "CellCounts") -> "CellCounts":
        """Add the cells of further histograms."""
        return CellCounts(self.cells + other.cells, self.of_one_patient + other.of_one_patient)


def count_cells(scores: LevelScores, histograms: ScoreHistograms) -> CellCounts:
    """Count the cells that were made of these scores, and those whose rows are all of one patient."""
    names = np.array(scores.patients, dtype=str)
    patients = []
    for k, label in enumerate(LABELS):
        places = _places(scores.logits[:, k])
        for found, truth in ((histograms.positive[label], 1), (histograms.negative[label], 0)):
            for cell in found.cells if found is not None else ():
                inside = (scores.truth[:, k] == truth) & (cell.first <= places) & (places <= cell.last)
                patients.append(len(set(names[inside])))
    return CellCounts(len(patients), patients.count(1))


def parse_histograms(text: str) -> ScoreHistograms:
    """Read what a site sent, which may be anything.

    Raises:
        FederationError: it is no histogram as :meth:`ScoreHistograms.to_json` writes it, with the place and the remedy.
    """
    if len(text) > _MOST_CHARACTERS:
        _refuse(f"{len(text)} characters, at most {_MOST_CHARACTERS} are read")
    try:
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _refuse(f"no JSON ({type(error).__name__})", error)
    facts = _object(data, {"format", "level", "least_cell", "rows", "patients", "labels"}, "the histograms")
    if facts["format"] != FORMAT or facts["level"] not in ("slice", "patient"):
        _refuse(f"format {facts['format']!r:.40} of level {facts['level']!r:.40}, expected {FORMAT}")
    labels = _object(facts["labels"], {label.value for label in LABELS}, "labels")
    sides = {label: _object(labels[label.value], {"positive", "negative"}, label.value) for label in LABELS}
    return ScoreHistograms(
        level=facts["level"],
        least_cell=_whole(facts["least_cell"], "least_cell"),
        rows=_whole(facts["rows"], "rows"),
        patients=_whole(facts["patients"], "patients"),
        positive=PerLabel.build(lambda label: _parse_class(sides[label]["positive"], label.value)),
        negative=PerLabel.build(lambda label: _parse_class(sides[label]["negative"], label.value)),
    )


def _both_classes(scores: LevelScores, k: int, least_cell: int) -> tuple[ClassCounts | None, ClassCounts | None]:
    """Positives and negatives of label ``k``: both, or neither where one is too small to be reported and not empty."""
    names = np.array(scores.patients, dtype=str)
    places = _places(scores.logits[:, k])
    chosen = [scores.truth[:, k] == truth for truth in (1, 0)]
    counted = [(int(rows.sum()), len(set(names[rows]))) for rows in chosen]
    reported = [n >= least_cell and patients >= min(FEWEST_PATIENTS, least_cell) for n, patients in counted]
    if any(n > 0 and not sent for (n, _), sent in zip(counted, reported, strict=True)):
        return None, None
    positive, negative = (
        ClassCounts(
            cells=tuple(_merged(np.bincount(places[rows], minlength=FINE_CELLS), least_cell)),
            patients=_at_least(patients, least_cell),
        )
        for rows, (_, patients) in zip(chosen, counted, strict=True)
    )
    return positive, negative


def _places(logits: Floats) -> Integers:
    """Return the fine cell of each logit, (n,)."""
    return np.asarray(np.searchsorted(EDGES, logits, side="right"))


def _at_least(patients: int, least_cell: int) -> int:
    """A number of patients; where it is not to be reported, 2 for several, and 0 for none or one."""
    return patients if patients >= least_cell else FEWEST_PATIENTS * (patients >= FEWEST_PATIENTS)


def _merged(counts: Integers, least_cell: int) -> Iterator[Cell]:
    """Cells from low to high: each closes as soon as it holds enough; a rest at the top joins the last one."""
    open_cell: Cell | None = None
    closed: Cell | None = None
    for place in np.flatnonzero(counts).tolist():
        first, before = (open_cell.first, open_cell.count) if open_cell else (place, 0)
        open_cell = Cell(first=first, last=place, count=before + int(counts[place]))
        if open_cell.count >= least_cell:
            if closed:
                yield closed
            closed, open_cell = open_cell, None
    if closed and open_cell:
        closed = Cell(first=closed.first, last=open_cell.last, count=closed.count + open_cell.count)
    if closed:
        yield closed


def _check_class(found: ClassCounts, least_cell: int, patients: int, label: str) -> None:
    """Refuse cells out of order or too small, and patients that cannot be."""
    next_free = 0
    for cell in found.cells:
        if not next_free <= cell.first <= cell.last < FINE_CELLS:
            _refuse(f"{label} has the cells {cell.first} to {cell.last}, which do not rise from 0 to {FINE_CELLS - 1}")
        if not least_cell <= cell.count <= MOST_ROWS:
            _refuse(f"{label} has a cell of {cell.count} rows, and {least_cell} is the least")
        next_free = cell.last + 1
    if not (bool(found.cells) <= found.patients <= min(found.rows, patients)):
        _refuse(f"{label} counts {found.rows} rows of {found.patients} patients, of {patients} in all")


def _plain(found: ClassCounts | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"cells": [[cell.first, cell.last, cell.count] for cell in found.cells], "patients": found.patients}


def _parse_class(value: object, where: str) -> ClassCounts | None:
    if value is None:
        return None
    data = _object(value, {"cells", "patients"}, where)
    cells = data["cells"]
    if not isinstance(cells, list) or len(cells) > FINE_CELLS:
        _refuse(f"the cells of {where} are no list of at most {FINE_CELLS}")
    return ClassCounts(
        cells=tuple(_parse_cell(cell, where) for cell in cells), patients=_whole(data["patients"], f"{where} patients")
    )


def _parse_cell(value: object, where: str) -> Cell:
    if not isinstance(value, list) or len(value) != 3:
        _refuse(f"a cell of {where} is not [first, last, count]")
    first, last, count = (_whole(number, f"a cell of {where}") for number in value)
    return Cell(first=first, last=last, count=count)


def _object(value: object, keys: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        _refuse(f"{where} must have the keys {', '.join(sorted(keys))} and no others")
    return value


def _whole(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_ROWS:
        _refuse(f"{where} is no whole number from 0 to {MOST_ROWS}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice, of which JSON would silently keep the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a key stands twice"
        raise ValueError(msg)
    return found


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not a number in JSON"
    raise ValueError(msg)


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    msg = f"score histograms: {reason}. {_WRITE_ANEW}"
    raise FederationError(msg) from cause
