"""Labels of any dataset by image, from a table in any form of ``image_table``; an empty label is unknown."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemoscope.data.image_table import PATIENT_ID, ImageTable, check_names, read_image_table
from hemoscope.data.table_cells import Content
from hemoscope.errors import DataError

Six = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """Labels of one image: six in label order, None if unknown, and its patient if given."""

    labels: Six
    patient_id: str | None = None


Labels = Mapping[str, LabelledImage]


def read_label_table(path: Path, *, names: Mapping[str, str] | None = None) -> ImageTable:
    """Read a table of labels, and ``patient_id`` if there is such a column.

    Raises:
        DataError: see ``read_image_table``; a patient id is empty.
        ConfigError: a column of ``names`` is not there.
    """
    table = read_image_table(path, Content.LABELS, names=names, more=(PATIENT_ID,))
    check_names(names or {}, [table])
    patients = table.more.get(PATIENT_ID, ())
    if "" in patients:
        line = table.lines[patients.index("")]
        msg = f"{path.name}: line {line} has an empty {PATIENT_ID}. Fill it, or remove the column"
        raise DataError(msg)
    return table


def read_table_labels(path: Path, *, names: Mapping[str, str] | None = None) -> dict[str, LabelledImage]:
    """Return the labels of a table by image id; errors as for ``read_label_table``."""
    return labelled_images(read_label_table(path, names=names))


def labelled_images(table: ImageTable) -> dict[str, LabelledImage]:
    """Return labels by image id; images with equal labels and without a patient share one object, to save memory."""
    patients = table.more.get(PATIENT_ID)
    codes = np.where(np.isnan(table.values), 2, table.values).astype(np.int8)
    if patients is None:
        kinds, kind_of = np.unique(codes, axis=0, return_inverse=True)
        shared = [LabelledImage(labels=_six(kind.tolist())) for kind in kinds]
        return {image_id: shared[kind] for image_id, kind in zip(table.image_ids, kind_of.tolist(), strict=True)}
    return {
        image_id: LabelledImage(labels=_six(row.tolist()), patient_id=patient)
        for image_id, row, patient in zip(table.image_ids, codes, patients, strict=True)
    }


def _six(codes: list[int]) -> Six:
    return tuple(None if code == 2 else code for code in codes)
