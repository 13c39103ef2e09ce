"""Mimics: what is bright in a head CT and is not blood, drawn into stacks of HU (slices, rows, columns).

A network that has seen few calcifications, dense sinuses and artefacts calls them blood. Each mimic is placed where it
occurs, inside the skull, with partial volume, and continues in the neighbouring slices; labels do not change. Numbers
are taken from textbooks and CT-ICH's own slices: calcium of 80 to 300 HU and 1 to 6 mm, sinuses and vessels of 50 to
80 HU. Evaluation has mimics of its own (``experiments/mimic_set.py``), which share no code with these.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.training.anatomy import Anatomy, anatomy, csf, deep, falx, ventricles
from hemoscope.training.artefacts import with_motion, with_noise
from hemoscope.training.painting import ellipse, log_uniform, mottle, painted, polyline, strip
from hemoscope.training.synthetic_lesions import Slice

Stack = NDArray[np.float32]
Random = np.random.Generator

_TRIES = 8
_SEEN_HU, _LEAST_PIXELS = 6, 3


class Mimic(StrEnum):
    """What is drawn."""

    CHOROID = "choroid plexus calcium"
    PINEAL = "pineal calcium"
    FALX_CALCIUM = "falx calcium"
    BASAL_GANGLIA = "basal ganglia calcium"
    DENSE_FALX = "dense falx"
    DENSE_TENTORIUM = "dense tentorium"
    SINUS = "dense sinus"
    VESSEL = "bright vessel"
    BEAM_HARDENING = "beam hardening"
    SHUNT = "shunt catheter"
    MOTION = "motion"
    NOISE = "noise"


# By these a kind is tried first, second ...
_WEIGHTS = {
    Mimic.CHOROID: 3,
    Mimic.PINEAL: 2,
    Mimic.FALX_CALCIUM: 2,
    Mimic.BASAL_GANGLIA: 6,
    Mimic.DENSE_FALX: 2,
    Mimic.DENSE_TENTORIUM: 2,
    Mimic.SINUS: 1,
    Mimic.VESSEL: 1,
    Mimic.BEAM_HARDENING: 1,
    Mimic.SHUNT: 4,
    Mimic.MOTION: 1,
    Mimic.NOISE: 0.3,
}
Drawn = Callable[[Anatomy, float], Slice]  # the slice, and the mimic's share in it -> the new slice


def mimic_in_stack(stack: Stack, rng: Random) -> Stack | None:
    """Add a random mimic; None if none of most kinds fits. ``stack`` (n, S, S) in HU is left unchanged.

    What fits few slices (calcium deep in the brain) is likely to be tried before what fits every one (motion, noise).
    """
    place = anatomy(stack[len(stack) // 2])
    weights = np.array([_WEIGHTS[kind] for kind in Mimic])
    for number in rng.choice(len(Mimic), size=_TRIES, replace=False, p=weights / weights.sum()):
        changed = _add(stack, list(Mimic)[number], place, rng)
        if changed is not None:
            return changed
    return None


def add_mimic(stack: Stack, kind: Mimic, rng: Random) -> Stack | None:
    """Add one kind of mimic to a stack (n, S, S); None if it does not fit the middle slice."""
    return _add(stack, kind, anatomy(stack[len(stack) // 2]), rng)


def _add(stack: Stack, kind: Mimic, place: Anatomy | None, rng: Random) -> Stack | None:
    """Add a mimic to a stack; ``place`` is the anatomy of its middle slice."""
    if kind in _ARTEFACTS:
        return _ARTEFACTS[kind](stack, rng)
    middle = len(stack) // 2
    drawn = None if place is None else _PLACED[kind](place, rng)
    if place is None or drawn is None:
        return None
    new = np.array(stack)
    new[middle] = drawn(place, 1.0)
    if (np.abs(new[middle] - stack[middle]) > _SEEN_HU).sum() < _LEAST_PIXELS:
        return None
    for step in (-1, 1):
        pace = rng.uniform(0, 0.3) if kind in _LONG else rng.uniform(0.3, 1.5)
        for distance in range(1, middle + 1):
            beside, share = anatomy(stack[middle + step * distance]), 1 - pace * distance
            if share <= 0 or beside is None:
                break
            new[middle + step * distance] = drawn(beside, share)
    return new


def _spots(spots: list[tuple[float, float, float, float, float]], levels: list[float], grain: Slice) -> Drawn:
    """Draw ellipses (row, column, radius, radius, turn) of calcium of some HU, with speckles."""

    def draw(place: Anatomy, share: float) -> Slice:
        new = place
        for (row, column, long, short, turn), level in zip(spots, levels, strict=True):
            weight = ellipse(new, (row, column), (long, short), turn) * share
            speckled = np.clip(weight * (1 + grain), 0, 1)
            new = _replaced(new, painted(new, speckled, level))
        return new.hounsfield

    return draw


def _replaced(place: Anatomy, hounsfield: Slice) -> Anatomy:
    """The same anatomy with other HU."""
    return replace(place, hounsfield=hounsfield)


def _calcium(rng: Random) -> float:
    return log_uniform(rng, 80, 300)


def _radius(place: Anatomy, rng: Random, low_mm: float = 1.0, high_mm: float = 6.0) -> float:
    """Return the radius in pixels of an object of 1 to 6 mm."""
    return log_uniform(rng, low_mm, high_mm) / 2 / place.pixel_mm


def _grain(place: Anatomy, rng: Random) -> Slice:
    return mottle(rng, place.hounsfield.shape, 1.0, rng.uniform(0, 0.6))


def _choroid(place: Anatomy, rng: Random) -> Drawn | None:
    """The glomus in the atrium of one or both lateral ventricles: the hind end of what is dark."""
    if not deep(place):
        return None
    seen = ventricles(place)
    spots, levels = [], []
    sides = [-1, 1] if rng.random() < 0.6 else [int(rng.choice([-1, 1]))]  # usually on both sides
    for side in sides:
        atrium = np.argwhere(seen & (side * place.lateral > 0.08) & (place.posterior > 0.0))
        if len(atrium):
            row, column = map(float, atrium[np.argsort(place.posterior[tuple(atrium.T)])[-len(atrium) // 4 :]].mean(0))
        elif len(np.flatnonzero(seen)):
            continue
        else:
            row, column = place.pixel(side * rng.uniform(0.2, 0.32), rng.uniform(0.12, 0.36))
        for _ in range(int(rng.integers(1, 4))):
            move = rng.normal(0, 2.0 / place.pixel_mm, size=2)
            long = _radius(place, rng)
            spots.append((row + move[0], column + move[1], long, long * rng.uniform(0.4, 1), rng.uniform(0, np.pi)))
            levels.append(_calcium(rng))
    return _spots(spots, levels, _grain(place, rng)) if spots else None


def _pineal(place: Anatomy, rng: Random) -> Drawn | None:
    """In the midline behind the third ventricle."""
    if not deep(place):
        return None
    row, column = place.pixel(rng.uniform(-0.03, 0.03), rng.uniform(0.02, 0.2))
    spots, levels = [], []
    for _ in range(int(rng.integers(1, 4))):
        move = rng.normal(0, 1.2 / place.pixel_mm, size=2)
        long = _radius(place, rng)
        spots.append((row + move[0], column + move[1], long, long * rng.uniform(0.5, 1), rng.uniform(0, np.pi)))
        levels.append(_calcium(rng))
    return _spots(spots, levels, _grain(place, rng))


def _falx_calcium(place: Anatomy, rng: Random) -> Drawn | None:
    """Plaques of some millimetres in length on the falx, mostly at its front."""
    if place.at_base:
        return None
    path = falx(place)
    along = place.posterior[tuple(np.rint(path).astype(int).T)]
    allowed = path[((along < -0.35) | (along > 0.55)) & (np.abs(along) < 0.95)]  # not through the midbrain
    if len(allowed) < 2:
        return None
    spots, levels = [], []
    for _ in range(int(rng.integers(1, 4))):
        row, column = map(float, allowed[rng.integers(len(allowed))])
        long = log_uniform(rng, 2, 14) / 2 / place.pixel_mm
        spots.append((row, column, long, _radius(place, rng, 1.0, 3.5), -place.turn))
        levels.append(_calcium(rng))
    return _spots(spots, levels, _grain(place, rng))


def _basal_ganglia(place: Anatomy, rng: Random) -> Drawn | None:
    """Faint, blotchy calcium of the pallidum, mostly on both sides."""
    if not deep(place):
        return None
    lateral, posterior = rng.uniform(0.24, 0.36), rng.uniform(-0.2, 0.02)
    lean = rng.uniform(0.2, 0.6)
    spots, levels = [], []
    level = log_uniform(rng, 55, 160)
    for side in (-1, 1):
        if rng.random() < 0.15:  # sometimes on one side
            continue
        row, column = place.pixel(side * lateral * rng.uniform(0.9, 1.1), posterior + rng.uniform(-0.03, 0.03))
        long = log_uniform(rng, 3, 12) / 2 / place.pixel_mm
        spots.append((row, column, long, long * rng.uniform(0.3, 0.7), side * lean - place.turn))
        levels.append(level * rng.uniform(0.7, 1.2))
    grain = mottle(rng, place.hounsfield.shape, 1.5, rng.uniform(0.3, 1.0)) - 0.2
    return _spots(spots, levels, grain) if spots else None


def _line(paths: list[NDArray[np.float64]], width: float, level: float) -> Drawn:
    def draw(place: Anatomy, share: float) -> Slice:
        weight = np.max([strip(path, place.hounsfield.shape, width) for path in paths], axis=0)
        return painted(place, weight * share, np.maximum(level, place.tissue))

    return draw


def _dense_falx(place: Anatomy, rng: Random) -> Drawn | None:
    """The falx of a dehydrated or old patient: a thin bright line from front to back, through its whole height."""
    if place.at_base:
        return None
    width, level = rng.uniform(1.0, 3.0) / place.pixel_mm, rng.uniform(44, 68)
    front, back = rng.uniform(-0.5, -0.2), rng.uniform(0.25, 0.6)
    whole = not ventricles(place).any() and rng.random() < 0.7

    def draw(here: Anatomy, share: float) -> Slice:
        path = falx(here)
        along = here.posterior[tuple(np.rint(path).astype(int).T)]
        kept = path if whole else path[(along < front) | (along > back)]
        if not len(kept):
            return here.hounsfield
        weight = strip(kept, here.hounsfield.shape, width) * share
        return painted(here, weight, np.maximum(level, here.tissue))

    return draw


def _dense_tentorium(place: Anatomy, rng: Random) -> Drawn | None:
    """Both leaves, from the straight sinus outward: a V that opens to the front or the back, by the slice's height."""
    if not (place.at_base or deep(place)) or place.filled < 0.6:  # above the lower posterior fossa
        return None
    start, slope, reach = rng.uniform(0.25, 0.55), rng.uniform(-0.4, 0.35), rng.uniform(0.4, 0.9)
    bend = rng.uniform(-0.35, 0.0)
    sides = (-1, 1) if rng.random() < 0.8 else (int(rng.choice([-1, 1])),)
    width, level = rng.uniform(1.5, 5.0) / place.pixel_mm, rng.uniform(43, 60)
    steps = np.linspace(0.02, 1, 12)
    paths = [
        polyline(np.array([place.pixel(side * reach * s, start + slope * s + bend * s * s) for s in steps]))
        for side in sides
    ]
    uneven = mottle(rng, place.hounsfield.shape, 6.0, 0.25)

    def draw(here: Anatomy, share: float) -> Slice:
        weight = np.max([strip(path, here.hounsfield.shape, width) for path in paths], axis=0)
        fading = np.clip(1.1 - (here.lateral / reach) ** 2 + uneven, 0, 1)
        soft = ndimage.gaussian_filter(weight * fading, 0.8) * share
        return painted(here, soft, np.maximum(level, here.tissue))

    return draw


