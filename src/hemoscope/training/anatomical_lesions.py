"""Synthetic lesions that follow the anatomy of a stack of HU (slices, rows, columns), slice by slice.

- *subarachnoid* blood replaces CSF: in the sulci of a sector, in a Sylvian fissure, in the basal cisterns or between
  the hemispheres. It is thin and branched, because the spaces are.
- *intraventricular* blood fills a horn, or lies in its back with a level.
- *subdural* and *epidural* blood lies along the inner table, often small and thin, sometimes isodense or mixed, and
  pushes the brain away; subdural blood also lies along the falx and the tentorium.
- *intraparenchymal* blood lies in a lobe or the basal ganglia, with a thin dark rim.

A lesion's random numbers are drawn once; each slice then gets the part that its own anatomy holds: its own sulci, its
own ventricles, its own inner table. Label and mask are those of the middle slice, which must show the lesion.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.labels import Hemorrhage
from hemoscope.training.anatomy import Anatomy, anatomy, csf, deep, distance_to, falx, sulci, ventricles
from hemoscope.training.painting import Draw, log_uniform, mottle, polyline, strip
from hemoscope.training.synthetic_lesions import Mask, Slice

Stack = NDArray[np.float32]
Random = np.random.Generator

_SOFT_HU = 100
_LEAST_PIXELS = 12
_LEAST_LIFT_HU = 8
_TRIES = 3
_NOISE_HU = 15


@dataclass(frozen=True, slots=True, eq=False)
class _Blood:
    """One lesion.

    Attributes:
        weight: the share of each pixel that it fills.
        level: its HU, with clots.
        rim: depth of the dark rim in HU.
        rim_width: of the rim, in pixels.
        push: whether it moves the brain inward, as blood under the inner table does.
        slices: half of its height in slices, below and above.
        least_pixels: of its mask in the middle slice.
    """

    weight: Draw
    level: Slice
    rim: float = 0.0
    rim_width: float = 1.0
    push: bool = False
    slices: tuple[float, float] = (1.0, 1.0)
    least_pixels: int = _LEAST_PIXELS


def anatomical_lesion(stack: Stack, kind: Hemorrhage, rng: Random) -> tuple[Stack, Mask] | None:
    """Add a lesion of one type to a stack (n, S, S), unchanged; return the HU and the mask (S, S) of the middle slice.

    None if the middle slice shows no skull, or no space where blood of this type collects.
    """
    middle = len(stack) // 2
    place = anatomy(stack[middle])
    if place is None:
        return None
    for _ in range(_TRIES):
        blood = _KINDS[kind](place, rng)
        if blood is None:
            continue
        drawn, weight = _drawn(place, blood, 1.0)
        mask = (weight > 0.5) & place.inside.mask
        if mask.sum() >= blood.least_pixels and _lift(place, drawn)[mask].mean() >= _LEAST_LIFT_HU:
            break
    else:
        return None
    new = np.array(stack)
    new[middle] = drawn
    for step, height in zip((-1, 1), blood.slices, strict=True):
        for distance in range(1, middle + 1):
            beside = anatomy(stack[middle + step * distance]) if distance < height else None
            if beside is None:
                break
            share = float(np.sqrt(1 - (distance / height) ** 2))
            new[middle + step * distance] = _drawn(beside, blood, share)[0]
    return new, mask


def _lift(place: Anatomy, drawn: Slice) -> Slice:
    """How much brighter a place became, without noise."""
    change = np.where(place.inside.mask, drawn - place.hounsfield, 0)
    return np.asarray(ndimage.gaussian_filter(change, 0.7), dtype=np.float32)


def _drawn(place: Anatomy, blood: _Blood, share: float) -> tuple[Slice, Slice]:
    """Draw a lesion into a slice; return its HU and the lesion's weight."""
    soft = place.inside.mask & (place.hounsfield < _SOFT_HU)
    weight = np.clip(blood.weight(place, share), 0, 1) * soft
    noise = np.clip(place.hounsfield - place.tissue, -_NOISE_HU, _NOISE_HU)
    around = _pushed(place, weight).hounsfield if blood.push and weight.any() else place.hounsfield
    new = around + weight * (blood.level + noise - around)
    if blood.rim:
        near = ndimage.gaussian_filter(weight, blood.rim_width) * 2
        new = new - blood.rim * np.clip(near, 0, 1) * (1 - weight) * soft
    return np.asarray(new, dtype=np.float32), np.asarray(weight, dtype=np.float32)


