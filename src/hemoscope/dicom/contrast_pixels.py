"""Looks for contrast agent in the pixels: how bright the superior sagittal sinus is.

The sinus runs at the midline inside the back of the skull. Without contrast, blood in it has 40 to 70 HU. What lies
within 2.4 mm of bone is not looked at, since bone is averaged into it. Lengths are relative to the skull, because the
spacing may be unknown.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.metal import SIDE
from hemoscope.dicom.skull import SKULL, between
from hemoscope.volume import HounsfieldVolume

__all__ = ["BRIGHT", "sinus_hounsfield"]

# Plain series have up to 68 HU, up to 72 with noise of 30 HU added; the one series with contrast has 84 or more.
BRIGHT = 78.0
_SLICES, _LEAST_SLICES = 24, 5
_SKULL_MM = 180.0
_BLOCK_MM, _BONE_MM = 1.2, 2.4
_FRONT_MM, _SIDE_MM = 20.0, 12.0  # reach of the window from the back of the skull, and to each side of the midline
_LEAST_MM2 = 60.0
_PERCENTILE = 97  # the sinus fills a small part of the window


def sinus_hounsfield(volume: HounsfieldVolume) -> float | None:
    """Return the median over slices of the brightest HU of the sinus, or None if too few slices show a closed skull."""
    canonical = volume.canonical
    some = canonical.hounsfield[:: -(-len(volume) // _SLICES)]
    step = max(1, -(-max(some.shape[1:]) // SIDE))
    bone = some[:, ::step, ::step] > SKULL
    inside = between(bone) & ~bone
    closed = np.flatnonzero(inside.mean(axis=(1, 2)) > 0.05)
    if closed.size < _LEAST_SLICES:
        return None
    lengths = [np.ptp(np.flatnonzero(one.any(1))) + 1 for one in bone[closed]]
    row_mm = _SKULL_MM / (float(np.percentile(lengths, 95)) * step)
    pixel_mm = (row_mm, row_mm / canonical.pixel_aspect)
    found = [values for index in closed for values in _around_sinus(some[index], inside[index], step, pixel_mm)]
    if len(found) < _LEAST_SLICES:
        return None
    return float(np.median([np.percentile(values, _PERCENTILE) for values in found]))


def _around_sinus(
    one: NDArray[np.int16], inside: NDArray[np.bool_], step: int, pixel_mm: tuple[float, float]
) -> Iterator[NDArray[np.float32]]:
    """Yield the means of small blocks around the sinus in one slice, away from bone; nothing if they are too few."""
    row_mm, column_mm = pixel_mm
    columns = np.flatnonzero(inside.any(0))
    middle = (columns[0] + columns[-1]) // 2
    rows = np.flatnonzero(inside[:, middle])
    if not rows.size:
        return
    back, center = int(rows[-1]) * step, int(middle) * step
    top, left = max(0, back - round(_FRONT_MM / row_mm)), max(0, center - round(_SIDE_MM / column_mm))
    # Three steps more, so that the window ends in bone.
    crop = one[top : back + 4 * step, left : center + round(_SIDE_MM / column_mm)]
    high, wide = (max(1, round(_BLOCK_MM / mm)) for mm in pixel_mm)
    blocks = _means(crop, high, wide)
    bone = blocks > SKULL
    reach = round(_BONE_MM / (high * row_mm)), round(_BONE_MM / (wide * column_mm))
    values = blocks[~np.logical_or.accumulate(bone, 0) & ~_beside(bone, *reach)]
    if values.size * high * row_mm * wide * column_mm > _LEAST_MM2:
        yield values


def _means(values: NDArray[np.int16], high: int, wide: int) -> NDArray[np.float32]:
    """Return the means of blocks of pixels; what does not fill a block is left out."""
    rows, columns = values.shape[0] // high, values.shape[1] // wide
    whole = values[: rows * high, : columns * wide].astype(np.float32)
    return np.asarray(whole.reshape(rows, high, columns, wide).mean((1, 3)), dtype=np.float32)


def _beside(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.bool_]:
    """Return the mask and what lies within so many rows above and below, or columns to the sides."""
    result = mask.copy()
    for shift in range(1, max(rows, 1) + 1):
        result[shift:] |= mask[:-shift]
        result[:-shift] |= mask[shift:]
    across = result.copy()
    for shift in range(1, max(columns, 1) + 1):
        across[:, shift:] |= result[:, :-shift]
        across[:, :-shift] |= result[:, shift:]
    return across
