"""Which slices are averaged, and which are neighbours, by their place along z and their thickness.

A series may change its thickness on the way up (thin slices of the posterior fossa below thick ones). The spacing is
therefore that of each slice, where it differs clearly from the typical one of its series. Millimetres.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hemoscope.volume import HounsfieldVolume

Floats = NDArray[np.float64]

# A spacing within these factors of the typical one is the typical one: positions are rounded, and slices are missing.
_TYPICAL = (0.5, 1.5)


def local_spacings(positions_mm: Floats, typical_mm: float) -> Floats:
    """Return the spacing around each slice, shape (slices,): the smaller distance to the next place on either side.

    Args:
        positions_mm: of the slices in any order, shape (slices,).
        typical_mm: of the series.
    """
    places, index = np.unique(positions_mm, return_inverse=True)
    if len(places) < 2:
        return np.full(len(positions_mm), typical_mm)
    steps = np.diff(places)
    nearest = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
    usual = (nearest > _TYPICAL[0] * typical_mm) & (nearest < _TYPICAL[1] * typical_mm)
    return np.asarray(np.where(usual, typical_mm, nearest)[index], dtype=np.float64)


def slab_bounds(volume: HounsfieldVolume, index: int, slab_mm: float | None) -> tuple[int, int]:
    """Return the first and the last slice to average into a slab of about ``slab_mm`` around a slice.

    A slice as thick as the slab is never averaged, neither with others nor into their slabs.
    """
    spacings = _spacings(volume)
    if slab_mm is None or spacings is None:
        return index, index
    reach = _reach(spacings, slab_mm)
    alone = (reach < 1) | _thick(volume, slab_mm)
    if alone[index]:
        return index, index
    positions = _positions(volume, spacings)
    farthest = (reach[index] + 0.5) * spacings[index]
    averaged = (np.abs(positions - positions[index]) <= farthest) & ~alone
    below, above = np.flatnonzero(~averaged[:index]), np.flatnonzero(~averaged[index:])
    first = int(below[-1]) + 1 if len(below) else 0
    last = index + int(above[0]) - 1 if len(above) else len(volume) - 1
    return first, last


def neighbour_indices(volume: HounsfieldVolume, index: int, count: int, slab_mm: float | None) -> list[int]:
    """Return a slice with ``count`` neighbours on either side, from below to above, about a slab apart from each other.

    Thick slices are apart by their spacing. Beyond the end of the series or a gap, the last slice before is repeated.
    """
    spacings = _spacings(volume)
    if slab_mm is None or spacings is None:
        return [min(max(index + number, 0), len(volume) - 1) for number in range(-count, count + 1)]
    positions = _positions(volume, spacings)
    reach, spacing = int(_reach(spacings, slab_mm)[index]), float(spacings[index])
    # Slices of 2.5 mm are not averaged, and the next one is half as far as in training.
    step = spacing * (2 * reach + 1 if reach else max(round(slab_mm / spacing), 1))
    return [_nearest(positions, index, number, step) for number in range(-count, count + 1)]


def _nearest(positions: Floats, index: int, number: int, step: float) -> int:
    """Return the slice nearest to ``number`` steps away, on that side of the slice and less than a step beyond."""
    farthest = (abs(number) + 1) * step
    side = (positions - positions[index]) * np.sign(number)
    reachable = np.flatnonzero((side > 0) & (side < farthest))
    if not len(reachable):
        return index
    return int(reachable[np.abs(side[reachable] - abs(number) * step).argmin()])


def _reach(spacings: Floats, slab_mm: float) -> NDArray[np.intp]:
    """Return the number of slices on either side for a slab of about this thickness; 0 for thick slices."""
    return np.asarray(np.maximum(np.rint((slab_mm / spacings - 1) / 2), 0), dtype=np.intp)


def _thick(volume: HounsfieldVolume, slab_mm: float) -> NDArray[np.bool_]:
    thickness: Sequence[float | None] = volume.thickness_mm or (None,) * len(volume)
    return np.array([mm is not None and mm >= slab_mm for mm in thickness], dtype=bool)


def _spacings(volume: HounsfieldVolume) -> Floats | None:
    """Return the spacing around each slice, or None if it is unknown."""
    typical = volume.slice_spacing_mm
    if typical is None or typical <= 0:
        return None
    if None in volume.positions_mm:
        return np.full(len(volume), typical)
    return local_spacings(np.array(volume.positions_mm, dtype=np.float64), typical)


def _positions(volume: HounsfieldVolume, spacings: Floats) -> Floats:
    if None in volume.positions_mm:
        return np.arange(len(volume)) * spacings
    return np.array(volume.positions_mm, dtype=np.float64)
