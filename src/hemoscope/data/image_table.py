"""Reads labels or predictions of images from a CSV table: the one reader of ``prepare``, ``evaluate`` and ``tune``.

Three forms are read: one row an image (``image_id`` and six labels), Kaggle's six lines an image (``ID``, as in
``ID_xxx_any``, and ``Label``), and, as predictions, ``findings.csv`` of ``hemoscope predict``. An empty label is
unknown, not negative. A missing ``any`` follows from the five types, since it stands for at least one of them.

Millions of lines fit into memory: values are kept in arrays, ids once.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemoscope.data.csv_rows import CsvRows, open_rows
from hemoscope.data.image_ids import bare_id, listed
from hemoscope.data.table_cells import Cells, Content, RepeatError
from hemoscope.errors import ConfigError, DataError
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage

Floats = NDArray[np.float64]
Rows = Iterator[tuple[int, list[str]]]
IMAGE_ID, PATIENT_ID = "image_id", "patient_id"
ROLES: tuple[str, ...] = (IMAGE_ID, PATIENT_ID, *LABELS)
_LINES = ("id", "label")
_SOURCE, _UID, _FRAME = _FINDINGS = ("source", "sop_instance_uid", "frame")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NEEDS = (
    f"It needs {', '.join((IMAGE_ID, *LABELS))}, with one row an image, or ID and Label, with six lines an image. "
    "If columns have other names, give --map image_id=COLUMN, --map any=COLUMN and so on"
)


class Form(StrEnum):
    """The form of a table; the value describes it."""

    ROWS = "one row an image"
    LINES = "six lines an image"
    FINDINGS = "findings.csv of hemoscope predict"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageTable:
    """Labels or predictions of images.

    Attributes:
        name: of the file, without its folder.
        form: of the file.
        separator: of the columns.
        columns: as they stand in the file.
        used: the column that was read for each role (``image_id``, the labels, further ones).
        image_ids: without a DICOM ending, as written otherwise, in the order of the file; each image once.
        values: (images, 6) in label order, NaN if unknown.
        lines: (images,) the first line of each image.
        more: further columns that were asked for and are in the file, a value for each image.
        repeated: rows, or lines of six, that repeat an earlier one with equal values.
        computed: number of images whose ``any`` follows from the types.
        uids: SOP Instance UIDs, in the form FINDINGS.
    """

    name: str
    form: Form
    separator: str
    columns: tuple[str, ...]
    used: Mapping[str, str]
    image_ids: tuple[str, ...]
    values: Floats
    lines: NDArray[np.int64]
    more: Mapping[str, tuple[str, ...]]
    repeated: int = 0
    computed: int = 0
    uids: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the table was read."""
        repeated = f"{self.name}: rows that repeat an earlier one with equal values: {self.repeated}"
        computed = f"{self.name}: images whose any was computed from the types: {self.computed}"
        return tuple(text for text, count in ((repeated, self.repeated), (computed, self.computed)) if count)


def read_image_table(
    path: Path,
    content: Content,
    *,
    names: Mapping[str, str] | None = None,
    more: Collection[str] = (),
) -> ImageTable:
    """Read a table.

    Args:
        path: CSV in UTF-8 or in UTF-16 with a byte order mark, plain or gzipped, separated by comma, semicolon or tab.
        content: labels, which are 0, 1 or empty, or predictions, which are in [0, 1].
        names: columns that have other names, by role (``ROLES``); one that the file lacks is not used.
        more: further columns to read where they exist.

    Raises:
        DataError: the file is unreadable, empty or lacks a column; a row has no id; a value is invalid; an image stands
            twice with different values or lacks lines; ``any`` is 0 beside a type that is 1.
    """
    names = names or {}
    with open_rows(path, _known(names, more)) as opened:
        columns = _Columns(opened, names)
        form = _form(columns, content)
        if form is Form.LINES:
            return _finished(_read_lines(path, opened, columns, content), content)
        return _finished(_read_rows(opened, columns, content, form, more), content)


def read_header(path: Path, names: Mapping[str, str]) -> CsvRows:
    """Return a table's name and columns without its rows; arguments and errors as for :func:`read_image_table`."""
    with open_rows(path, _known(names, ())) as opened:
        return replace(opened, rows=iter(()))


