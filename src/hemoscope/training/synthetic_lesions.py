"""Lesion augmentation of head-cropped HU (rows, columns): pasted lesions and synthetic lesions.

36 positive patients are too few to show a network blood in every location. Pasting copies a real bleed into another
head. A synthetic lesion follows the anatomy of its type: a lens or a crescent along the inner table, an ellipsoid in
the brain, filled ventricles, filled CSF spaces in a sector. Functions return new arrays and do not change their input;
they return None if the slice has no room for the lesion (the skull base, the vertex).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.labels import SUBTYPES, Hemorrhage

Slice = NDArray[np.float32]
Mask = NDArray[np.bool_]

_BONE_HU = 180
_CLOSING, _MARGIN = 5, 8  # pixels; what lies beyond the margin cannot reach into the slice
_SOFT_HU = 100
_CHIP_HU = 120
_LEAST_INTERIOR = 0.06
_LEAST_PIXELS = 12
_LEAST_SHARE = 0.6  # of a pasted lesion that must lie inside the skull
_DOUBTFUL_SHARE = 0.5
_LEAST_ESTIMATED = 100
_LEAST_LIFT_HU = 8.0  # an invisible lesion must not be labelled


@dataclass(frozen=True, eq=False)
class Inside:
    """The inside of the skull in one slice: its mask, and what follows from it, computed when first used."""

    mask: Mask

    @cached_property
    def depth(self) -> Slice:
        """Distance of each pixel from the inner table, in pixels."""
        return np.asarray(ndimage.distance_transform_edt(self.mask), dtype=np.float32)

    @cached_property
    def center(self) -> tuple[float, float]:
        """Mean row and column."""
        rows, columns = np.nonzero(self.mask)
        return float(rows.mean()), float(columns.mean())

    @cached_property
    def radius(self) -> float:
        """Radius of the circle of the same area, in pixels."""
        return float(np.sqrt(self.mask.sum() / np.pi))


def inside_skull(hounsfield: Slice) -> Inside | None:
    """Fill the ring of bone; None if it is not closed or encloses almost nothing."""
    bone = _closed(np.pad(hounsfield, _MARGIN, mode="edge") > _BONE_HU)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    regions, _ = ndimage.label(~bone)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0  # bone
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        sizes[edge] = 0  # not enclosed
    if not sizes.any():
        return None
    mask = regions == int(sizes.argmax())
    if mask.sum() < _LEAST_INTERIOR * mask.size or np.median(hounsfield[mask]) < 0:
        return None
    return Inside(mask)


def _closed(mask: Mask) -> Mask:
    """Close gaps of ten pixels: ``scipy.ndimage.binary_closing`` by a cross, five times, at a tenth of its time."""
    for _ in range(_CLOSING):
        mask = _grown(mask)
    mask = ~mask
    for _ in range(_CLOSING):
        mask = _grown(mask)
    return ~mask


def _grown(mask: Mask) -> Mask:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def synthesize_lesion(
    hounsfield: Slice, kind: Hemorrhage, rng: np.random.Generator, *, inside: Inside | None = None
) -> tuple[Slice, Mask] | None:
    """Add a synthetic lesion of one type; return the HU and its mask, or None if it does not fit or show.

    ``inside`` is the slice's ``inside_skull``, if it is known already.
    """
    inside = inside or inside_skull(hounsfield)
    if inside is None:
        return None
    shape = _SHAPES[kind](hounsfield, inside, rng)
    shape &= inside.mask & (hounsfield < _SOFT_HU)  # the edge of the inner table stays bone
    if shape.sum() < _LEAST_PIXELS:
        return None
    filled = _fill(hounsfield, inside, shape, rng)
    if (filled - hounsfield)[shape].mean() < _LEAST_LIFT_HU:
        return None
    return filled, shape


def paste_lesion(
    hounsfield: Slice,
    donor: Slice,
    mask: Mask,
    rng: np.random.Generator,
    *,
    inside: Inside | None = None,
    least_lift: float | None = None,
) -> tuple[Slice, Mask] | None:
    """Paste another head's bleed, slightly moved and with soft edges; None if it falls outside the skull.

    Both slices are cropped to the head, so a position in the crop is about the same position in the head.

    Args:
        hounsfield: the slice, unchanged.
        donor: the slice with the bleed.
        mask: of the bleed.
        rng: random movement of the bleed.
        inside: the slice's ``inside_skull``, if it is known already.
        least_lift: None as well if the bleed raises its place by less than this, in HU on average; None: no test.
    """
    if rng.random() < 0.5:
        donor, mask = donor[:, ::-1], mask[:, ::-1]
    matrix, offset = _jitter(donor.shape, rng)
    inside = inside or inside_skull(hounsfield)
    if inside is None or _clearly_outside(mask, matrix, offset, inside):
        return None
    shape = ndimage.affine_transform(mask.astype(np.float32), matrix, offset, order=1) > 0.5
    if (shape & inside.mask).sum() < max(_LEAST_PIXELS, _LEAST_SHARE * shape.sum()):
        return None
    moved = ndimage.affine_transform(donor, matrix, offset, order=1, mode="nearest")
    # Outlines reach into bone. A chip of skull in the brain would look like calcium, and be called blood.
    soft = ~ndimage.binary_dilation(moved > _CHIP_HU)
    allowed = shape & inside.mask & soft
    if allowed.sum() < _LEAST_PIXELS:
        return None
    alpha = _soft(allowed, rng) * (ndimage.binary_dilation(inside.mask) & soft)
    pasted = (hounsfield + alpha * (moved - hounsfield)).astype(np.float32)
    if least_lift is not None and (pasted - hounsfield)[allowed].mean() < least_lift:
        return None
    return pasted, allowed


def _clearly_outside(mask: Mask, matrix: NDArray[np.float64], offset: NDArray[np.float64], inside: Inside) -> bool:
    """Whether the moved pixels of a mask fall outside the skull, without resampling the mask: most donors do.

    The margin is wide: where this is in doubt, the resampled mask decides.
    """
    pixels = np.argwhere(mask)
    if len(pixels) < _LEAST_ESTIMATED:
        return False
    places = np.rint((pixels - offset) @ np.linalg.inv(matrix).T).astype(np.intp)
    within = ((places >= 0) & (places < mask.shape)).all(axis=1)
    rows, columns = places[within].T
    shown = int(within.sum())
    return int(inside.mask[rows, columns].sum()) < _DOUBTFUL_SHARE * shown


def _size(rng: np.random.Generator, low: float, high: float) -> float:
    """Sample sizes log-uniformly, because small lesions are the ones that are missed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _jitter(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    angle = np.deg2rad(rng.uniform(-12, 12))
    scale = rng.uniform(0.85, 1.2)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    center = (np.array(shape, dtype=np.float64) - 1) / 2
    shift = rng.uniform(-0.04, 0.04, size=2) * shape[0]
    return matrix, center - matrix @ (center + shift)


def _soft(shape: Mask, rng: np.random.Generator) -> Slice:
    blurred = ndimage.gaussian_filter(shape.astype(np.float32), rng.uniform(0.6, 1.4))
    return np.asarray(np.clip(blurred * 1.15, 0, 1), dtype=np.float32)


def _fill(hounsfield: Slice, inside: Inside, shape: Mask, rng: np.random.Generator) -> Slice:
    """Raise the low-frequency part to the HU of blood and keep the scanner's noise; clots are mottled.

    The low-frequency part is of the brain alone: with bone smoothed in, a bleed beside the inner table would be raised
    too little, and two in five would be no brighter than before.
    """
    level = rng.uniform(48, 80)
    mottle = ndimage.gaussian_filter(rng.standard_normal(shape.shape), rng.uniform(1.5, 4))
    mottle *= rng.uniform(0, 7) / max(float(mottle.std()), 1e-6)
    tissue = np.clip(hounsfield, -20, _SOFT_HU)
    lift = level + mottle - ndimage.gaussian_filter(_tissue(hounsfield, inside), 2.0)
    noise = hounsfield - tissue
    return np.asarray(tissue + _soft(shape, rng) * lift + noise, dtype=np.float32)


def _angle_from(inside: Inside, shape: tuple[int, ...], direction: float) -> NDArray[np.float64]:
    rows, columns = np.indices(shape)
    angle = np.arctan2(rows - inside.center[0], columns - inside.center[1])
    return np.asarray(np.abs((angle - direction + np.pi) % (2 * np.pi) - np.pi))


def _lens(hounsfield: Slice, inside: Inside, rng: np.random.Generator) -> Mask:
    """Epidural: short and thick, bulging inward."""
    away = _angle_from(inside, hounsfield.shape, rng.uniform(-np.pi, np.pi))
    width = np.deg2rad(_size(rng, 10, 42))
    thick = inside.radius * _size(rng, 0.05, 0.32) * np.clip(1 - (away / width) ** 2, 0, None)
    return np.asarray(inside.mask & (inside.depth < thick) & (away < width))


def _crescent(hounsfield: Slice, inside: Inside, rng: np.random.Generator) -> Mask:
    """Subdural: long and thin along the inner table, sometimes along the falx."""
    if rng.random() < 0.15:
        return _falx(hounsfield, inside, rng)
    away = _angle_from(inside, hounsfield.shape, rng.choice([0.0, np.pi]) + rng.uniform(-0.9, 0.9))
    width = np.deg2rad(_size(rng, 28, 85))
    thick = inside.radius * _size(rng, 0.035, 0.17) * np.clip(1 - (away / width) ** 4, 0, None)
    wobble = ndimage.gaussian_filter1d(rng.standard_normal(64), 4, mode="wrap") * 0.6
    thick = thick * (1 + np.interp(away * 10, np.arange(64), wobble))
    return np.asarray(inside.mask & (inside.depth < thick) & (away < width))


def _falx(hounsfield: Slice, inside: Inside, rng: np.random.Generator) -> Mask:
    rows, columns = np.indices(hounsfield.shape)
    side = rng.choice([-1, 1])
    across = side * (columns - inside.center[1])
    thick = inside.radius * rng.uniform(0.04, 0.10)
    along = (rows - inside.center[0]) * rng.choice([-1, 1])
    return np.asarray(inside.mask & (across > -1) & (across < thick) & (along > inside.radius * 0.25))


def _ellipsoid(hounsfield: Slice, inside: Inside, rng: np.random.Generator) -> Mask:
    """Intraparenchymal: an irregular ellipse within the brain, not touching the inner table."""
    size = inside.radius * _size(rng, 0.045, 0.38)
    places = np.argwhere(inside.depth > max(size * 0.7, 4))
    if not len(places):
        return np.zeros_like(inside.mask)
    row, column = places[rng.integers(len(places))]
    angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.5, 1.0)
    rows, columns = np.indices(hounsfield.shape)
    along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
    across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    rough = ndimage.gaussian_filter(rng.standard_normal(hounsfield.shape), size / 3 + 1)
    rough *= 0.25 / max(float(rough.std()), 1e-6)
    return np.asarray((along / size) ** 2 + (across / (size * ratio)) ** 2 + rough < 1) & (inside.depth > 2)