def _pushed(place: Anatomy, weight: Slice) -> Anatomy:
    """Move the brain beneath a lesion inward, less and less with depth; bone stays."""
    depth = place.inside.depth
    thick = ndimage.gaussian_filter(_thickness(weight, depth), 3.0)
    reach = 0.75 * place.inside.radius
    moved = thick * np.clip(1 - (depth - thick) / reach, 0, 1) * (depth > 0)
    outward = np.stack(np.gradient(-ndimage.gaussian_filter(depth, 2.0)))
    outward /= np.maximum(np.hypot(*outward), 0.3)
    places = np.indices(depth.shape) + outward * np.minimum(moved, np.maximum(depth - 1.5, 0))
    inner = place.inside.mask & (place.hounsfield < _SOFT_HU)
    source = np.where(inner, place.hounsfield, place.tissue)
    shifted = ndimage.map_coordinates(source, places, order=1, mode="nearest")
    share = inner * np.clip(moved, 0, 1)
    return replace(place, hounsfield=(place.hounsfield + share * (shifted - place.hounsfield)).astype(np.float32))


def _thickness(weight: Slice, depth: Slice) -> Slice:
    """For every pixel, the depth of the nearest lesion's inner edge, fading away from the lesion."""
    lesion = weight > 0.5
    if not lesion.any():
        return np.zeros_like(depth)
    away, nearest = ndimage.distance_transform_edt(~lesion, return_indices=True)
    local = ndimage.maximum_filter(np.where(lesion, depth, 0), size=7)
    return np.asarray(local[tuple(nearest)] * np.exp(-((away / 25) ** 2)), dtype=np.float32)


def _level(place: Anatomy, rng: Random, low: float = 46, high: float = 76, *, clots: float = 6) -> Slice:
    """HU of fresh blood with clots."""
    return rng.uniform(low, high) + mottle(rng, place.tissue.shape, rng.uniform(1.5, 4), rng.uniform(0, clots))


def _mixed(place: Anatomy, rng: Random) -> Slice:
    """HU of blood of two ages: swirls, or cells that settled at the back."""
    dark, bright = rng.uniform(30, 45), rng.uniform(58, 78)
    if rng.random() < 0.5:
        share = np.clip(0.5 + mottle(rng, place.tissue.shape, rng.uniform(3, 7), 0.7), 0, 1)
    else:
        share = np.clip(0.5 + (place.posterior - rng.uniform(-0.4, 0.4)) * rng.uniform(3, 20), 0, 1)
    return np.asarray(dark + (bright - dark) * share, dtype=np.float32)


def _height(rng: Random) -> tuple[float, float]:
    """Half of a lesion's height in slices of 5 mm, below and above; up to 1 it ends before the neighbour."""
    return log_uniform(rng, 0.7, 5), log_uniform(rng, 0.7, 5)


def _along(place: Anatomy, direction: float) -> Slice:
    """Angle in radians between each pixel, seen from the middle of the inside, and a direction."""
    rows, columns = np.indices(place.tissue.shape, dtype=np.float32)
    angle = np.arctan2(rows - place.inside.center[0], columns - place.inside.center[1])
    return np.asarray((angle - direction + np.pi) % (2 * np.pi) - np.pi, dtype=np.float32)


def _extra_axial_level(place: Anatomy, rng: Random, thick: float) -> Slice:
    """Fresh, mixed or, if it is thick enough to be seen by its shape, isodense blood."""
    lot = rng.random()
    if lot < 0.2 and thick > 5:
        return _level(place, rng, 36, 46, clots=3)
    if lot < 0.4 and thick > 4:
        return _mixed(place, rng)
    return _level(place, rng)


def _under_table(place: Anatomy, rng: Random, *, width: float, thick: float, steep: float, rough: float) -> _Blood:
    """Blood under the inner table: ``width`` in radians, ``thick`` in pixels; a steep profile keeps its thickness."""
    direction = rng.uniform(-np.pi, np.pi)
    lean = rng.uniform(-0.4, 0.4)
    wave = ndimage.gaussian_filter1d(rng.standard_normal(72), 3, mode="wrap")
    wave *= rough / max(float(wave.std()), 1e-6)

    def weight(here: Anatomy, share: float) -> Slice:
        away = _along(here, direction) / (width * share)
        profile = np.clip(1 - np.abs(away) ** steep, 0, 1) * (1 + lean * away)
        uneven = 1 + np.interp((away * 12 + 36) % 72, np.arange(72), wave)
        edge = thick * share * profile * uneven
        filled = np.clip(edge - here.inside.depth + 1, 0, 1) * (edge > 0.3)
        outward = ndimage.grey_dilation(filled * here.inside.mask, size=5) * ~here.inside.mask
        soft = ndimage.gaussian_filter(np.where(here.inside.mask, filled, outward), 0.6)  # full up to the bone
        return np.asarray(soft * here.inside.mask, dtype=np.float32)

    return _Blood(weight, _extra_axial_level(place, rng, thick), push=thick > 3, slices=_height(rng))


