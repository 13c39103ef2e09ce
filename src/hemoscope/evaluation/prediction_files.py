"""Reads and writes predictions and labels as CSV files, aligned by image.

Both have the columns ``image_id`` and the six labels, in any order, plain or gzipped (``.gz``). An empty label is
unknown, not negative; an empty prediction is an error.
"""

import csv
import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.metrics import Floats, check_probabilities
from hemoscope.files import atomic_path
from hemoscope.labels import LABELS

_NAMED = 3  # number of images that an error names


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledPredictions:
    """Predictions beside their labels, in the order of the predictions file.

    ``probabilities`` and ``labels`` are (images, 6) in label order; labels are 0, 1 or NaN (unknown). ``groups`` is the
    patient of each image, or None if unknown.
    """

    image_ids: tuple[str, ...]
    probabilities: Floats
    labels: Floats
    groups: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelTable:
    """The truth of some images: ``labels`` (images, 6) of 0, 1 or NaN (unknown), and the patient of each."""

    image_ids: tuple[str, ...]
    labels: Floats
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]

    def values(self, image_ids: Iterable[str]) -> Floats:
        """Return the six numbers of each image; NaN if a cell is empty."""
        return np.array([[self._number(image_id, label) for label in LABELS] for image_id in image_ids])

    def _number(self, image_id: str, column: str) -> float:
        text = (self.rows[image_id][column] or "").strip()
        try:
            return float(text) if text else float("nan")
        except ValueError as error:
            msg = f"{self.name}: {image_id} has {column} {text!r}, which is not a number"
            raise DataError(msg) from error


def read_predictions(predictions: Path, labels: Path, *, group_column: str | None = None) -> LabelledPredictions:
    """Read both files and align them by image.

    Args:
        predictions: probabilities in [0, 1].
        labels: labels of exactly the same images.
        group_column: the column, of the labels or else of the predictions, that names the patient.

    Raises:
        DataError: a file is unreadable or lacks a column, an image occurs twice or in one file only, a cell is not a
            number, a prediction is empty or outside [0, 1], a label is neither 0, 1 nor empty, or a group is empty.
    """
    predicted, truth = _read_table(predictions), _read_table(labels)
    _same_images(predicted, truth)
    image_ids = tuple(predicted.rows)
    probabilities, known = _checked_predictions(predicted, image_ids), truth.values(image_ids)
    _check_labels(truth.name, image_ids, known)
    groups = None if group_column is None else _groups(group_column, truth, predicted, image_ids)
    return LabelledPredictions(image_ids=image_ids, probabilities=probabilities, labels=known, groups=groups)


def read_labels(path: Path, *, group_column: str) -> LabelTable:
    """Read only the labels; arguments and errors as for :func:`read_predictions`."""
    truth = _read_table(path)
    image_ids = tuple(truth.rows)
    known = truth.values(image_ids)
    _check_labels(truth.name, image_ids, known)
    patients = _groups(group_column, truth, truth, image_ids)
    return LabelTable(image_ids=image_ids, labels=known, patients=patients)


def read_probabilities(path: Path) -> dict[str, Floats]:
    """Read only predictions: six probabilities of each image. Errors as for :func:`read_predictions`."""
    table = _read_table(path)
    image_ids = tuple(table.rows)
    values = _checked_predictions(table, image_ids)
    return dict(zip(image_ids, values, strict=True))


def _checked_predictions(table: _Table, image_ids: tuple[str, ...]) -> Floats:
    values = table.values(image_ids)
    if np.isnan(values).any():
        row = int(np.flatnonzero(np.isnan(values).any(axis=1))[0])
        msg = f"{table.name}: {image_ids[row]} has an empty prediction. Every image needs all six"
        raise DataError(msg)
    check_probabilities(values)
    return values


def write_predictions(path: Path, probabilities: Mapping[str, Iterable[float]]) -> None:
    """Write the six probabilities of each image exactly, in the format of :func:`read_predictions`."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_id", *LABELS])
        writer.writerows([image_id, *(repr(float(p)) for p in six)] for image_id, six in probabilities.items())


def write_labels(path: Path, data: LabelledPredictions, series: Sequence[str]) -> None:
    """Write labels (empty if unknown), patient and series of each image, to accompany :func:`write_predictions`."""
    patients = data.groups or data.image_ids
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_id", "patient_id", "series_id", *LABELS])
        for row, (image_id, patient, name) in enumerate(zip(data.image_ids, patients, series, strict=True)):
            known = ("" if np.isnan(label) else int(label) for label in data.labels[row])
            writer.writerow([image_id, patient, name, *known])


def _check_labels(name: str, image_ids: tuple[str, ...], labels: Floats) -> None:
    wrong = ~(np.isnan(labels) | np.isin(labels, (0.0, 1.0))).all(axis=1)
    if wrong.any():
        msg = f"{name}: {image_ids[int(np.flatnonzero(wrong)[0])]} has a label that is neither 0, 1 nor empty"
        raise DataError(msg)


def _read_table(path: Path) -> _Table:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = tuple(reader.fieldnames or ())
            _check_columns(path, columns)
            return _Table(name=path.name, columns=columns, rows=_index(path, reader))
    except FileNotFoundError as error:
        msg = f"{path.name}: no such file. Give the path of the CSV table"
        raise DataError(msg) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        msg = (
            f"{path.name}: not a readable CSV table ({type(error).__name__}). Give CSV in UTF-8, or CSV gzipped as .gz"
        )
        raise DataError(msg) from error


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    absent = [name for name in ("image_id", *LABELS) if name not in columns]
    if absent:
        msg = f"{path.name} lacks the columns {', '.join(absent)}. It needs image_id and the six labels"
        raise DataError(msg)


def _index(path: Path, reader: Iterable[dict[str, str]]) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for row in reader:
        image_id = row["image_id"]
        if image_id in rows:
            msg = f"{path.name}: {image_id} occurs twice. Keep one row per image"
            raise DataError(msg)
        if any(row[label] is None for label in LABELS):
            msg = f"{path.name}: the row of {image_id} is shorter than the header"
            raise DataError(msg)
        rows[image_id] = row
    if not rows:
        msg = f"{path.name} has a header and no rows"
        raise DataError(msg)
    return rows


def _same_images(predicted: _Table, truth: _Table) -> None:
    """Refuse images that are in one file only: scoring the others would hide failures."""
    for one, other in ((predicted, truth), (truth, predicted)):
        lone = [image_id for image_id in one.rows if image_id not in other.rows]
        if lone:
            named = ", ".join(lone[:_NAMED]) + (", ..." if len(lone) > _NAMED else "")
            msg = (
                f"{len(lone)} images of {one.name} are missing from {other.name}: {named}. Give the same images in both"
            )
            raise DataError(msg)


def _groups(column: str, truth: _Table, predicted: _Table, image_ids: tuple[str, ...]) -> tuple[str, ...]:
    table = next((table for table in (truth, predicted) if column in table.columns), None)
    if table is None:
        msg = f"neither {truth.name} nor {predicted.name} has the column {column!r} that names the patient"
        raise DataError(msg)
    groups = tuple((table.rows[image_id][column] or "").strip() for image_id in image_ids)
    if "" in groups:
        msg = f"{table.name}: {image_ids[groups.index('')]} has an empty {column}"
        raise DataError(msg)
    return groups