def _tissue(hounsfield: Slice, inside: Inside) -> Slice:
    """Return HU with everything but brain set to its median, so that smoothing includes no bone."""
    soft = np.clip(hounsfield, -20, _SOFT_HU)
    return np.where(inside.mask, soft, np.median(hounsfield[inside.mask])).astype(np.float32)


def _csf(hounsfield: Slice, inside: Inside) -> Mask:
    smooth = ndimage.gaussian_filter(_tissue(hounsfield, inside), 1.0)
    return np.asarray((smooth < 20) & (smooth > -10) & inside.mask)


def _ventricles(hounsfield: Slice, inside: Inside, rng: np.random.Generator) -> Mask:
    """Intraventricular: deep CSF, filled completely or layered posteriorly."""
    rows, columns = np.indices(hounsfield.shape)
    away = np.hypot(rows - inside.center[0], columns - inside.center[1])
    deep = _csf(hounsfield, inside) & (away < 0.55 * inside.radius) & (inside.depth > 0.3 * inside.radius)
    deep = ndimage.binary_opening(deep)
    if deep.sum() < 30:
        return np.zeros_like(deep)
    if rng.random() < 0.5:
        level = np.quantile(np.nonzero(deep)[0], rng.uniform(0.2, 0.75))
        deep &= rows > level
    if rng.random() < 0.4:
        deep &= (columns - inside.center[1]) * rng.choice([-1, 1]) > -2
    return np.asarray(ndimage.binary_dilation(deep) & inside.mask)