def check_names(names: Mapping[str, str], tables: Sequence[ImageTable | CsvRows]) -> None:
    """Raise ConfigError if a column that was named is in none of the tables."""
    found = {column.casefold() for table in tables for column in table.columns}
    lost = [f"{role}={column}" for role, column in names.items() if column.casefold() not in found]
    if lost:
        where = "; ".join(f"{table.name} has {', '.join(table.columns)}" for table in tables)
        msg = f"--map {lost[0]}: there is no such column. {where}"
        raise ConfigError(msg)


def _known(names: Mapping[str, str], more: Collection[str]) -> set[str]:
    return {name.casefold() for name in (*ROLES, *_LINES, *_FINDINGS, *more, *names.values())}


class _Columns:
    """Finds columns by role, whatever the case of their names."""

    def __init__(self, opened: CsvRows, names: Mapping[str, str]) -> None:
        self.name, self.written = opened.name, opened.columns
        self._places = {column.casefold(): place for place, column in enumerate(opened.columns)}
        self._names = names

    def find(self, role: str) -> int | None:
        """Return the place of a column by its given name, else by its role's name."""
        given = self._places.get(self._names.get(role, role).casefold())
        return self._places.get(role.casefold()) if given is None else given

    def holds(self, names: Sequence[str]) -> bool:
        return all(name in self._places for name in names)

    def places(self, roles: Sequence[str]) -> dict[str, int]:
        """Return places by role. Raises DataError for those that are missing."""
        absent = [role for role in roles if self.find(role) is None]
        if absent:
            has = ", ".join(self.written)
            msg = f"{self.name} lacks the columns {', '.join(absent)}. It has {has}. {_NEEDS}"
            raise DataError(msg)
        return {role: place for role in roles if (place := self.find(role)) is not None}


def _form(columns: _Columns, content: Content) -> Form:
    if columns.find(IMAGE_ID) is None and columns.holds(_LINES):
        return Form.LINES
    if columns.find(IMAGE_ID) is None and columns.holds(_FINDINGS):
        if content is Content.LABELS:
            msg = f"{columns.name} holds predictions of hemoscope predict, not labels. Give a table of labels"
            raise DataError(msg)
        return Form.FINDINGS
    return Form.ROWS


def _read_rows(opened: CsvRows, columns: _Columns, content: Content, form: Form, more: Collection[str]) -> ImageTable:
    """Read one row an image."""
    id_role = _SOURCE if form is Form.FINDINGS else IMAGE_ID
    # Without the column `any`, labels still say it by their types; a prediction of it cannot be computed.
    free = content is Content.LABELS and columns.find(Hemorrhage.ANY) is None
    places = columns.places([id_role, *(LABELS[1:] if free else LABELS)])
    others = {name: place for name in more if (place := columns.find(name)) is not None}
    frame_at = None
    if form is Form.FINDINGS:
        others |= columns.places([_UID])
        frame_at = columns.places([_FRAME])[_FRAME]
    six = [places.get(label) for label in LABELS]
    cells = Cells(opened.name, content, tuple(others))
    for line, row in opened.rows:
        image_id = _row_id(opened.name, line, row, places[id_role], frame_at, form)
        values = [
            cells.number("" if at is None else row[at], line, image_id, label)
            for at, label in zip(six, LABELS, strict=True)
        ]
        cells.add(line, image_id, values, tuple(row[at].strip() for at in others.values()))
    read = places | others | ({} if frame_at is None else {_FRAME: frame_at})
    used = {role: columns.written[place] for role, place in read.items()}
    return _table(opened, form, used, cells)


def _read_lines(path: Path, opened: CsvRows, columns: _Columns, content: Content) -> ImageTable:
    """Read six lines an image."""
    places = columns.places(_LINES)
    id_at, value_at = (places[name] for name in _LINES)
    label_at = {label.value: place for place, label in enumerate(LABELS)}
    cells = Cells(opened.name, content, ())
    written, image_id = "", ""
    for line, row in opened.rows:
        before, (written, _, label) = written, row[id_at].strip().rpartition("_")
        if written != before:  # the lines of an image follow each other
            image_id = bare_id(written)
        place, text = label_at.get(label), row[value_at]
        if place is None:
            place = label_at.get(label.lower())
        if not image_id or place is None or not text.strip():
            what = f"{row[id_at]!r:.80} with {row[value_at]!r:.20}"
            msg = f"{opened.name}: line {line} is {what}, expected an ID that ends in a label, and {content.expected}"
            raise DataError(msg)
        value = cells.number(text, line, image_id, LABELS[place])
        try:
            cells.add_one(line, image_id, place, value)
        except RepeatError as error:
            raise _conflict(path, row, line, columns, error) from None
    used = {"image_id": columns.written[id_at], "label": columns.written[value_at]}
    return _table(opened, Form.LINES, used, cells)