def _epidural(place: Anatomy, rng: Random) -> _Blood:
    """A lens: short, thick, smooth; its sides end at sutures."""
    width = np.deg2rad(log_uniform(rng, 10, 38))
    thick = place.inside.radius * width * rng.uniform(0.25, 0.65)
    return _under_table(place, rng, width=width, thick=max(thick, 3.0), steep=2, rough=0.04)


def _subdural(place: Anatomy, rng: Random) -> _Blood | None:
    """A crescent, mostly; a sheet on the falx or on the tentorium otherwise."""
    lot = rng.random()
    if lot < 0.2 and not place.at_base:
        return _on_falx(place, rng)
    if lot < 0.35:
        return _on_tentorium(place, rng)
    thick = place.inside.radius * log_uniform(rng, 0.03, 0.16)
    width = np.deg2rad(log_uniform(rng, 25, 85))
    return _under_table(place, rng, width=width, thick=max(thick, 2.8), steep=4, rough=0.15)


def _on_falx(place: Anatomy, rng: Random) -> _Blood | None:
    """A sheet on one side of the falx, over part of its length, with its thickest part at the back."""
    side, thick = int(rng.choice([-1, 1])), log_uniform(rng, 2.5, 9)
    start = rng.uniform(-0.95, 0.4)
    stop = min(start + log_uniform(rng, 0.25, 1.5), 0.97)
    if deep(place):  # there is no falx through the middle of the brain
        start, stop = (max(start, 0.3), 0.97) if rng.random() < 0.7 else (-0.95, -0.3)
    wave = ndimage.gaussian_filter1d(rng.standard_normal(64), 4) * 1.2

    def weight(here: Anatomy, share: float) -> Slice:
        path = falx(here)
        kept = path[_between(here, path, start, stop)]
        if not len(kept):
            return np.zeros_like(here.tissue)
        column = np.interp(np.arange(here.tissue.shape[0]), path[:, 0], path[:, 1])[:, None]
        beside = side * (np.arange(here.tissue.shape[1]) - column)
        profile = np.clip(1 + np.interp(np.linspace(0, 63, len(column)), np.arange(64), wave), 0.3, 1.8)[:, None]
        away = distance_to(kept, here.tissue.shape)
        filled = np.clip(thick * share * profile - away + 0.5, 0, 1) * np.clip(beside + 1.5, 0, 1)
        return np.asarray(ndimage.gaussian_filter(filled, 0.6) * here.inside.mask, dtype=np.float32)

    return _Blood(weight, _level(place, rng), slices=_height(rng))


def _between(place: Anatomy, path: NDArray[np.float64], start: float, stop: float) -> Mask:
    along = place.posterior[tuple(np.rint(path).astype(int).T)]
    return np.asarray((along >= start) & (along <= stop))


def _on_tentorium(place: Anatomy, rng: Random) -> _Blood | None:
    """A sheet on one leaf: a sharp, curved inner edge, fading outward."""
    if not (place.at_base or deep(place)) or place.filled < 0.6:  # above the lower posterior fossa
        return None
    side, start, slope = int(rng.choice([-1, 1])), rng.uniform(0.25, 0.55), rng.uniform(-0.3, 0.4)
    reach, bend, width = rng.uniform(0.35, 0.85), rng.uniform(-0.3, 0.0), log_uniform(rng, 3, 12)
    steps = np.linspace(0.03, 1, 12)
    path = polyline(np.array([place.pixel(side * reach * s, start + slope * s + bend * s * s) for s in steps]))

    def weight(here: Anatomy, share: float) -> Slice:
        sheet = strip(path, here.tissue.shape, width * share)
        return np.asarray(sheet * np.clip(1.15 - (here.lateral / reach) ** 4, 0, 1), dtype=np.float32)

    return _Blood(weight, _level(place, rng, 48, 72), slices=(log_uniform(rng, 0.7, 2.5), log_uniform(rng, 0.7, 2.5)))


