"""Slice geometry: the normal of the plane, the position along it, and the tilt. Millimetres, patient system (LPS).

The normal of axial slices points to the head (superior), so that positions increase from feet to head; for other
planes it points along the nearest positive axis (PS3.3 C.7.6.2.1.1).
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hemoscope.dicom.slices import SliceHeader

Vector = tuple[float, float, float]
PLANES = ("sagittal", "coronal", "axial")
SAME_PLACE_MM = 0.01
# Slices are parallel if neither their rows nor their columns differ by more: more than rounding and jitter of the
# table, less than another tilt of the gantry.
PARALLEL_DEGREES = 0.5


def normal(orientation: Sequence[float]) -> Vector:
    """Return the unit normal of a plane given by row and column direction cosines, pointing along the positive axis."""
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.hypot(x, y, z)
    sign = math.copysign(1.0, max((x, y, z), key=abs))
    return (sign * x / length, sign * y / length, sign * z / length)


def plane(orientation: Sequence[float]) -> str:
    """Return ``axial``, ``coronal`` or ``sagittal``: the plane nearest to a slice."""
    cosines = [abs(component) for component in normal(orientation)]
    return PLANES[cosines.index(max(cosines))]


def tilt_degrees(orientation: Sequence[float]) -> float:
    """Return the angle between a slice and the plane nearest to it, 0 to about 55 degrees."""
    return math.degrees(math.acos(min(1.0, max(abs(component) for component in normal(orientation)))))


def parallel_groups(headers: Sequence[SliceHeader]) -> list[int]:
    """Number the groups of parallel slices, from 0 in the order of their first slice.

    A slice without orientation is in the largest group: it lacks a value, which is no other orientation.

    Two slices are in one group if a chain of slices connects them, each within ``PARALLEL_DEGREES`` of the next: no
    rounding, so that no value lies on an edge between two groups.
    """
    found = list(dict.fromkeys(header.orientation for header in headers))
    known = [orientation for orientation in found if orientation is not None]
    vectors = np.array(known, dtype=np.float64).reshape(-1, 2, 3)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    chord = 2 * math.sin(math.radians(PARALLEL_DEGREES) / 2)
    left = np.ones(len(known), dtype=bool)
    group_of: dict[object, int] = {}
    for first in range(len(known)):
        if not left[first]:
            continue
        left[first] = False
        waiting = [first]
        while waiting:
            one = waiting.pop()
            group_of[known[one]] = first
            apart = np.linalg.norm(vectors - vectors[one], axis=2).max(axis=1)
            near = np.flatnonzero(left & (apart <= chord)).tolist()
            left[near] = False
            waiting += near
    sizes = Counter(group_of[header.orientation] for header in headers if header.orientation is not None)
    group_of[None] = min(sizes, key=lambda group: (-sizes[group], group), default=0)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(group_of[one] for one in found))}
    return [numbers[group_of[header.orientation]] for header in headers]


def position_mm(header: SliceHeader) -> float | None:
    """Return the position of a slice along its normal, or None if position or orientation is unknown."""
    if header.position_mm is None or header.orientation is None:
        return None
    return _along(header.position_mm, normal(header.orientation))


def measured_positions(headers: Sequence[SliceHeader]) -> list[float | None]:
    """Return the position of each slice along one normal, that of the most frequent orientation; None if unknown.

    Slices of one orientation are placed by their first pixel, others by their centre: a small angle moves the first
    pixel, which is far from the centre of the head, by more than a slice.
    """
    known = Counter(header.orientation for header in headers if header.orientation is not None)
    if len(known) < 2:
        return [position_mm(header) for header in headers]
    _, frequent = min((-count, orientation) for orientation, count in known.items())
    axis = normal(frequent)
    return [None if (point := centre_mm(header)) is None else _along(point, axis) for header in headers]


def known_positions(headers: Sequence[SliceHeader]) -> list[float] | None:
    """Return the position of every slice, or None unless all are known and not all the same.

    Without positions, Slice Location (0020,1041) places the slices: relative to an unknown origin.
    """
    for places in (measured_positions(headers), [header.slice_location_mm for header in headers]):
        known = [place for place in places if place is not None]
        if known and len(known) == len(headers) and (len(known) == 1 or max(known) - min(known) > SAME_PLACE_MM):
            return known
    return None


def centre_mm(header: SliceHeader) -> Vector | None:
    """Return the (x, y, z) of a slice's centre, or None if position or orientation is unknown."""
    if header.position_mm is None or header.orientation is None:
        return None
    rows_mm, columns_mm = header.pixel_spacing_mm or (0.0, 0.0)
    right, down = (header.columns - 1) / 2 * columns_mm, (header.rows - 1) / 2 * rows_mm
    row, column = header.orientation[:3], header.orientation[3:]
    x, y, z = (p + right * r + down * c for p, r, c in zip(header.position_mm, row, column, strict=True))
    return (x, y, z)


def spacing_mm(positions: Sequence[float]) -> float | None:
    """Return the median distance between adjacent positions in ascending order; None for fewer than two."""
    steps = sorted(after - before for before, after in pairwise(positions))
    if not steps:
        return None
    middle = len(steps) // 2
    return steps[middle] if len(steps) % 2 else (steps[middle - 1] + steps[middle]) / 2


def _along(point: Vector, axis: Vector) -> float:
    return sum(a * b for a, b in zip(point, axis, strict=True))
