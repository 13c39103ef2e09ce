"""Where the head is in a slice, so that what lies beside it can become air: fingers, head rests, tubes, pillows.

In each slice, the head is the largest connected region of tissue. Another region belongs to it if it lies over or
under the head of an adjacent slice (the tip of an ear, of the nose, the chin), or if it is so large that it may be
part of a head that metal artifacts cut apart. What touches the head stays, because to keep an object is safer than to
cut the scalp; only a finger is separated from it: a small region with bone in it, joined to the head by a neck.
Regions are found on blocks of 4 x 4 pixels, which is fast and lets thin shells and cables disappear.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.inference.slabs import neighbour_indices
from hemoscope.volume import HounsfieldVolume

Slice = NDArray[Any]
Mask = NDArray[np.bool_]

_BLOCK = 4
_TISSUE_HU = -150
_BONE_HU = 250
_LEAST_HEAD = 0.01  # of the slice
_LIKE_A_HEAD = 0.6  # of the largest region; a head that metal artifacts cut apart
_MARGIN = 2  # blocks that are kept around the head: skin, hair and the edge of a cut ear
_LARGEST_HAND = 0.12  # of the head
_BESIDE_AIR = 0.72  # of a finger's outline; at most .69 of a piece of the nose or of the wall of a sinus
_SQUARE = np.ones((3, 3), dtype=bool)
_NECK = 0.04  # half the width of what joins a finger to the head, as a share of the root of the head's area


def blocks(chosen: Mask, least: int) -> Mask:
    """Return the blocks (rows / 4, columns / 4, rounded up) of which at least so many of the 16 pixels are chosen.

    Blocks lie symmetrically about the middle of the slice if its side is even: mirrored slices have mirrored blocks.
    """
    ones = np.pad(chosen, [(_above(count), -count % _BLOCK - _above(count)) for count in chosen.shape]).view(np.uint8)
    rows = ones[0::4] + ones[1::4] + ones[2::4] + ones[3::4]
    counts = rows[:, 0::4] + rows[:, 1::4] + rows[:, 2::4] + rows[:, 3::4]
    return np.asarray(counts >= least)


def kept_blocks(slices: Sequence[Slice], middle: int) -> Mask | None:
    """Return the blocks of the head, and those around it, in the middle one of adjacent slices of HU.

    None if it has no head.

    Args:
        slices: from below to above, (rows, columns) each.
        middle: index of the slice.
    """
    from scipy import ndimage  # slow to import, and not needed to show a card

    regions, sizes = _regions(slices[middle])
    largest = int(sizes.argmax())
    if sizes[largest] < _LEAST_HEAD * regions.size:
        return None
    whole = regions == largest
    head = _without_hands(whole, slices[middle])
    others = np.zeros(len(sizes), dtype=bool)
    if len(sizes) > 2:  # there is more than the background and the head
        others = _parts_of_the_head(regions, sizes, slices, middle)
    others[[0, largest]] = False
    wide = ndimage.binary_dilation(_filled(head | others[regions]), structure=_SQUARE, iterations=_MARGIN)
    return np.asarray(wide & ~(whole & ~head))


def kept_pixels(
    volume: HounsfieldVolume, index: int, slab_mm: float | None, square: Callable[[Slice], Slice]
) -> Mask | None:
    """Return the pixels of a slice that are not set to air; None keeps all, because no head was found.

    Args:
        volume: in the radiological convention.
        index: of the slice.
        slab_mm: adjacent slices of thin ones are so far away.
        square: resamples a slice (rows, columns) to square pixels; the mask is of its result.
    """
    indices = sorted({index, *neighbour_indices(volume, index, 1, slab_mm)})
    slices = [square(volume.part(i, i)[0]) for i in indices]
    kept = kept_blocks(slices, indices.index(index))
    if kept is None:
        return None
    rows, columns = slices[0].shape
    top, left = _above(rows), _above(columns)
    pixels = kept.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
    return np.asarray(pixels[top : top + rows, left : left + columns])


def _above(count: int) -> int:
    """Number of pixels of the first block that lie outside the slice."""
    return -count % _BLOCK // 2


def _regions(hounsfield: Slice) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Number the connected regions of blocks of tissue; return them and their sizes, that of the background as 0."""
    from scipy import ndimage

    regions, count = ndimage.label(blocks(hounsfield > _TISSUE_HU, _BLOCK * _BLOCK // 2))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    return regions, sizes


def _head_alone(hounsfield: Slice) -> Mask:
    """Return the largest region without hands; nothing if it is too small for a head."""
    regions, sizes = _regions(hounsfield)
    largest = int(sizes.argmax())
    if sizes[largest] < _LEAST_HEAD * regions.size:
        return np.zeros_like(regions, dtype=bool)
    return _without_hands(regions == largest, hounsfield)


def _parts_of_the_head(
    regions: NDArray[np.int32], sizes: NDArray[np.intp], slices: Sequence[Slice], middle: int
) -> Mask:
    """Return which regions lie over or under the head of an adjacent slice: of those with bone in them, half of it.

    Without a head in an adjacent slice, large regions are parts of the head.
    """
    heads = [_head_alone(slices[i]) for i in range(len(slices)) if i != middle]
    if not any(head.any() for head in heads):
        return np.asarray(sizes >= _LIKE_A_HEAD * sizes.max())
    bony = np.bincount(regions[blocks(slices[middle] > _BONE_HU, 1)], minlength=len(sizes)) > 0
    overlap = np.max([np.bincount(regions[head], minlength=len(sizes)) for head in heads], axis=0)
    return np.asarray(overlap >= np.where(bony, sizes / 2, 1))


def _without_hands(head: Mask, hounsfield: Slice) -> Mask:
    """Separate hands from the head, until none is found: one hand may hide the air beside another."""
    found = _without_next(head, hounsfield)
    while not np.array_equal(found, head):
        head, found = found, _without_next(found, hounsfield)
    return found


def _without_next(head: Mask, hounsfield: Slice) -> Mask:
    """Separate small regions with bone in them and air around them, joined to the head by a neck of about a cm."""
    from scipy import ndimage

    filled = _filled(head)
    reach = round(_NECK * float(np.sqrt(filled.sum())))
    eroded = ndimage.distance_transform_cdt(filled, metric="taxicab") > reach
    cores, count = ndimage.label(eroded)
    if count < 2:
        return head
    sizes = np.bincount(cores.ravel(), minlength=count + 1)
    sizes[0] = 0
    small = (sizes > 0) & (sizes < _LARGEST_HAND * sizes.max())
    bony = np.bincount(cores[blocks(hounsfield > _BONE_HU, 1)], minlength=count + 1) > 0
    rest = ndimage.distance_transform_cdt(~eroded | (small & bony)[cores], metric="taxicab")
    for number in np.flatnonzero(small & bony):
        near = ndimage.distance_transform_cdt(cores != number, metric="taxicab")
        piece = filled & (near <= reach + 1) & (near < rest)
        around = ndimage.binary_dilation(piece, iterations=2) & ~piece
        if (~filled[around]).mean() >= _BESIDE_AIR:
            head = head & ~piece
    return head


def _filled(mask: Mask) -> Mask:
    """Fill the holes of a mask, several times faster than SciPy's ``binary_fill_holes``."""
    from scipy import ndimage

    background, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return np.asarray(background[1:-1, 1:-1] != background[0, 0])
