"""Prepares public datasets as caches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemoscope.data.cache import stored_images, write_manifest, write_series
from hemoscope.data.ct_ich import DATASET, CtIchSlice, read_hounsfield, read_mask, read_table
from hemoscope.errors import DataError
from hemoscope.labels import LABELS
from hemoscope.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Result of a preparation: number of slices written, and excluded slices as ``(image id, reason)``."""

    slices: int
    left_out: tuple[tuple[str, str], ...]


def prepare_ct_ich(folder: Path, output: Path, *, progress: Progress | None = None) -> Preparation:
    """Build a cache from the CT-ICH folder; series that are complete in the cache are not read again.

    Unreadable slices are excluded and listed, never replaced; a later preparation tries them again. All slices of one
    patient are one series.

    Raises:
        DataError: the table is missing or invalid, or nothing in it could be read.
    """
    table = read_table(folder)
    rows: list[dict[str, object]] = []
    left_out: list[tuple[str, str]] = []
    for patient, group in groupby(table, key=lambda row: row.patient_id):
        slices = tuple(group)
        done, bad = _prepare_patient(folder, output, patient, slices)
        left_out.extend(bad)
        rows.extend(_manifest_rows(done))
        if progress is not None:
            progress(len(rows) + len(left_out), len(table))
    if not rows:
        msg = f"none of the {len(table)} slices could be read; the first reason: {left_out[0][1]}"
        raise DataError(msg)
    write_manifest(output, rows, DATASET)
    return Preparation(slices=len(rows), left_out=tuple(left_out))


def _prepare_patient(
    folder: Path, output: Path, patient: str, slices: Sequence[CtIchSlice]
) -> tuple[Sequence[CtIchSlice], list[tuple[str, str]]]:
    if stored_images(output, patient) == tuple(row.image_id for row in slices):
        return slices, []
    read: list[tuple[CtIchSlice, NDArray[np.int16], NDArray[np.bool_]]] = []
    left_out: list[tuple[str, str]] = []
    for row in slices:
        try:
            read.append((row, *_read(folder, row)))
        except DataError as error:
            left_out.append((row.image_id, str(error)))
    shapes = {pixels.shape for _, pixels, _ in read}
    if len(shapes) > 1:
        msg = f"patient {patient}: slices of different sizes {sorted(shapes)}. Restore the files from the release"
        raise DataError(msg)
    done = [row for row, _, _ in read]
    if read:
        masked = any(row.mask_file for row in done)
        mask = np.stack([outline for _, _, outline in read]) if masked else None
        hounsfield = np.stack([pixels for _, pixels, _ in read])
        write_series(output, patient, hounsfield=hounsfield, mask=mask, images=[row.image_id for row in done])
    return done, left_out


def _read(folder: Path, row: CtIchSlice) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    bone = folder / row.bone_file if row.bone_file else None
    pixels = read_hounsfield(folder / row.brain_file, bone, image_id=row.image_id)
    if row.mask_file is None:
        return pixels, np.zeros(pixels.shape, dtype=bool)
    mask = read_mask(folder / row.mask_file)
    if mask.shape != pixels.shape:
        msg = f"{row.mask_file}: a mask of {mask.shape} for a slice of {pixels.shape}. Restore it from the release"
        raise DataError(msg)
    return pixels, mask


def _manifest_rows(slices: Iterable[CtIchSlice]) -> list[dict[str, object]]:
    return [
        {
            "image_id": row.image_id,
            "patient_id": row.patient_id,
            "study_id": row.patient_id,
            "series_id": row.patient_id,
            "index": index,
            "masked": row.mask_file is not None,
            **dict(zip((label.value for label in LABELS), row.labels, strict=True)),
        }
        for index, row in enumerate(slices)
    ]
