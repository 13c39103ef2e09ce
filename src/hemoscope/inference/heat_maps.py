"""Heat maps: where in a slice the model saw a label, as local probabilities laid over the slice."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemoscope.inference.calibration import AnyCalibration
from hemoscope.inference.preprocess import Box
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import PerLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Where the model saw one label: local probabilities in [0, 1], shape (rows, columns), laid over ``box``."""

    values: NDArray[np.float32]
    box: Box

    def __post_init__(self) -> None:
        """Reject anything that is not a map of probabilities."""
        if self.values.ndim != 2 or not np.all((self.values >= 0.0) & (self.values <= 1.0)):
            msg = f"a heat map needs two axes and values in [0, 1], got shape {self.values.shape}"
            raise ValueError(msg)


def local_probabilities(
    maps: NDArray[np.float32], calibration: PerLabel[AnyCalibration], established: PerLabel[bool]
) -> NDArray[np.float32]:
    """Turn the map logits of one slice into local probabilities in [0, 1], (6, height, width).

    A map's logits are in the units of the slice logits pooled from them, so the slice calibrations apply. Each place is
    made consistent as slices are (``probabilities.consistent``): where no hemorrhage is seen, none of a type is either.

    Args:
        maps: class-activation logits, shape (6, height, width).
        calibration: of the slice logits.
        established: which labels the card's validation supports.
    """
    places = consistent(calibrated(np.moveaxis(maps, 0, -1).astype(np.float64), calibration), established)
    return np.ascontiguousarray(np.moveaxis(np.clip(places, 0.0, 1.0), -1, 0), dtype=np.float32)


def heat_on_slice(heat: HeatMap, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Lay a heat map over the slice: bilinear inside its box, 0 outside it; float32 of ``shape`` (rows, columns)."""
    box = heat.box
    smooth = Image.fromarray(heat.values.astype(np.float32)).resize((box.columns, box.side), Image.Resampling.BILINEAR)
    slice_rows, box_rows = _shared(box.top, box.side, shape[0])
    slice_columns, box_columns = _shared(box.left, box.columns, shape[1])
    laid = np.zeros(shape, dtype=np.float32)
    laid[slice_rows, slice_columns] = np.asarray(smooth)[box_rows, box_columns]
    return np.clip(laid, 0.0, 1.0, out=laid)


def peak_distance(values: NDArray[np.floating], box: Box, outline: NDArray[np.bool_]) -> float | None:
    """Return how far the highest cell of a map lies from an outline, in pixels of the slice; 0 inside it.

    Args:
        values: logits or probabilities of one label, shape (height, width).
        box: the part of the slice that the map covers.
        outline: bool of the slice's shape (rows, columns).

    Returns:
        The distance from the middle of the cell to the nearest pixel of the outline; None if the outline is empty.
    """
    rows, columns = np.nonzero(outline)
    if not rows.size:
        return None
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    height, width = box.side / values.shape[0], box.columns / values.shape[1]
    middle = box.top + (row + 0.5) * height, box.left + (column + 0.5) * width
    # A pixel extends half a pixel to either side of its own middle.
    away = [np.maximum(np.abs(place + 0.5 - at) - 0.5, 0.0) for place, at in zip((rows, columns), middle, strict=True)]
    return float(np.hypot(*away).min())


def _shared(start: int, side: int, length: int) -> tuple[slice, slice]:
    """Return what a box and an axis of ``length`` pixels share: in pixels of the slice, and of the box."""
    first, last = max(start, 0), max(min(start + side, length), start, 0)
    return slice(first, last), slice(first - start, last - start)
