"""Tells pages of text and noise from images of a body by how neighboring pixels of a row differ."""

import numpy as np
from numpy.typing import NDArray

from hemoscope.volume import HounsfieldVolume

__all__ = ["is_noise", "is_text", "strange_slices"]

_LEAST = int(np.iinfo(np.int16).min)
_EDGES_OF_TEXT = 8  # in a row
_EVERY_ROW = 8  # of one slice, every eighth row is enough


def is_noise(fine: NDArray[np.int16]) -> bool:
    """Whether neighboring pixels of a row are uncorrelated, with the noise of air and the highest values cut off."""
    cut = np.clip(fine, -900, 1000).astype(np.float32)
    left, right = cut[..., :-1].ravel(), cut[..., 1:].ravel()
    left, right = left - left.mean(), right - right.mean()
    power = float(np.sqrt((left @ left) * (right @ right)))
    # Inside the brain, noise can exceed the contrast of tissue.
    return power > 100.0**2 * left.size and float(left @ right) / power < 0.3


def is_text(fine: NDArray[np.int16]) -> bool:
    """Whether pixels other than the background are mostly edges, and rows cross many of them.

    At most 0.2 edges a pixel were seen in good slices. Above the skull, only the holder may be left: rows cross its
    thin shell a few times, but a line of text many times.
    """
    counts = np.bincount(fine.ravel().astype(np.int32) - _LEAST)
    others = fine.size - int(counts.max())
    if not 0.005 * fine.size < others < 0.7 * fine.size:
        return False
    steps = np.diff(fine.astype(np.int32), axis=-1)
    edges = np.count_nonzero((steps > 200) | (steps < -200), axis=-1)
    crossed = edges[edges > 0]
    return int(crossed.sum()) > 0.4 * others and float(np.median(crossed)) >= _EDGES_OF_TEXT


def strange_slices(volume: HounsfieldVolume) -> dict[int, str]:
    """Return the refusal code of each slice, by its index, that is a page of text or noise."""
    found = {}
    for index, one in enumerate(volume.hounsfield):
        fine = one[::_EVERY_ROW]
        if is_text(fine):
            found[index] = "sheet"
        elif is_noise(fine):
            found[index] = "implausible_hounsfield"
    return found
