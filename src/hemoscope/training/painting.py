"""Shapes drawn into a slice with partial volume, for synthetic lesions and for mimics.

A shape is a weight (rows, columns): the share of each pixel that the object fills. Painting raises (or lowers) the
smooth part of the tissue by that share of the way to the object's HU and keeps the scanner's noise. A ``Draw`` draws
one object into any slice of a stack: its random numbers are drawn once, so the object continues from slice to slice.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy import ndimage

from hemoscope.training.anatomy import Anatomy, Floats, distance_to
from hemoscope.training.synthetic_lesions import Slice

Draw = Callable[[Anatomy, float], Slice]  # the slice, and the object's share in it (1 in the middle slice) -> weight

_SOFT_HU = 100


def painted(place: Anatomy, weight: Slice, level: float | Slice) -> Slice:
    """Return the slice with the object at ``level`` HU; only inside the skull, and bone stays bone."""
    within = weight * (place.inside.mask & (place.hounsfield < _SOFT_HU))
    return np.asarray(place.hounsfield + within * (level - place.tissue), dtype=np.float32)


def mottle(rng: np.random.Generator, shape: tuple[int, ...], grain: float, spread: float) -> Slice:
    """Return a smooth random field (rows, columns) with a standard deviation of ``spread`` and a grain in pixels."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), grain)
    return np.asarray(field * (spread / max(float(field.std()), 1e-6)), dtype=np.float32)


def ellipse(place: Anatomy, center: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> Slice:
    """Weight of an ellipse: center (row, column) and radii in pixels; edge pixels are filled in part."""
    rows, columns = np.ogrid[: place.hounsfield.shape[0], : place.hounsfield.shape[1]]
    down, right = rows - center[0], columns - center[1]
    along, across = down * np.cos(turn) + right * np.sin(turn), right * np.cos(turn) - down * np.sin(turn)
    relative = np.sqrt((along / max(radii[0], 1e-3)) ** 2 + (across / max(radii[1], 1e-3)) ** 2)
    return np.asarray(np.clip((1 - relative) * min(radii) + 0.5, 0, 1) * _thin(min(radii)), dtype=np.float32)


def strip(path: Floats, shape: tuple[int, ...], width: float) -> Slice:
    """Weight of a strip of a width in pixels along a path (n, 2); thinner than a pixel, it fills the pixel in part."""
    filled = np.clip(width / 2 - distance_to(path, shape) + 0.5, 0, 1)
    return np.asarray(ndimage.gaussian_filter(filled * _thin(width / 2), 0.5), dtype=np.float32)


def polyline(points: Floats) -> Floats:
    """Return points no more than half a pixel apart on straight lines between given points (n, 2)."""
    pieces = [np.linspace(start, end, max(int(2 * np.abs(end - start).max()), 2)) for start, end in pairwise(points)]
    return np.concatenate(pieces)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Sample log-uniformly: small objects are as frequent as large ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _thin(radius: float) -> float:
    """An object narrower than a pixel fills it in part."""
    return min(1.0, 2 * max(radius, 0.0))
