"""Brings slices of united stacks to one grid: rows, columns, pixel spacing and storage of a reference slice.

A volume has one array. Stacks that differ only in tilt need nothing; slices of another size or field of view are
resampled in their own plane, bilinear and antialiased, with air around them. Millimetres, patient system (LPS).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.geometry import centre_mm
from hemoscope.dicom.slices import SliceHeader
from hemoscope.volume import AxisChange, Point

# Pixel spacings that differ by less are one: files round them.
_SAME_SPACING = 0.005
# Slices whose spacing differs by a larger factor are not brought to one grid: one of the two is wrong.
_LARGEST_FACTOR = 8.0
# Of fields of view within this share of the largest, that of the most slices is the reference.
_SAME_FIELD = 0.95
_AIR = -1000.0


def same_grid(one: SliceHeader, other: SliceHeader) -> bool:
    """Whether two slices have the same rows, columns and pixel spacing; a missing spacing is that of the other."""
    if (one.rows, one.columns) != (other.rows, other.columns):
        return False
    mine, theirs = one.pixel_spacing_mm, other.pixel_spacing_mm
    if mine is None or theirs is None:
        return True
    return all(abs(a - b) <= _SAME_SPACING * b for a, b in zip(mine, theirs, strict=True))


def comparable(one: SliceHeader, other: SliceHeader) -> bool:
    """Whether slices can be brought to one grid: it is the same, or their spacings are known and not too different."""
    if same_grid(one, other):
        return True
    mine, theirs = one.pixel_spacing_mm, other.pixel_spacing_mm
    if mine is None or theirs is None:
        return False
    factors = [a / b for a in mine for b in theirs]
    return min(factors) >= 1 / _LARGEST_FACTOR and max(factors) <= _LARGEST_FACTOR


def is_on_grid(header: SliceHeader, reference: SliceHeader) -> bool:
    """Whether a slice has the grid of the reference: the same size, spacing and storage of rows and columns."""
    same_storage = AxisChange.of(header.orientation) == AxisChange.of(reference.orientation)
    return same_storage and same_grid(header, reference)


def reference_slice(headers: Sequence[SliceHeader]) -> SliceHeader:
    """Return the slice whose grid a volume of these slices has: of the largest field of view, so that none is cut."""
    grids: list[list[SliceHeader]] = []
    for header in headers:
        fitting = next((grid for grid in grids if is_on_grid(header, grid[0])), None)
        if fitting is None:
            grids.append([header])
        else:
            fitting.append(header)
    largest = max(_field_mm2(grid[0]) for grid in grids)
    return max((grid for grid in grids if _field_mm2(grid[0]) >= _SAME_FIELD * largest), key=len)[0]


def on_grid(hounsfield: NDArray[np.float32], header: SliceHeader, reference: SliceHeader) -> NDArray[np.float32]:
    """Return one slice (rows, columns) on the grid of the reference slice; unchanged if it has that grid."""
    if is_on_grid(header, reference):
        return hounsfield
    from PIL import Image  # needed for united stacks only

    mine, change = AxisChange.of(header.orientation), AxisChange.of(reference.orientation)
    turned = change.undo(mine.apply(hounsfield))
    spacing = _spacing(header, exchanged=mine.exchanged != change.exchanged)
    pads, box = [], []
    for axis, moved in enumerate(_moved_mm(header, reference)):
        count, mm = turned.shape[axis], spacing[axis]
        low, high = _edges(count, mm, _shape(reference)[axis], _spacing(reference)[axis], moved)
        before, after = max(math.ceil(-low), 0), max(math.ceil(high) - count, 0)
        pads.append((before, after))
        box.append((low + before, high + before))
    padded = np.pad(turned, pads, constant_values=_AIR)
    image = Image.fromarray(np.ascontiguousarray(padded, dtype=np.float32))
    (top, bottom), (left, right) = box
    size = (reference.columns, reference.rows)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)), dtype=np.float32)


def origin_on_grid(header: SliceHeader, reference: SliceHeader) -> Point | None:
    """Return the place of the first pixel of a slice that ``on_grid`` has brought to the grid of the reference."""
    centre = centre_mm(header)
    if is_on_grid(header, reference) or centre is None or header.orientation is None:
        return header.position_mm
    row, column = np.array(header.orientation, dtype=np.float64).reshape(2, 3)
    change = AxisChange.of(reference.orientation)
    row, column = change.undo_directions(*AxisChange.of(header.orientation).apply_directions(row, column))
    (down_mm, right_mm), (rows_mm, columns_mm) = _moved_mm(header, reference), _spacing(reference)
    down = down_mm + (reference.rows - 1) / 2 * rows_mm
    right = right_mm + (reference.columns - 1) / 2 * columns_mm
    x, y, z = (np.array(centre) - down * column - right * row).tolist()
    return x, y, z


def _shape(header: SliceHeader) -> tuple[int, int]:
    return header.rows, header.columns


def _spacing(header: SliceHeader, *, exchanged: bool = False) -> tuple[float, float]:
    rows_mm, columns_mm = header.pixel_spacing_mm or (1.0, 1.0)
    return (columns_mm, rows_mm) if exchanged else (rows_mm, columns_mm)


def _field_mm2(header: SliceHeader) -> float:
    rows_mm, columns_mm = _spacing(header)
    return header.rows * rows_mm * header.columns * columns_mm


def _moved_mm(header: SliceHeader, reference: SliceHeader) -> tuple[float, float]:
    """Return how far the centre of a slice lies down and right of that of the reference, in the picture.

    Measured along the patient's axes, since the stacks are moved along the table, not along the normal of a tilt.
    """
    mine, theirs = centre_mm(header), centre_mm(reference)
    if mine is None or theirs is None or reference.orientation is None:
        return 0.0, 0.0
    found = []
    for direction in (reference.orientation[3:], reference.orientation[:3]):
        axis = max(range(3), key=lambda k, of=direction: abs(of[k]))  # type: ignore[misc]
        found.append((mine[axis] - theirs[axis]) * (1 if direction[axis] > 0 else -1))
    return found[0], found[1]


def _edges(count: int, spacing: float, grid_count: int, grid_spacing: float, moved_mm: float) -> tuple[float, float]:
    """Return where the edges of the grid lie in pixels of the slice, along one axis."""
    half = grid_count / 2 * grid_spacing
    return (-half - moved_mm) / spacing + count / 2, (half - moved_mm) / spacing + count / 2
