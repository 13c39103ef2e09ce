"""Replaces small objects inside the skull that are denser than blood by what surrounds them: calcium, metal, catheters.

Clotted blood reaches about 100 HU. A calcified pineal gland or choroid plexus has more, and so do a clip and a
catheter, but their edges are mixed with brain and have what blood has. Both are therefore replaced: what is denser than
100 HU, and around it what is denser than brain. What touches the skull stays, because the skull's edge cannot be told
from calcium.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DENSE_HU = 100  # at most .08 of the outlined bleed of any patient of CT-ICH is denser (median over its slices)
_CALCIUM_HU = 130  # reached somewhere in an object; noise alone brings blood above 100
_BRAIN_HU = 60
_AIR_HU = -100
_SIDES = 7
_LEAST_SKULL = 0.01  # of the slice
_LARGEST = 0.004  # of the slice: a disk of 7 mm radius in the crop of an adult's head
_EDGE = 0.012  # width of the edge, as a share of the slice's side: 3 of 256 pixels, 2.5 mm
_RING = 0.016  # of the surroundings that are measured
_SQUARE = np.ones((3, 3), dtype=bool)


def without_dense_objects(hounsfield: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the crop of a head (S, S) in HU with small dense objects inside the skull replaced.

    Each becomes the median of the tissue around it. Without a skull around, nothing changes.
    """
    from scipy import ndimage  # slow to import, and not needed to show a card

    regions, count = ndimage.label(hounsfield > _DENSE_HU, structure=_SQUARE)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    skull = int(sizes.argmax())
    if sizes[skull] < _LEAST_SKULL * regions.size:
        return hounsfield
    small = [
        (number, place)
        for number, place in enumerate(ndimage.find_objects(regions), 1)
        if number != skull and place is not None and sizes[number] <= _LARGEST * regions.size
    ]
    found = hounsfield
    for number, place in small:
        denser = hounsfield[place][regions[place] == number].max() > _CALCIUM_HU
        if denser and _enclosed(regions == skull, *((one.start + one.stop - 1) // 2 for one in place)):
            found = hounsfield.copy() if found is hounsfield else found
            _replace(found, hounsfield, regions, number, place)
    return found


def _enclosed(skull: NDArray[np.bool_], row: int, column: int) -> bool:
    """Whether the skull lies in at least seven of eight directions: sutures, fractures and craniotomies leave gaps."""
    after = skull[row:, column:]
    quarters = (after, skull[row:, column::-1], skull[row::-1, column:], skull[row::-1, column::-1])
    straight = (after[0], after[:, 0], skull[row, column::-1], skull[row::-1, column])
    return sum(map(np.any, (*straight, *map(np.diagonal, quarters)))) >= _SIDES


def _replace(
    found: NDArray[np.float32], hounsfield: NDArray[np.float32], regions: NDArray[Any], number: int, place: Any
) -> None:
    """Write the median of the surroundings into ``found`` where the object and its edge are."""
    from scipy import ndimage

    side = len(hounsfield)
    edge, ring = max(round(_EDGE * side), 1), max(round(_RING * side), 1)
    reach = edge + ring + 1
    part = tuple(slice(max(one.start - reach, 0), min(one.stop + reach, side)) for one in place)
    values, object_ = hounsfield[part], regions[part] == number
    whole = ndimage.binary_dilation(object_, _SQUARE, iterations=edge, mask=object_ | (values > _BRAIN_HU))
    whole &= (regions[part] == number) | (regions[part] == 0)
    near = ndimage.binary_dilation(whole, _SQUARE)
    around = ndimage.binary_dilation(near, _SQUARE, iterations=ring) & ~near
    tissue = values[around & (values > _AIR_HU) & (values < _DENSE_HU)]
    if tissue.size:
        found[part][whole] = np.median(tissue)
