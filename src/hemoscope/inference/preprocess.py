"""Preprocessing from Hounsfield units to model input, shared by training and serving.

The order is: average thin slices to the thickness of the training data, resample to square pixels, set what lies beside
the head to air (if the settings say so), crop a square around the head, resize the Hounsfield units, then apply the
windows. Volumes are in the radiological convention (``HounsfieldVolume.canonical``); ``box_on_slice`` leads back to the
slices as stored. HU are resized before windowing because HU are the physical, linear quantity: mixing bone and brain
gives what a coarser scanner would have measured, while mixing windowed bone (cut off at 80 HU) and brain would paint a
rim of blood-like values along the skull.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemoscope.inference.head_mask import kept_pixels
from hemoscope.inference.regions import largest_region, opened
from hemoscope.inference.slabs import neighbour_indices, slab_bounds
from hemoscope.inference.windows import BONE, BRAIN, SUBDURAL, Window
from hemoscope.volume import AxisChange, HounsfieldVolume

AIR = -1000
Crop = Literal["none", "head"]
Outside = Literal["kept", "air"]

# The head is detected on every fourth pixel: fast, and thin objects such as a headrest disappear.
_STRIDE = 4
_TISSUE_HU = -150
_LEAST_HEAD = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A square region of a slice; it may extend beyond the image, where air is assumed.

    Attributes:
        top: first row.
        left: first column.
        side: number of rows, and of columns if pixels are square.
        width: number of columns if pixels are not square, else None.
    """

    top: int
    left: int
    side: int
    width: int | None = None

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.side if self.width is None else self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Settings of the preprocessing, stored in the bundle's card and nowhere else.

    Attributes:
        windows: one channel each, for the slice and every neighbour.
        size: side of the square input in pixels.
        crop: ``head`` cuts a square around the head, ``none`` takes the whole slice (padded to a square).
        margin: added on each side of the head, as a share of its longer side.
        neighbours: slices below and above that are added as channels (0: the slice alone; 1: three slices). Of thin
            slices, the slabs below and above: a neighbour is as far away as it was in training.
        slab_mm: thin slices are averaged over about this many mm along z, because their noise and partial volume differ
            from thick training slices; None does not average.
        outside: ``air`` sets what lies beside the head (fingers, a head rest) to -1000 HU, see ``head_mask``; ``kept``
            leaves it, as do cards of earlier versions, which lack the key.
    """

    windows: tuple[Window, ...] = (BRAIN, SUBDURAL, BONE)
    size: int = 256
    crop: Crop = "head"
    margin: float = 0.06
    neighbours: int = 0
    slab_mm: float | None = 5.0
    outside: Outside = "kept"

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        if not self.windows:
            msg = "preprocessing needs at least one window"
            raise ValueError(msg)
        if not 16 <= self.size <= 2048:
            msg = f"input size must be 16 to 2048 pixels, got {self.size}"
            raise ValueError(msg)
        if self.crop not in get_args(Crop):
            msg = f"crop must be one of {', '.join(get_args(Crop))}, got {self.crop}"
            raise ValueError(msg)
        if self.outside not in get_args(Outside):
            msg = f"outside must be one of {', '.join(get_args(Outside))}, got {self.outside}"
            raise ValueError(msg)
        if not 0 <= self.margin <= 1 or not 0 <= self.neighbours <= 5:
            msg = f"margin must be 0 to 1 and neighbours 0 to 5, got {self.margin} and {self.neighbours}"
            raise ValueError(msg)
        if self.slab_mm is not None and not 0 < self.slab_mm <= 20:
            msg = f"slab thickness must be above 0 and at most 20 mm, got {self.slab_mm}"
            raise ValueError(msg)

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return len(self.windows) * (2 * self.neighbours + 1)

    def to_json(self) -> dict[str, Any]:
        """Return the settings for a card or an experiment's record."""
        return {
            "windows": [[window.center, window.width] for window in self.windows],
            "size": self.size,
            "crop": self.crop,
            "margin": self.margin,
            "neighbours": self.neighbours,
            "slab_mm": self.slab_mm,
            "outside": self.outside,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """Read the result of ``to_json``. Raises ValueError for unknown or missing keys; ``outside`` may be missing."""
        expected = set(cls().to_json())
        data = {"outside": cls().outside, **data}
        if set(data) != expected:
            msg = f"preprocessing needs exactly the keys {sorted(expected)}, got {sorted(data)}"
            raise ValueError(msg)
        windows = tuple(Window(center=float(center), width=float(width)) for center, width in data["windows"])
        return cls(**{**data, "windows": windows})


def model_input(volume: HounsfieldVolume, index: int, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the model's input for one slice.

    Returns:
        float32 in [0, 1], shape (channels, size, size). Channels run over the slices from below to above, and within
        a slice over the windows. A neighbour beyond either end repeats the end slice.

    Raises:
        IndexError: there is no such slice.
    """
    if not 0 <= index < len(volume):
        msg = f"slice {index} of a volume of {len(volume)}"
        raise IndexError(msg)
    box = slice_box(volume, index, preprocessing)
    return channels(stacked(volume, index, box, preprocessing), preprocessing)


def stacked(volume: HounsfieldVolume, index: int, box: Box, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return HU of a slice and its neighbours within the slice's box: float32 (stack, size, size), no windows."""
    inside = neighbour_indices(volume, index, preprocessing.neighbours, preprocessing.slab_mm)
    return np.stack([cropped(volume, i, box, preprocessing) for i in inside])


def channels(stack: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Convert a stack of HU (stack, size, size) to the model's channels: float32 in [0, 1], (channels, size, size)."""
    return np.concatenate([windowed(hounsfield, preprocessing) for hounsfield in stack])


def cropped(volume: HounsfieldVolume, index: int, box: Box, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return HU of one slice, or of the slab around a thin one, within a box: float32 (size, size), no windows."""
    slab = square_pixels(_slab(volume, index, preprocessing.slab_mm), volume)
    return resized(_without_outside(slab, volume, index, preprocessing), box, preprocessing.size)


def slice_box(volume: HounsfieldVolume, index: int, preprocessing: Preprocessing) -> Box:
    """Return the square that is the model's input, in square pixels of a volume in the radiological convention."""
    hounsfield = square_pixels(volume.part(index, index)[0], volume)
    if preprocessing.crop == "none":
        return _square((0, 0, *hounsfield.shape), margin=0.0)
    return head_box(_without_outside(hounsfield, volume, index, preprocessing), margin=preprocessing.margin)


def box_on_slice(volume: HounsfieldVolume, index: int, preprocessing: Preprocessing) -> Box:
    """Return the part of a slice, as stored, that is the model's input; heat maps cover it."""
    change, canonical = AxisChange.of(volume.orientation), volume.canonical
    box = slice_box(canonical, index, preprocessing)
    shape = canonical.hounsfield.shape[1:]
    (top, side), (left, width) = (
        (round(start * count / square), round(box.side * count / square))
        for start, count, square in zip(
            (box.top, box.left), shape, _square_shape(shape, canonical.pixel_aspect), strict=True
        )
    )
    top = shape[0] - top - side if change.rows_flipped else top
    left = shape[1] - left - width if change.columns_flipped else left
    if change.exchanged:
        top, left, side, width = left, top, width, side
    return Box(top=top, left=left, side=side, width=None if width == side else width)


def square_pixels(values: NDArray[Any], volume: HounsfieldVolume) -> NDArray[Any]:
    """Resample one slice (rows, columns) to square pixels, or return it unchanged if they are square.

    Pixels are averaged by area to the coarser of the two spacings (float32): what a scanner of that spacing measures.
    """
    rows, columns = _square_shape(values.shape, volume.pixel_aspect)
    if (rows, columns) == values.shape:
        return values
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BOX), dtype=np.float32)


def head_box(hounsfield: NDArray[Any], *, margin: float) -> Box:
    """Return a square around the head in one slice (rows, columns) of HU; the whole slice if no head is found.

    The head is the largest connected region denser than fat after an opening that removes headrest and cables.
    """
    coarse = hounsfield[::_STRIDE, ::_STRIDE] > _TISSUE_HU
    head = largest_region(opened(coarse))
    if head is None or head.size < _LEAST_HEAD * coarse.size:
        return _square((0, 0, *hounsfield.shape), margin=0.0)
    top, left, bottom, right = (edge * _STRIDE for edge in head.edges)
    return _square((top, left, bottom, right), margin=margin)


def resized(hounsfield: NDArray[Any], box: Box, size: int) -> NDArray[np.float32]:
    """Resize HU within a box to float32 (size, size): antialiased bilinear, padded with air."""
    rows, columns = hounsfield.shape
    bottom, right = box.top + box.side, box.left + box.columns
    inner = hounsfield[max(box.top, 0) : min(bottom, rows), max(box.left, 0) : min(right, columns)]
    square = np.full((box.side, box.columns), AIR, dtype=np.float32)
    row, column = max(-box.top, 0), max(-box.left, 0)
    square[row : row + inner.shape[0], column : column + inner.shape[1]] = inner
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)


def windowed(hounsfield: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Apply every window to HU (size, size): float32 in [0, 1], shape (windows, size, size)."""
    return np.stack([window.apply(hounsfield) for window in preprocessing.windows])


def _square(edges: tuple[int, int, int, int], *, margin: float) -> Box:
    top, left, bottom, right = edges
    side = max(round(max(bottom - top, right - left) * (1 + 2 * margin)), 1)
    return Box(top=(top + bottom - side) // 2, left=(left + right - side) // 2, side=side)


def _square_shape(shape: tuple[int, ...], pixel_aspect: float) -> tuple[int, int]:
    """Return rows and columns of a slice in square pixels; the aspect is height over width of a pixel."""
    rows, columns = shape
    return max(round(rows * min(pixel_aspect, 1.0)), 1), max(round(columns * min(1 / pixel_aspect, 1.0)), 1)


def _without_outside(
    hounsfield: NDArray[Any], volume: HounsfieldVolume, index: int, preprocessing: Preprocessing
) -> NDArray[Any]:
    """Set what lies beside the head to air in a slice or slab (rows, columns) of square pixels."""
    if preprocessing.outside == "kept":
        return hounsfield
    kept = kept_pixels(volume, index, preprocessing.slab_mm, partial(square_pixels, volume=volume))
    return hounsfield if kept is None else np.where(kept, hounsfield, np.asarray(AIR, dtype=hounsfield.dtype))


def _slab(volume: HounsfieldVolume, index: int, slab_mm: float | None) -> NDArray[np.int16] | NDArray[np.float32]:
    first, last = slab_bounds(volume, index, slab_mm)
    slab = volume.part(first, last)
    return np.asarray(slab[0] if first == last else slab.mean(axis=0, dtype=np.float32))
