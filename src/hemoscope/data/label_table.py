"""A table of labels: one row an image, with the columns ``image_id``, ``patient_id`` and the six labels.

An empty label is unknown, not negative.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import DataError, MissingExtraError
from hemoscope.labels import LABELS


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Images in the table's order; ``labels`` is float64 (n, 6) of 0, 1 or NaN (unknown)."""

    image_ids: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.float64]


def read_labels(path: Path) -> LabelTable:
    """Read a table of labels as CSV.

    Raises:
        DataError: a column is absent, an image stands twice, or a label is neither 0, 1 nor empty.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError(package="pandas", extra="study") from error

    try:
        table = pd.read_csv(path, dtype={"image_id": str, "patient_id": str})
    except (OSError, ValueError) as error:
        msg = f"{path.name}: not a readable CSV table ({error})"
        raise DataError(msg) from error
    names = [label.value for label in LABELS]
    absent = [name for name in ("image_id", "patient_id", *names) if name not in table.columns]
    if absent:
        msg = f"{path.name} lacks the columns {', '.join(absent)}. It needs image_id, patient_id and the six labels"
        raise DataError(msg)
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        msg = f"{path.name}: {twice.iloc[0]} stands twice. Keep one row an image"
        raise DataError(msg)
    labels = table[names].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~(np.isin(labels, (0.0, 1.0)) | table[names].isna().to_numpy())
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        msg = f"{path.name}: {table['image_id'].iloc[row]} has {names[column]} neither 0, 1 nor empty"
        raise DataError(msg)
    return LabelTable(
        image_ids=tuple(table["image_id"]), patients=tuple(table["patient_id"].astype(str)), labels=labels
    )