def _sinus(place: Anatomy, rng: Random) -> Drawn | None:
    """Superior sagittal sinus at the hind (or front) end of the falx; transverse sinus in the posterior fossa."""
    level, reach = rng.uniform(58, 78), rng.uniform(8, 16) / place.pixel_mm
    transverse = place.at_base and rng.random() < 0.7
    sides = [side for side in (-1, 1) if rng.random() < 0.7] or [1]
    thick, front = rng.uniform(3, 8) / place.pixel_mm, rng.uniform(0.1, 0.6)
    ends = (-1,) if rng.random() < 0.7 else (0, -1)

    def draw(here: Anatomy, share: float) -> Slice:
        depth = here.inside.depth
        if transverse:
            beside = np.max([side * here.lateral for side in sides], axis=0)
            weight = np.clip(thick - depth + 0.5, 0, 1) * (here.posterior > front) * (beside > 0)
        else:
            path, weight = falx(here), np.zeros_like(depth)
            for end in ends if len(path) else ():
                beside = np.abs(here.lateral * here.half[0] - _lateral(here, path[end]) * here.half[0])
                near = np.hypot(*(np.indices(depth.shape) - path[end][:, None, None])) < 1.6 * reach
                weight = np.maximum(weight, np.clip(reach - depth - 1.3 * beside + 0.5, 0, 1) * near)
        soft = ndimage.gaussian_filter(weight.astype(np.float32), 0.7) * share
        return painted(here, soft, np.maximum(level, here.tissue))

    return draw