def _conflict(path: Path, row: list[str], line: int, columns: _Columns, error: RepeatError) -> DataError:
    """Find the earlier line by reading the file again: keeping the line of every value would cost memory."""
    id_at, value_at = columns.places(_LINES).values()
    wanted = row[id_at].strip().lower()
    with open_rows(path, set(_LINES)) as again:
        first = next((number for number, cells in again.rows if cells[id_at].strip().lower() == wanted), None)
    where = "an earlier line" if first is None else f"line {first}"
    name, value = row[id_at].strip(), row[value_at].strip()
    return DataError(
        f"{path.name}: {name} is {error.before:g} in {where} and {value} in line {line}. Remove the wrong one"
    )


def _row_id(name: str, line: int, row: list[str], id_at: int, frame_at: int | None, form: Form) -> str:
    image_id = bare_id(_unmarked(row[id_at]))
    if not image_id:
        msg = f"{name}: line {line} has no id. Give one row per image, with its id"
        raise DataError(msg)
    if form is Form.FINDINGS and frame_at is not None and row[frame_at].strip() not in ("", "0"):
        msg = f"{name}: line {line}: {image_id} has several frames. Give a table with an image_id for each frame"
        raise DataError(msg)
    return image_id


def _unmarked(cell: str) -> str:
    """Remove the apostrophe that our tables have before what a spreadsheet would run as a formula (``inert_text``)."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def _table(opened: CsvRows, form: Form, used: Mapping[str, str], cells: Cells) -> ImageTable:
    more = dict(cells.more())
    uids = more.pop(_UID, ()) if form is Form.FINDINGS else ()
    return ImageTable(
        name=opened.name,
        form=form,
        separator=opened.separator,
        columns=opened.columns,
        used=used,
        image_ids=tuple(cells.image_ids),
        values=cells.values(),
        lines=cells.lines(),
        more=more,
        repeated=cells.repeated,
        uids=uids,
    )


def _finished(table: ImageTable, content: Content) -> ImageTable:
    """Check the whole table, and compute what is missing of ``any``."""
    if not table.image_ids:
        msg = f"{table.name} has a header and no rows. {_NEEDS}"
        raise DataError(msg)
    computed = _compute_any(table) if content is Content.LABELS else 0
    if table.form is Form.LINES or content is Content.PREDICTIONS:
        _check_whole(table)
    return replace(table, computed=computed)


def _compute_any(table: ImageTable) -> int:
    """Fill unknown ``any`` in place where the types say it. Raises DataError if it is 0 beside a type that is 1."""
    whole, types = table.values[:, 0], table.values[:, 1:]
    positive = (types == 1.0).any(axis=1)
    wrong = np.flatnonzero((whole == 0.0) & positive)
    if len(wrong):
        rows = [
            f"line {table.lines[row]} ({table.image_ids[row]}: "
            f"{', '.join(label for label, value in zip(SUBTYPES, types[row], strict=True) if value == 1.0)})"
            for row in wrong
        ]
        msg = (
            f"{table.name}: any is 0 beside a type that is 1 in {len(wrong)} image{'s' if len(wrong) > 1 else ''}: "
            f"{listed(rows)}. Correct any or the type"
        )
        raise DataError(msg)
    unknown = np.isnan(whole)
    if table.form is Form.LINES and not unknown.all():
        return 0  # single missing lines are errors
    known = unknown & (positive | (types == 0.0).all(axis=1))
    whole[known] = positive[known]
    return int(known.sum())


def _check_whole(table: ImageTable) -> None:
    missing = np.isnan(table.values)
    if not missing.any():
        return
    row = int(np.flatnonzero(missing.any(axis=1))[0])
    lost = ", ".join(label for label, absent in zip(LABELS, missing[row], strict=True) if absent)
    image_id = table.image_ids[row]
    if table.form is Form.LINES:
        msg = f"{table.name}: {image_id} has no line for {lost}. Every image needs six lines"
    else:
        msg = f"{table.name}: line {table.lines[row]}: {image_id} has an empty prediction ({lost}). Give all six"
    raise DataError(msg)