def _sulci(hounsfield: Slice, inside: Inside, rng: np.random.Generator) -> Mask:
    """Subarachnoid: superficial CSF spaces and cisterns within a sector."""
    away = _angle_from(inside, hounsfield.shape, rng.uniform(-np.pi, np.pi))
    sector = away < np.deg2rad(rng.uniform(25, 110))
    rows, columns = np.indices(hounsfield.shape)
    from_middle = np.hypot(rows - inside.center[0], columns - inside.center[1])
    outer = inside.mask & ((inside.depth < 0.4 * inside.radius) | (from_middle < rng.choice([0, 0.3]) * inside.radius))
    smooth = ndimage.gaussian_filter(_tissue(hounsfield, inside), 1.3)
    narrow = ndimage.gaussian_filter(smooth, 6.0) - smooth > 3.0
    spaces = outer & (narrow | _csf(hounsfield, inside)) & sector
    if rng.random() < 0.5:
        spaces = ndimage.binary_dilation(spaces)
    regions, count = ndimage.label(spaces & (inside.depth > 1))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes > 15)[regions])


_SHAPES = {
    Hemorrhage.EPIDURAL: _lens,
    Hemorrhage.INTRAPARENCHYMAL: _ellipsoid,
    Hemorrhage.INTRAVENTRICULAR: _ventricles,
    Hemorrhage.SUBARACHNOID: _sulci,
    Hemorrhage.SUBDURAL: _crescent,
}
assert set(_SHAPES) == set(SUBTYPES)
