"""Objects and artefacts for the mimic set of ``mimic_set.py``; no code is shared with the mimics of training.

Objects are solids in millimetres, sampled three times finer than the pixels and five times through the slice, averaged
(partial volume in three directions), blurred by the scanner's point spread, and put in place of the tissue. Artefacts
are made in projections: beam hardening and metal as errors of the line integrals, motion as projections of two
positions, noise as noise of the line integrals, each reconstructed by filtered back projection. Slices are HU
(rows, columns), from front to back and from the patient's right to left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Solid = Callable[[Floats, Floats, Floats], NDArray[np.bool_]]  # x, y, z in mm from the object's middle -> inside

SLICE_MM = 5.0
HEAD_MM = 190.0  # CT-ICH states no spacing: the longest head of a series is taken as an adult's
FINE, THROUGH = 3, 5
POINT_SPREAD_MM = 0.5
ANGLES, SIDE = 120, 160


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Where the brain lies in a slice: middle (row, column), half axes in pixels, turn, pixel size, and its mask."""

    middle: tuple[float, float]
    half: tuple[float, float]
    turn: float
    mm: float
    brain: NDArray[np.bool_]

    def pixel(self, right: float, back: float) -> tuple[float, float]:
        """Row and column of a position in half axes."""
        x, y = right * self.half[1], back * self.half[0]
        sine, cosine = np.sin(self.turn), np.cos(self.turn)
        return self.middle[0] + y * cosine + x * sine, self.middle[1] + x * cosine - y * sine


