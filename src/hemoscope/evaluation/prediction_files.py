"""Reads predictions and labels and aligns them by image; writes both as CSV with one row an image.

The forms of the tables that are read, and how ids are matched, are those of ``hemoscope.data``.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemoscope.data.image_ids import Matching, listed, match_ids
from hemoscope.data.image_table import ImageTable, check_names, read_header, read_image_table
from hemoscope.data.table_cells import Content
from hemoscope.errors import DataError
from hemoscope.evaluation.metrics import Floats
from hemoscope.files import atomic_path, inert_text
from hemoscope.labels import LABELS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledPredictions:
    """Predictions beside their labels, in the order of the predictions file.

    ``probabilities`` and ``labels`` are (images, 6) in label order; labels are 0, 1 or NaN (unknown). ``groups`` is the
    patient of each image, or None if unknown; ``notes`` say how the files were read.
    """

    image_ids: tuple[str, ...]
    probabilities: Floats
    labels: Floats
    groups: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelTable:
    """The truth of some images: ``labels`` (images, 6) of 0, 1 or NaN (unknown), and the patient of each.

    ``name`` is the file's; ``notes`` say how it was read.
    """

    name: str
    image_ids: tuple[str, ...]
    labels: Floats
    patients: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_predictions(
    predictions: Path,
    labels: Path,
    *,
    group_column: str | None = None,
    names: Mapping[str, str] | None = None,
    beside: Sequence[Path] = (),
) -> LabelledPredictions:
    """Read both files and align them by image.

    Args:
        predictions: probabilities in [0, 1], in any form of ``image_table``.
        labels: labels of exactly the same images.
        group_column: the column, of the labels or else of the predictions, that names the patient.
        names: columns that have other names, by role (``image_table.ROLES``).
        beside: further tables of the same command: a column of ``names`` may be in one of them alone.

    Returns:
        The images in the order of the predictions, with the ids of the labels.

    Raises:
        DataError: see ``read_image_table``; an image is in one file only, or fits several of the other; a group is
            empty.
        ConfigError: a column of ``names`` is in none of the files.
    """
    predicted, truth = read_both(predictions, labels, group_column=group_column, names=names, beside=beside)
    found, matched = match_tables(predicted, truth)
    matched.check(truth.name)
    _same_images(matched, predicted, truth)
    row_of = {image_id: row for row, image_id in enumerate(truth.image_ids)}
    order = [row_of[matched.id_of[name]] for name in found]
    return LabelledPredictions(
        image_ids=tuple(truth.image_ids[row] for row in order),
        probabilities=predicted.values,
        labels=truth.values[order],
        groups=None if group_column is None else _groups(group_column, truth, predicted, order),
        notes=predicted.notes + truth.notes,
    )


def read_both(
    predictions: Path,
    labels: Path,
    *,
    group_column: str | None = None,
    names: Mapping[str, str] | None = None,
    beside: Sequence[Path] = (),
) -> tuple[ImageTable, ImageTable]:
    """Read predictions and labels without aligning them; arguments and errors as for :func:`read_predictions`."""
    more = () if group_column is None else (group_column,)
    predicted = read_image_table(predictions, Content.PREDICTIONS, names=names, more=more)
    truth = read_image_table(labels, Content.LABELS, names=names, more=more)
    if names:
        check_names(names, [predicted, truth, *(read_header(path, names) for path in beside)])
    return predicted, truth


def match_tables(predicted: ImageTable, truth: ImageTable) -> tuple[tuple[str, ...], Matching]:
    """Match the ids of two tables; returns the predictions' ids that were used, too.

    ``findings.csv`` names an image by its file and by its SOP Instance UID: the one that fits all labels is used.
    """
    by_name = match_ids(truth.image_ids, predicted.image_ids)
    if predicted.uids and (by_name.ids_alone or by_name.names_alone or by_name.ambiguous):
        by_uid = match_ids(truth.image_ids, predicted.uids)
        if len(by_uid.id_of) > len(by_name.id_of):
            return predicted.uids, by_uid
    return predicted.image_ids, by_name


def read_labels(path: Path, *, group_column: str, names: Mapping[str, str] | None = None) -> LabelTable:
    """Read only the labels; arguments and errors as for :func:`read_predictions`."""
    truth = read_image_table(path, Content.LABELS, names=names, more=(group_column,))
    check_names(names or {}, [truth])
    patients = _groups(group_column, truth, truth, range(len(truth.image_ids)))
    return LabelTable(
        name=truth.name, image_ids=truth.image_ids, labels=truth.values, patients=patients, notes=truth.notes
    )


def read_probabilities(path: Path, *, names: Mapping[str, str] | None = None) -> dict[str, Floats]:
    """Read only predictions: six probabilities of each image. Errors as for :func:`read_predictions`."""
    table = read_image_table(path, Content.PREDICTIONS, names=names)
    check_names(names or {}, [table])
    return dict(zip(table.image_ids, table.values, strict=True))


def write_predictions(path: Path, probabilities: Mapping[str, Iterable[float]]) -> None:
    """Write the six probabilities of each image exactly, in the format of :func:`read_predictions`.

    Ids are made inert for spreadsheets, since UIDs of files may hold anything; reading restores them.
    """
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_id", *LABELS])
        writer.writerows([inert_text(name), *(repr(float(p)) for p in six)] for name, six in probabilities.items())


def write_labels(path: Path, data: LabelledPredictions, series: Sequence[str]) -> None:
    """Write labels (empty if unknown), patient and series of each image, to accompany :func:`write_predictions`."""
    patients = data.groups or data.image_ids
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_id", "patient_id", "series_id", *LABELS])
        for row, (image_id, patient, name) in enumerate(zip(data.image_ids, patients, series, strict=True)):
            known = ("" if np.isnan(label) else int(label) for label in data.labels[row])
            writer.writerow([*map(inert_text, (image_id, patient, name)), *known])


def _same_images(matched: Matching, predicted: ImageTable, truth: ImageTable) -> None:
    """Refuse images that are in one file only: scoring the others would hide failures."""
    for lone, one, other in ((matched.names_alone, predicted, truth), (matched.ids_alone, truth, predicted)):
        if lone:
            msg = (
                f"{len(lone)} images of {one.name} are missing from {other.name}: {listed(lone)}. "
                "Give the same images in both, or look at both with --dry-run"
            )
            raise DataError(msg)


def _groups(column: str, truth: ImageTable, predicted: ImageTable, order: Sequence[int]) -> tuple[str, ...]:
    """Return a column of the labels, in the order of the predictions, or else of the predictions."""
    table = next((table for table in (truth, predicted) if column in table.more), None)
    if table is None:
        files = truth.name if truth is predicted else f"neither {truth.name} nor {predicted.name}"
        lacks = "lacks" if truth is predicted else "has"
        msg = f"{files} {lacks} the column {column!r} that names the patient. Add it, or name another column"
        raise DataError(msg)
    cells = table.more[column]
    if "" in cells:
        row = cells.index("")
        msg = f"{table.name}: line {table.lines[row]}: {table.image_ids[row]} has an empty {column}. Fill it"
        raise DataError(msg)
    return tuple(cells[row] for row in order) if table is truth else cells
