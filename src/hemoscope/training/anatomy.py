"""Rough anatomy of one head-cropped slice in HU: the skull's inside, its midline, CSF spaces, ventricles and the falx.

Everything is estimated from the slice alone, in a few milliseconds, to place synthetic lesions and mimics. Positions
are relative to the inside of the skull: ``lateral`` is -1 and 1 at the inner table left and right of the midline,
``posterior`` -1 at its front and 1 at its back. Where an estimate fails (a skull base without a closed ring, ventricles
too narrow to be seen) a function returns None or an empty mask, and nothing is placed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.training.synthetic_lesions import Inside, Mask, Slice

Floats = NDArray[np.float64]

_AIR_HU = -200
_FAT_HU = -60
_SOFT_HU = 100
_CSF_BELOW_BRAIN_HU = 11  # thick slices average narrow spaces with brain, so CSF is hardly ever at 0 to 10 HU
_VALLEY_HU = 1.1  # curvature of a sulcus across its course, HU per pixel squared
_LARGEST_TURN = 20
_HEAD_LENGTH_MM = 190.0
_LEAST_VENTRICLE = 25
_LEAST_FACE = 0.13
_LOW_FACE = 0.04
_MOST_AIR = 0.04
_LEAST_FULL = 0.95  # of an ellipse; petrous bones cut into it
_VENTRICLE_HU = 14
_CSF_HU = 20  # CSF of a wide space; white matter is at 24 HU or more
_SULCUS_MM = 14
_LEAST_FILLED = 0.72
_LEAST_INTERIOR = 0.05
_BONE_HU = 180
_FALX_REACH = 7


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """Anatomy of one slice; arrays have the shape (rows, columns) of the slice.

    Attributes:
        hounsfield: the slice.
        inside: the inside of the skull.
        tissue: HU without bone and noise; the median of the brain outside the skull.
        brain: median HU of the brain.
        lateral: position across the midline, -1 to 1.
        posterior: position along the midline, -1 to 1.
        half: half of the width and of the length of the skull's inside, in pixels.
        turn: angle of the midline, from front to back, to the columns, in radians.
        pixel_mm: approximate size of a pixel, from the length of an adult's head.
        filled: share of the head's length that the skull's inside takes: little at the vertex and the base.
        face: how much more of the head's length lies in front of the brain than behind it.
    """

    hounsfield: Slice
    inside: Inside
    tissue: Slice
    brain: float
    lateral: Slice
    posterior: Slice
    half: tuple[float, float]
    turn: float
    pixel_mm: float
    filled: float
    face: float

    def pixel(self, lateral: float, posterior: float) -> tuple[float, float]:
        """Return row and column of a relative position."""
        across, along = lateral * self.half[0], posterior * self.half[1]
        middle = self._middle()
        return (
            middle[0] + along * np.cos(self.turn) + across * np.sin(self.turn),
            middle[1] - along * np.sin(self.turn) + across * np.cos(self.turn),
        )

    def _middle(self) -> tuple[float, float]:
        """Row and column of the middle; both relative positions are linear in row and column."""
        across, along = float(self.lateral[0, 0]) * self.half[0], float(self.posterior[0, 0]) * self.half[1]
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        return -(along * cosine + across * sine), along * sine - across * cosine

    @property
    def at_base(self) -> bool:
        """Whether the slice shows orbits, sinuses or petrous bones in front of or beside the brain."""
        full = self.inside.mask.sum() / (np.pi * self.half[0] * self.half[1])
        return self.face > _LEAST_FACE or bool(full < _LEAST_FULL and self.filled > _LEAST_FILLED)

    @property
    def below_vertex(self) -> bool:
        """Whether the slice may cut lateral ventricles: it is neither at the base nor at the vertex."""
        return not self.at_base and self.filled > _LEAST_FILLED


def anatomy(hounsfield: Slice) -> Anatomy | None:
    """Estimate the anatomy of a slice (rows, columns) in HU; None if no skull encloses brain."""
    inside = _inside(hounsfield)
    if inside is None:
        return None
    brain = float(np.median(hounsfield[inside.mask]))
    turn = _turn(inside)
    rows, columns = np.indices(hounsfield.shape, dtype=np.float32)
    down, right = rows - inside.center[0], columns - inside.center[1]
    along: Slice = np.asarray(down * np.cos(turn) - right * np.sin(turn), dtype=np.float32)
    across: Slice = np.asarray(down * np.sin(turn) + right * np.cos(turn), dtype=np.float32)
    (front, back), (left, far) = (_range(place[inside.mask]) for place in (along, across))
    half = ((far - left) / 2, (back - front) / 2)
    head = np.flatnonzero((hounsfield > _AIR_HU).mean(axis=1) > 0.1)  # not the headrest
    length = float(head[-1] - head[0] + 1)
    skull = np.flatnonzero(inside.mask.any(axis=1))
    return Anatomy(
        hounsfield=hounsfield,
        inside=inside,
        tissue=smoothed(hounsfield, inside.mask, 1.0, brain),
        brain=brain,
        lateral=np.asarray((across - (far + left) / 2) / half[0], dtype=np.float32),
        posterior=np.asarray((along - (back + front) / 2) / half[1], dtype=np.float32),
        half=half,
        turn=turn,
        pixel_mm=_HEAD_LENGTH_MM / length,
        filled=2 * half[1] / length,
        face=float((skull[0] - head[0]) - (head[-1] - skull[-1])) / length,
    )


def _inside(hounsfield: Slice) -> Inside | None:
    """Find the inside of the skull; where the ring is open (sella, orbits), close wider gaps than ``inside_skull``."""
    height, width = (side // 2 * 2 for side in hounsfield.shape)
    bone = (hounsfield[:height, :width] > _BONE_HU).reshape(height // 2, 2, width // 2, 2).any(axis=(1, 3))
    for closing in (2, 6):
        closed = ndimage.binary_closing(np.pad(bone, 8, mode="edge"), iterations=closing)[8:-8, 8:-8]
        regions, count = ndimage.label(ndimage.binary_fill_holes(closed) & ~closed)
        if not count:
            continue
        largest = regions == int(np.bincount(regions.ravel())[1:].argmax()) + 1
        if largest.sum() < _LEAST_INTERIOR * largest.size:
            continue
        grown = ndimage.binary_dilation(largest, iterations=closing)
        mask = np.zeros(hounsfield.shape, dtype=bool)
        mask[:height, :width] = grown.repeat(2, axis=0).repeat(2, axis=1)
        if (hounsfield[mask] < _FAT_HU).mean() > _MOST_AIR:  # the jaw, or the nasal cavity
            continue
        mask &= (hounsfield < _BONE_HU) & (hounsfield > _FAT_HU)
        mask = _largest(ndimage.binary_opening(mask, iterations=2))
        mask = ndimage.binary_fill_holes(mask)  # calcium is no skull
        if mask.sum() < _LEAST_INTERIOR * mask.size or np.median(hounsfield[mask]) < 0:
            continue
        return Inside(mask)
    return None


def _largest(mask: Mask) -> Mask:
    regions, count = ndimage.label(mask)
    return regions == int(np.bincount(regions.ravel())[1:].argmax()) + 1 if count else mask


def smoothed(hounsfield: Slice, mask: Mask, sigma: float, elsewhere: float) -> Slice:
    """Smooth HU inside a mask without what is outside it or is bone; return ``elsewhere`` outside."""
    weight = (mask & (hounsfield < _SOFT_HU)).astype(np.float32)
    total = ndimage.gaussian_filter(hounsfield * weight, sigma)
    weights = ndimage.gaussian_filter(weight, sigma)
    return np.where(mask & (weights > 0.05), total / np.maximum(weights, 0.05), np.float32(elsewhere))


def csf(place: Anatomy) -> Mask:
    """CSF spaces as wide as about 3 mm or more: clearly darker than brain."""
    return np.asarray(place.inside.mask & (place.tissue < place.brain - _CSF_BELOW_BRAIN_HU))


def sulci(place: Anatomy) -> Slice:
    """How much a pixel lies in a dark, narrow space (a sulcus, a fissure, a cistern): 0 to 1.

    The larger curvature of the smoothed HU (an eigenvalue of the Hessian) is high along a dark line.
    """
    smooth = smoothed(place.hounsfield, place.inside.mask, 1.5, place.brain)
    by_row, by_column = np.gradient(smooth)
    (rows, mixed), columns = np.gradient(by_row), np.gradient(by_column, axis=1)
    curved = (rows + columns) / 2 + np.sqrt(((rows - columns) / 2) ** 2 + mixed**2)
    dark = np.clip((ndimage.gaussian_filter(smooth, 5.0) - smooth - 1.5) / 3, 0, 1)
    wide = np.clip((_CSF_HU - smooth) / 4, 0, 1)
    # White matter is dark too, but not beside the inner table or the falx, and not as dark as CSF.
    near = (place.inside.depth < _SULCUS_MM / place.pixel_mm) | (np.abs(place.lateral) < 0.07)
    line = np.clip((curved - _VALLEY_HU / 2) / _VALLEY_HU, 0, 1) * dark * (near | (smooth < _CSF_HU + 3))
    return np.asarray(np.maximum(line, wide) * place.inside.mask, dtype=np.float32)


def deep(place: Anatomy) -> bool:
    """Whether the slice cuts the middle of the brain (ventricles, basal ganglia, tentorium), not the convexity."""
    return place.below_vertex and (place.face > _LOW_FACE or bool(ventricles(place).any()))


def ventricles(place: Anatomy) -> Mask:
    """Ventricles: wide, deep CSF near the midline; at the base only the fourth ventricle, as cisterns look alike.

    The fissure between the hemispheres is as dark: without one space beside the midline there are no ventricles.
    """
    far_in = csf(place) & (place.inside.depth > 0.3 * place.inside.radius)
    if place.at_base:
        near = (np.abs(place.lateral) < 0.2) & (np.abs(place.posterior - 0.08) < 0.28) & (place.filled < 0.62)
    elif place.below_vertex:
        near = (np.abs(place.posterior) < 0.7) & (np.abs(place.lateral) < 0.55)
    else:
        return np.zeros_like(far_in)
    regions, count = ndimage.label(ndimage.binary_opening(far_in & near))
    every = np.arange(count + 1)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    keep = (sizes >= _LEAST_VENTRICLE) & (ndimage.minimum(place.tissue, regions, every) < _VENTRICLE_HU)
    keep[0] = False  # dark white matter is kept out by the HU of the darkest pixel
    beside = ndimage.mean(np.abs(place.lateral), regions, every) > 0.07
    least = (2 if place.face > _LOW_FACE else 4) * _LEAST_VENTRICLE  # deep sulci of the convexity are smaller
    if not place.at_base and sizes[keep & beside].sum() < max(least, 0.4 * sizes[keep].sum()):
        keep[:] = False
    return np.asarray(keep[regions])


def falx(place: Anatomy) -> Floats:
    """Trace the falx from front to back: rows and columns (n, 2), one point a pixel, inside the skull.

    The brightest line within some pixels of the midline, smoothed; where none is seen, the midline.
    """
    count = int(2 * place.half[1])
    beside = np.arange(-_FALX_REACH, _FALX_REACH + 1)
    front, back = np.array(place.pixel(0.0, -1.0)), np.array(place.pixel(0.0, 1.0))
    middle = front + np.linspace(0, 1, count)[:, None] * (back - front)
    rows, columns = middle[:, :1], middle[:, 1:]
    places = rows + beside * np.sin(place.turn), columns + beside * np.cos(place.turn)
    values = ndimage.map_coordinates(place.tissue, places, order=1, mode="nearest")
    values = ndimage.gaussian_filter1d(values, 5.0, axis=0)
    brightest = beside[(values - 0.06 * beside**2).argmax(axis=1)]
    offset = ndimage.gaussian_filter1d(brightest.astype(np.float64), 7.0)
    path = np.stack([rows[:, 0] + offset * np.sin(place.turn), columns[:, 0] + offset * np.cos(place.turn)], axis=1)
    nearest = np.clip(np.rint(path).astype(int), 0, np.array(place.inside.mask.shape) - 1)
    return np.asarray(path[place.inside.mask[nearest[:, 0], nearest[:, 1]]])


def distance_to(path: Floats, shape: tuple[int, ...]) -> Slice:
    """Distance in pixels of every pixel from a path (n, 2) of rows and columns."""
    line = np.ones(shape, dtype=bool)
    nearest = np.clip(np.rint(path).astype(int), 0, np.array(shape) - 1)
    line[nearest[:, 0], nearest[:, 1]] = False
    return np.asarray(ndimage.distance_transform_edt(line), dtype=np.float32)


def _range(values: Slice) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _turn(inside: Inside) -> float:
    """Return the angle of the axis about which the inner table is most symmetric."""
    angles = np.deg2rad(np.arange(360))
    radii = np.arange(1, max(inside.mask.shape), 2)
    rows = np.rint(inside.center[0] + radii * np.sin(angles)[:, None]).astype(int)
    columns = np.rint(inside.center[1] + radii * np.cos(angles)[:, None]).astype(int)
    height, width = inside.mask.shape
    valid = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    profile = (inside.mask[rows.clip(0, height - 1), columns.clip(0, width - 1)] & valid).sum(axis=1) * 2.0
    turns, steps = np.arange(-_LARGEST_TURN, _LARGEST_TURN + 1), np.arange(1, 180)
    behind = 90 + turns[:, None]
    unlike = np.abs(profile[(behind + steps) % 360] - profile[(behind - steps) % 360]).mean(axis=1)
    unlike = unlike + 0.02 * np.abs(turns) * inside.radius / 20  # a round skull has no axis of its own
    return float(np.deg2rad(turns[unlike.argmin()]))