def _lateral(place: Anatomy, point: NDArray[np.float64]) -> float:
    row, column = np.clip(np.rint(point).astype(int), 0, np.array(place.lateral.shape) - 1)
    return float(place.lateral[row, column])


def _vessel(place: Anatomy, rng: Random) -> Drawn | None:
    """The basilar tip as a spot before the brain stem, or a middle cerebral artery as a curved line to the side."""
    if not (place.at_base or place.below_vertex):
        return None
    level = rng.uniform(50, 80)
    dark = np.argwhere(csf(place) & (np.abs(place.lateral) < 0.12) & (np.abs(place.posterior) < 0.5))
    middle = place.pixel(rng.uniform(-0.03, 0.03), rng.uniform(-0.3, 0.05))
    if len(dark) and rng.random() < 0.7:
        middle = (float(dark[len(dark) // 2][0]), float(dark[len(dark) // 2][1]))
    if rng.random() < 0.5 or place.filled < 0.6:  # the middle cerebral arteries lie above the posterior fossa
        radius = rng.uniform(1.5, 3.0) / place.pixel_mm
        return _spots([(*middle, radius, radius * rng.uniform(0.7, 1), 0.0)], [level], np.zeros_like(place.tissue))
    steps, bend = np.linspace(0, 1, 10), rng.uniform(-0.25, 0.15)
    start, reach, rise = rng.uniform(0.04, 0.15), rng.uniform(0.25, 0.55), rng.uniform(-0.2, 0.05)
    front = float(place.posterior[round(middle[0]), round(middle[1])])
    sides = (-1, 1) if rng.random() < 0.5 else (int(rng.choice([-1, 1])),)
    paths = [
        polyline(
            np.array([place.pixel(side * (start + reach * s), front + rise * s + bend * s * (1 - s)) for s in steps])
        )
        for side in sides
    ]
    return _line(paths, rng.uniform(1.5, 3.5) / place.pixel_mm, level)


def _beam_hardening(place: Anatomy, rng: Random) -> Drawn | None:
    """Dark and bright bands across the base, from one petrous bone to the other."""
    if not place.at_base:
        return None
    bands = [
        (rng.uniform(-0.9, 0.3), rng.uniform(-0.12, 0.12), rng.uniform(1.5, 7), rng.uniform(-22, 16), rng.uniform(1, 3))
        for _ in range(int(rng.integers(2, 6)))
    ]

    def draw(here: Anatomy, share: float) -> Slice:
        field = np.zeros_like(here.tissue)
        for posterior, slope, width, change, fade in bands:
            away = (here.posterior - posterior - slope * here.lateral) * here.half[1]
            band = np.exp(-((away / width) ** 2)) - 0.5 * np.exp(-((away / (2 * width)) ** 2))
            field += (2 * change * band * np.exp(-((here.lateral * fade / 2) ** 2))).astype(np.float32)
        return np.asarray(here.hounsfield + share * field * here.inside.mask, dtype=np.float32)

    return draw


def _shunt(place: Anatomy, rng: Random) -> Drawn | None:
    """A ventricular catheter: a thin, straight line from the inner table to the ventricle, or a dot."""
    if place.at_base:
        return None
    side, level = int(rng.choice([-1, 1])), log_uniform(rng, 120, 400)
    tip = place.pixel(side * rng.uniform(0.02, 0.2), rng.uniform(-0.3, 0.25))
    width = rng.uniform(1.8, 3.2) / place.pixel_mm
    if rng.random() < 0.35:
        return _spots([(*tip, width / 2, width / 2, 0.0)], [level], np.zeros_like(place.tissue))
    entry = (side * rng.uniform(0.4, 0.6), -0.75) if rng.random() < 0.5 else (side * 0.55, 0.7)
    start = np.array(place.pixel(*entry))
    from_tip = rng.uniform(0.3, 1.0)  # a slice holds only part of an oblique catheter
    path = polyline(np.stack([np.array(tip) + from_tip * (start - np.array(tip)), np.array(tip)]))
    return _line([path], width, level)


_PLACED: dict[Mimic, Callable[[Anatomy, Random], Drawn | None]] = {
    Mimic.CHOROID: _choroid,
    Mimic.PINEAL: _pineal,
    Mimic.FALX_CALCIUM: _falx_calcium,
    Mimic.BASAL_GANGLIA: _basal_ganglia,
    Mimic.DENSE_FALX: _dense_falx,
    Mimic.DENSE_TENTORIUM: _dense_tentorium,
    Mimic.SINUS: _sinus,
    Mimic.VESSEL: _vessel,
    Mimic.BEAM_HARDENING: _beam_hardening,
    Mimic.SHUNT: _shunt,
}
_ARTEFACTS: dict[Mimic, Callable[[Stack, Random], Stack]] = {Mimic.MOTION: with_motion, Mimic.NOISE: with_noise}
_LONG = {Mimic.DENSE_FALX, Mimic.DENSE_TENTORIUM, Mimic.SINUS, Mimic.BEAM_HARDENING}
assert set(_PLACED) | set(_ARTEFACTS) == set(Mimic)
