"""What is bone and what it surrounds, in slices in Hounsfield units."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["SKULL", "between"]

SKULL = 200  # HU; also of thin bone that is averaged with what lies beside it


def between(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that have the mask to the left, right, front and back, in slices of shape (..., rows, columns)."""
    return _within(mask, -1) & _within(mask, -2)


def _within(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Pixels from the first to the last of the mask along an axis; much faster than accumulating the mask."""
    count = mask.shape[axis]
    first = mask.argmax(axis, keepdims=True)
    last = count - 1 - np.flip(mask, axis).argmax(axis, keepdims=True)
    place = np.arange(count).reshape(-1, *(1,) * (-1 - axis))
    inside: NDArray[np.bool_] = (place >= first) & (place <= last) & mask.any(axis, keepdims=True)
    return inside
