"""Slice geometry: the normal of the plane, the position along it, and the tilt. Millimetres, patient system (LPS).

The normal of axial slices points to the head (superior), so that positions increase from feet to head; for other
planes it points along the nearest positive axis (PS3.3 C.7.6.2.1.1).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from hemoscope.dicom.slices import SliceHeader

Vector = tuple[float, float, float]
PLANES = ("sagittal", "coronal", "axial")


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


def position_mm(header: SliceHeader) -> float | None:
    """Return the position of a slice along its normal, or None if position or orientation is unknown."""
    if header.position_mm is None or header.orientation is None:
        return None
    return sum(a * b for a, b in zip(header.position_mm, normal(header.orientation), strict=True))


def spacing_mm(positions: Sequence[float]) -> float | None:
    """Return the median distance between adjacent positions in ascending order; None for fewer than two."""
    steps = sorted(after - before for before, after in pairwise(positions))
    if not steps:
        return None
    middle = len(steps) // 2
    return steps[middle] if len(steps) % 2 else (steps[middle - 1] + steps[middle]) / 2