def _intraparenchymal(place: Anatomy, rng: Random) -> _Blood | None:
    """In a lobe near the cortex, in the basal ganglia or thalamus, or in the cerebellum and brain stem."""
    depth, radius = place.inside.depth, place.inside.radius
    size = radius * log_uniform(rng, 0.05, 0.34)
    free = (depth > max(0.6 * size, 3)) & ~csf(place) & (np.abs(place.lateral) > 0.08)
    if deep(place) and rng.random() < 0.5:
        free &= (np.abs(np.abs(place.lateral) - 0.33) < 0.16) & (np.abs(place.posterior + 0.02) < 0.28)
        size = min(size, 0.28 * radius)
    else:
        free &= depth < max(0.45 * radius, size + 3)
    places = np.argwhere(free)
    if not len(places):
        return None
    row, column = places[rng.integers(len(places))]
    turn, ratio = rng.uniform(0, np.pi), rng.uniform(0.5, 1.0)
    rough = mottle(rng, place.tissue.shape, size / 3 + 1, rng.uniform(0.1, 0.35))

    def weight(here: Anatomy, share: float) -> Slice:
        rows, columns = np.ogrid[: rough.shape[0], : rough.shape[1]]
        along = (rows - row) * np.cos(turn) + (columns - column) * np.sin(turn)
        across = (columns - column) * np.cos(turn) - (rows - row) * np.sin(turn)
        relative = np.sqrt((along / size) ** 2 + (across / (size * ratio)) ** 2) + rough
        filled = np.clip((share - relative) * size * ratio + 0.5, 0, 1) * (here.inside.depth > 2)
        dry = ~ndimage.binary_dilation(ventricles(here)) if size < 0.2 * radius else here.inside.mask
        return np.asarray(ndimage.gaussian_filter(filled * dry, 0.6), dtype=np.float32)

    rim = rng.uniform(6, 16) if rng.random() < 0.8 else 0.0
    return _Blood(weight, _level(place, rng), rim=rim, rim_width=rng.uniform(1.5, 4.0), slices=_height(rng))


def _intraventricular(place: Anatomy, rng: Random) -> _Blood | None:
    """Blood in one or all ventricles: a cast, or a level in what is hindmost of each horn."""
    seen = ventricles(place)
    if not seen.any():
        return None
    posterior = place.posterior[seen]
    layered, side = rng.random() < 0.65, int(rng.choice([-1, 1]))
    one_side = rng.random() < 0.45 and not place.at_base
    level = float(np.quantile(posterior, rng.uniform(0.35, 0.9))) if layered else -1.0

    def weight(here: Anatomy, share: float) -> Slice:
        space = ndimage.gaussian_filter(ndimage.binary_dilation(ventricles(here)).astype(np.float32), 0.7)
        filled = np.clip(space * 1.5, 0, 1) * np.clip((here.posterior - level) * here.half[1] + 0.5, 0, 1)
        if one_side:
            filled = filled * (side * here.lateral > -0.01)
        return np.asarray(filled * min(1.0, 1.3 * share), dtype=np.float32)

    return _Blood(weight, _level(place, rng, 38, 72), slices=(log_uniform(rng, 0.8, 6), log_uniform(rng, 0.8, 6)))


def _subarachnoid(place: Anatomy, rng: Random) -> _Blood | None:
    """Blood in the sulci of a sector, a Sylvian fissure, the basal cisterns or the fissure between the hemispheres."""
    lot = rng.random()
    if place.at_base or (place.face > 0.05 and deep(place) and lot < 0.3):
        center, reach = (rng.uniform(-0.15, 0.15), rng.uniform(-0.35, 0.25)), rng.uniform(0.2, 0.6)
    elif deep(place) and lot < 0.6:
        center = (int(rng.choice([-1, 1])) * rng.uniform(0.5, 0.75), rng.uniform(-0.45, 0.05))
        reach = rng.uniform(0.25, 0.5)
    elif lot < 0.75:
        center, reach = (0.0, rng.uniform(-0.9, 0.7)), rng.uniform(0.15, 0.35)
    else:
        direction = rng.uniform(-np.pi, np.pi)
        center, reach = (0.85 * float(np.cos(direction)), 0.85 * float(np.sin(direction))), rng.uniform(0.3, 0.75)
    swell, gain = rng.uniform(0.3, 0.9), rng.uniform(1.0, 1.8)
    patchy = mottle(rng, place.tissue.shape, rng.uniform(4, 10), rng.uniform(0, 0.35))

    def weight(here: Anatomy, share: float) -> Slice:
        away = np.hypot(here.lateral - center[0], here.posterior - center[1])
        near = np.clip((reach * share - away) / 0.12 + 0.5 + patchy, 0, 1)
        space = sulci(here) * ~ndimage.binary_dilation(ventricles(here), iterations=2)
        space = np.maximum(space, swell * ndimage.grey_dilation(space, size=3)) * (here.inside.depth > 1)
        regions, count = ndimage.label(space * near > 0.3)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept = ndimage.binary_dilation((sizes >= 2 * _LEAST_PIXELS)[regions])
        return np.asarray(np.clip(gain * space, 0, 1) * near * kept, dtype=np.float32)

    return _Blood(weight, _level(place, rng, 45, 70, clots=4), slices=_height(rng), least_pixels=3 * _LEAST_PIXELS)


_KINDS: dict[Hemorrhage, Callable[[Anatomy, Random], _Blood | None]] = {
    Hemorrhage.EPIDURAL: _epidural,
    Hemorrhage.INTRAPARENCHYMAL: _intraparenchymal,
    Hemorrhage.INTRAVENTRICULAR: _intraventricular,
    Hemorrhage.SUBARACHNOID: _subarachnoid,
    Hemorrhage.SUBDURAL: _subdural,
}
