"""CT-ICH (Hssayeni et al. 2020, Data 5(1):14): Hounsfield units from two windowed JPEGs per slice.

The release has 8-bit JPEGs of a brain window (level 40, width 120) and a bone window (level 700, width 3200). Both
windows were checked against each other and against tissue: within 60 to 200 of the brain JPEG the two agree to
1-2 HU in 81 of 82 patients and brain peaks at 30-41 HU. The exception is patient 050, whose bone JPEGs read 90 HU too
low compared with the brain JPEGs; for these the level is 790. (Its brain peaks at up to 50 HU: its brain window is
probably not exact either.)
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hemoscope.errors import DataError
from hemoscope.inference.card import TrainingData
from hemoscope.inference.preprocess import AIR
from hemoscope.inference.windows import Window
from hemoscope.labels import LABELS

DATASET = TrainingData(
    name="CT-ICH",
    version="1.3.0 or earlier: the release of 82 patients as JPEG",
    doi="10.13026/w8q8-ky94",
    license="CC BY 4.0",
    attribution=(
        "Hssayeni MD, Croock MS, Salman AD, Al-khafaji HF, Yahya ZA, Ghoraani B. Intracranial Hemorrhage Segmentation "
        "Using a Deep Convolutional Model. Data 2020;5(1):14"
    ),
    changes="Hounsfield units rebuilt from two windowed JPEG images per slice, dithered; cropped to the head; resized",
)
BRAIN_JPEG = Window(center=40.0, width=120.0)
BONE_JPEG = Window(center=700.0, width=3200.0)
_BONE_LEVELS = {"ctich_050": 790.0}

# JPEG rings near saturation: the last few grey values of the brain window are not used.
_DARK, _BRIGHT = 3, 250


@dataclass(frozen=True, slots=True, kw_only=True)
class CtIchSlice:
    """One row of CT-ICH's label table: file paths relative to its folder, six labels in label order."""

    image_id: str
    patient_id: str
    number: int
    brain_file: str
    bone_file: str | None
    mask_file: str | None
    labels: tuple[int, ...]


def read_table(folder: Path) -> tuple[CtIchSlice, ...]:
    """Read ``labels.csv`` of the folder, sorted by patient and slice number (from the neck up).

    Raises:
        DataError: the table is missing or lacks a column.
    """
    import pandas as pd

    path = folder / "labels.csv"
    if not path.is_file():
        msg = f"{path.name} is not in the given folder. Give the CT-ICH folder that holds labels.csv and patients/"
        raise DataError(msg)
    table = pd.read_csv(path, keep_default_na=False)
    needed = ["image_id", "patient_id", "slice", "brain_file", "bone_file", "mask_file", *LABELS]
    absent = [name for name in needed if name not in table.columns]
    if absent:
        msg = f"{path.name} lacks the columns {', '.join(absent)}. Use the labels.csv of the 82-patient JPEG release"
        raise DataError(msg)
    return tuple(_rows(table.sort_values(["patient_id", "slice"]).to_dict("records")))


def read_hounsfield(brain: Path, bone: Path | None, *, image_id: str) -> NDArray[np.int16]:
    """Return one slice in HU, int16, shape (rows, columns).

    Brain grey values between 3 and 250 give HU in steps of 0.5; other pixels use the bone window, in steps of 12.5.
    Both are dithered uniformly by half a step, seeded by the image id, so that no network learns the steps. Without a
    bone image, values outside the brain window are set to its ends (-1000 below, 100 above).

    Raises:
        DataError: an image cannot be read, or the two differ in size.
    """
    grey = _grey(brain)
    rng = np.random.default_rng(zlib.crc32(image_id.encode()))
    dither = rng.uniform(-0.5, 0.5, size=grey.shape)
    soft = _unwindow(grey + dither, BRAIN_JPEG)
    if bone is None:
        hard = np.where(grey < _DARK, float(AIR), BRAIN_JPEG.bounds[1])
    else:
        coarse = _grey(bone)
        if coarse.shape != grey.shape:
            msg = f"{bone.name}: bone image of {coarse.shape} pixels for a brain image of {grey.shape}"
            raise DataError(msg)
        level = _BONE_LEVELS.get(image_id.rpartition("_")[0], BONE_JPEG.center)
        hard = _unwindow(coarse + dither, Window(center=level, width=BONE_JPEG.width))
        hard = np.where(coarse <= 1, float(AIR), hard)
    low, high = BRAIN_JPEG.bounds
    below, above = grey < _DARK, grey > _BRIGHT
    mixed = np.where(above, np.maximum(hard, high - 2), np.where(below, np.minimum(hard, low), soft))
    return np.rint(mixed).astype(np.int16)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a lesion mask, bool, shape (rows, columns). Raises DataError if it cannot be read."""
    return _grey(path) > 127


def _rows(records: list[dict[str, str]]) -> Iterator[CtIchSlice]:
    for record in records:
        yield CtIchSlice(
            image_id=str(record["image_id"]),
            patient_id=str(record["patient_id"]),
            number=int(record["slice"]),
            brain_file=str(record["brain_file"]),
            bone_file=str(record["bone_file"]) or None,
            mask_file=str(record["mask_file"]) or None,
            labels=tuple(int(record[label]) for label in LABELS),
        )


def _unwindow(grey: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    low, _ = window.bounds
    return low + grey * (window.width / 255.0)


def _grey(path: Path) -> NDArray[np.float64]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"), dtype=np.float64)
    except (OSError, UnidentifiedImageError) as error:
        msg = f"{path.name}: not a readable image ({type(error).__name__}). Restore the file from the release"
        raise DataError(msg) from error