def brain_of(hounsfield: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Soft tissue enclosed by bone, on every fourth pixel; all False where bone encloses none."""
    coarse = hounsfield[::4, ::4]
    bone = ndimage.binary_closing(np.pad(coarse > 250, 6), iterations=4)[6:-6, 6:-6]
    regions, count = ndimage.label(ndimage.binary_fill_holes(bone) & ~bone)
    if not count:
        return np.zeros(coarse.shape, dtype=bool)
    largest = regions == 1 + int(np.bincount(regions.ravel())[1:].argmax())
    tissue = coarse[largest]
    return largest if 15 < np.median(tissue) < 55 and (tissue < -50).mean() < 0.03 else np.zeros_like(largest)


def frame_of(brain: NDArray[np.bool_], shape: tuple[int, ...], mm: float) -> Frame:
    """Middle and axes of a brain mask (every fourth pixel), turned to where it is most like its mirror image."""
    rows, columns = np.nonzero(brain)
    middle = rows.mean(), columns.mean()
    x, y = columns - middle[1], rows - middle[0]
    reach = int(max(np.abs(x).max(), np.abs(y).max())) + 2
    best, turn = -1.0, 0.0
    for degrees in range(-16, 17, 2):
        angle = np.deg2rad(degrees)
        across = np.rint(x * np.cos(angle) + y * np.sin(angle)).astype(int)
        along = np.rint(y * np.cos(angle) - x * np.sin(angle)).astype(int)
        grid = np.zeros((4 * reach, 4 * reach), dtype=bool)
        grid[along + 2 * reach, across + 2 * reach] = True
        mirrored = np.roll(grid[:, ::-1], 1, axis=1)
        same = (grid & mirrored).sum() / grid.sum() - 0.001 * abs(degrees)
        if same > best:
            best, turn = same, angle
    across, along = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    half = float(np.ptp(along)) * 2, float(np.ptp(across)) * 2
    shift = (along.max() + along.min()) / 2, (across.max() + across.min()) / 2
    row = middle[0] + shift[0] * np.cos(turn) + shift[1] * np.sin(turn)
    column = middle[1] + shift[1] * np.cos(turn) - shift[0] * np.sin(turn)
    mask = brain.repeat(4, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]]
    return Frame((float(4 * row + 1.5), float(4 * column + 1.5)), half, float(turn), mm, mask)


def ellipsoid(half_mm: tuple[float, float, float], turn: float = 0.0) -> Solid:
    """Solid ellipsoid: half axes x, y, z."""

    def inside(x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        return np.asarray((u / half_mm[0]) ** 2 + (v / half_mm[1]) ** 2 + (z / half_mm[2]) ** 2 <= 1)

    return inside


def tube(points_mm: Floats, radius_mm: float) -> Solid:
    """Solid tube along a polyline (n, 3) of x, y, z."""

    def inside(x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
        found = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=bool)
        for start, end in pairwise(points_mm):
            way = end - start
            along = ((x - start[0]) * way[0] + (y - start[1]) * way[1] + (z - start[2]) * way[2]) / max(way @ way, 1e-9)
            along = np.clip(along, 0, 1)
            offsets = (value - start[i] - along * way[i] for i, value in enumerate((x, y, z)))
            found |= sum(offset**2 for offset in offsets) <= radius_mm**2
        return found

    return inside


def sheet(points_mm: Floats, thick_mm: float, lean: float) -> Solid:
    """A membrane that stands on a polyline (n, 2) of x, y and leans outward by ``lean`` mm for each mm upward."""

    def inside(x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
        flat = np.column_stack([points_mm, np.zeros(len(points_mm))])
        outward = np.sign(points_mm[:, 0].mean() or 1.0)
        return tube(flat, thick_mm / 2)(x - outward * lean * z, y, np.zeros_like(z))

    return inside


def prism(width_mm: float, depth_mm: float, turn: float) -> Solid:
    """A triangular prism along z: its base at the back, its tip in front."""

    def inside(x: Floats, y: Floats, z: Floats) -> NDArray[np.bool_]:
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        share = np.clip((v + depth_mm) / depth_mm, 0, 1)
        return np.asarray((np.abs(u) <= width_mm / 2 * share) & (v <= 0) & (v >= -depth_mm) & (np.abs(z) < 1e6))

    return inside


def filled(solid: Solid, center: tuple[float, float], z_mm: float, reach_mm: float, frame: Frame) -> Floats:
    """Share of each pixel of the slice that a solid fills; the slice's middle is ``z_mm`` above the solid's."""
    share = np.zeros(frame.brain.shape)
    reach = int(np.ceil(reach_mm / frame.mm)) + 3
    rows = slice(max(int(center[0]) - reach, 0), min(int(center[0]) + reach + 1, share.shape[0]))
    columns = slice(max(int(center[1]) - reach, 0), min(int(center[1]) + reach + 1, share.shape[1]))
    fine = (np.arange(FINE) + 0.5) / FINE - 0.5
    y, x = (
        ((np.arange(part.start, part.stop)[:, None] + fine).ravel() - middle) * frame.mm
        for part, middle in ((rows, center[0]), (columns, center[1]))
    )
    z = z_mm + ((np.arange(THROUGH) + 0.5) / THROUGH - 0.5) * SLICE_MM
    part = sum(solid(x[None, :], y[:, None], np.full((1, 1), level)).astype(np.float64) for level in z) / THROUGH
    height, width = len(y) // FINE, len(x) // FINE
    share[rows, columns] = part.reshape(height, FINE, width, FINE).mean(axis=(1, 3))
    return np.asarray(ndimage.gaussian_filter(share, POINT_SPREAD_MM / frame.mm))


def replaced(hounsfield: Floats, share: Floats, level: float, frame: Frame) -> Floats:
    """Put an object of ``level`` HU in the place of tissue, inside the brain's mask only."""
    near = ndimage.gaussian_filter(np.clip(hounsfield, -20, 120), 1.5 / frame.mm)
    return np.asarray(hounsfield + share * (level - near) * frame.brain)


def projected(image: Floats) -> Floats:
    """Line integrals (angles, SIDE) of an image (SIDE, SIDE), in pixels."""
    turns = np.linspace(0, 180, ANGLES, endpoint=False)
    return np.stack([ndimage.rotate(image, turn, reshape=False, order=1).sum(axis=0) for turn in turns])


def reconstructed(sinogram: Floats) -> Floats:
    """Filtered back projection (SIDE, SIDE) of line integrals (angles, SIDE)."""
    frequency = np.fft.fftfreq(2 * SIDE)
    ramp = 2 * np.abs(frequency) * np.cos(np.pi * frequency)  # less noise at the highest frequencies
    spectra = np.fft.fft(sinogram, 2 * SIDE, axis=1) * ramp
    clean = np.real(np.fft.ifft(spectra, axis=1))[:, :SIDE]
    middle = (SIDE - 1) / 2
    rows, columns = np.indices((SIDE, SIDE)) - middle
    found = np.zeros((SIDE, SIDE))
    for turn, line in zip(np.linspace(0, np.pi, ANGLES, endpoint=False), clean, strict=True):
        found += np.interp(columns * np.cos(turn) - rows * np.sin(turn) + middle, np.arange(SIDE), line, 0, 0)
    return found * np.pi / (2 * ANGLES)


def coarse(hounsfield: Floats) -> Floats:
    """The slice at SIDE x SIDE, averaged."""
    factor = [SIDE / side for side in hounsfield.shape]
    blurred = ndimage.gaussian_filter(hounsfield, [0.4 / part for part in factor])
    return np.asarray(ndimage.zoom(blurred, factor, order=1))


def fine(artefact: Floats, shape: tuple[int, ...]) -> Floats:
    """An artefact (SIDE, SIDE) in the size of the slice."""
    return np.asarray(ndimage.zoom(artefact, [side / SIDE for side in shape], order=1))


def beam_hardening(hounsfield: Floats, frame: Frame, rng: np.random.Generator) -> Floats:
    """Bands between dense bones: the error of a line integral grows with the square of its way through bone."""
    bone = np.clip(coarse(hounsfield) - 200, 0, 2000) / 1000
    error = fine(reconstructed(-(projected(bone) ** 2)), hounsfield.shape)
    error -= np.median(error[frame.brain])
    scale = rng.uniform(8, 25) / max(float(-np.percentile(error[frame.brain], 3)), 1e-6)
    return np.asarray(hounsfield + np.clip(scale * error, -60, 40) * (hounsfield > -300))


def metal(hounsfield: Floats, frame: Frame, center: tuple[float, float], rng: np.random.Generator) -> Floats:
    """A clip with streaks: lines through metal lose most where they also cross much bone."""
    share = filled(ellipsoid((rng.uniform(1, 2), rng.uniform(2, 5), 4.0), rng.uniform(0, np.pi)), center, 0, 6, frame)
    clip, bone = coarse(share * 1000), np.clip(coarse(hounsfield), 0, 2000) / 1000
    through = projected(clip)
    noise = rng.normal(0, 0.5, through.shape)
    error = fine(reconstructed(-through * (projected(bone) / 50 + noise)), hounsfield.shape)
    scale = rng.uniform(15, 60) / max(float(np.percentile(np.abs(error[frame.brain]), 99)), 1e-6)
    streaked = hounsfield + np.clip(scale * error, -250, 250) * (hounsfield > -300)
    return np.asarray(streaked + share * 2500 * frame.brain)


def motion(hounsfield: Floats, rng: np.random.Generator) -> Floats:
    """A head that turned and shifted while the tube went around: projections of two positions."""
    still = coarse(hounsfield + 1000)
    turn, shift = rng.uniform(-1.5, 1.5), rng.uniform(-1, 1, size=2)
    moved = ndimage.shift(ndimage.rotate(still, turn, reshape=False, order=1), shift, order=1)
    first = int(rng.uniform(0.5, 0.85) * ANGLES)
    mixed = projected(still)
    mixed[first:] = projected(moved)[first:]
    return np.asarray(hounsfield + fine(reconstructed(mixed - projected(still)), hounsfield.shape))


def noise(hounsfield: Floats, rng: np.random.Generator) -> Floats:
    """Noise of a low dose: more in line integrals through more bone and tissue."""
    way = projected(np.clip(coarse(hounsfield) + 1000, 0, 3000) / 1000)
    field = reconstructed(rng.standard_normal(way.shape) * np.exp(way / (2 * max(float(way.max()), 1)) * 2))
    grain = fine(field / max(float(field.std()), 1e-6), hounsfield.shape) + 0.5 * rng.standard_normal(hounsfield.shape)
    return np.asarray(hounsfield + rng.uniform(3, 7) * grain * (hounsfield > -500))
