"""Counts the slices in which metal (clips, coils, dental work) may hide blood or look like it."""

import numpy as np
from numpy.typing import NDArray

from hemoscope.volume import HounsfieldVolume

__all__ = ["BODY", "SIDE", "slices_with_metal"]

SIDE = 128  # pixels a side are enough to see the body
BODY = -300  # HU; lower values are air, or foam of the holder
# No bone or tooth is denser; fewer pixels may be noise.
_METAL, _METAL_PIXELS = 3000, 10


def slices_with_metal(volume: HounsfieldVolume) -> int:
    """Return how many slices have 10 pixels above 3000 HU with more body than air around them (not on the holder)."""
    # The maximum of a slice is much faster than a comparison, and few slices pass it.
    return sum(_has_metal(one) for one in volume.hounsfield if int(one.max()) > _METAL)


def _has_metal(one: NDArray[np.int16]) -> bool:
    dense = np.flatnonzero(one > _METAL)
    if dense.size < _METAL_PIXELS:
        return False
    step = max(1, -(-max(one.shape) // SIDE))
    thin = one[::step, ::step] > BODY
    # An integral image of the body gives the share of body in the square around each pixel.
    body = np.zeros((thin.shape[0] + 1, thin.shape[1] + 1), dtype=np.int32)
    body[1:, 1:] = thin.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    places, half = np.stack(np.unravel_index(dense, one.shape), axis=1) // step, max(thin.shape) // 32
    (top, left), (bottom, right) = np.maximum(places - half, 0).T, np.minimum(places + half + 1, thin.shape).T
    inside = body[bottom, right] - body[top, right] - body[bottom, left] + body[top, left]
    return int(np.count_nonzero(inside > 0.5 * (bottom - top) * (right - left))) >= _METAL_PIXELS
