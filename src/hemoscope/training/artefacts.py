"""Artefacts of a whole slice, drawn into stacks of HU (slices, rows, columns): a head that moves, and few photons."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.training.painting import mottle

Stack = NDArray[np.float32]
Random = np.random.Generator

_AIR_HU = -1000


def with_motion(stack: Stack, rng: Random) -> Stack:
    """A head that moved while a slice was recorded, in the middle slice and perhaps beside it: streaks from bone.

    It turns by up to 1.5 degrees and shifts by up to .8% of the crop: with more, the slice would be scanned again. The
    views before the movement see one position, those after it another. By the Fourier slice theorem, the views of
    an angle are a line through the middle of the slice's transform, so that each position gives a wedge of it.
    """
    new, middle = np.array(stack), len(stack) // 2
    frequencies = [np.fft.fftfreq(side) for side in stack.shape[1:]]
    angles = np.arctan2(frequencies[0][:, None], frequencies[1][None, :]) % np.pi
    start, share = rng.uniform(0, np.pi), rng.uniform(0.1, 0.5)
    moved_views = (angles - start) % np.pi < share * np.pi
    turn, shift = np.deg2rad(rng.uniform(-1.5, 1.5)), rng.uniform(-0.008, 0.008, size=2) * stack.shape[1]
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    center = (np.array(stack.shape[1:]) - 1) / 2
    for number in range(len(stack)):
        if number != middle and rng.random() < 0.5:
            continue
        moved = ndimage.affine_transform(
            stack[number], matrix, center - matrix @ (center + shift), order=1, cval=_AIR_HU
        )
        # Real again: the wedge holds each frequency with its opposite, but for the highest one of an even side.
        change = np.fft.ifft2(np.where(moved_views, np.fft.fft2(moved - stack[number]), 0)).real
        new[number] = stack[number] + change
    return new


def with_noise(stack: Stack, rng: Random) -> Stack:
    """Few photons: coarse noise with faint streaks in one direction. Less than hides a bleed."""
    spread, grain, streaks = rng.uniform(2, 7), rng.uniform(0.4, 1.0), rng.uniform(0, 0.5)
    turn = rng.uniform(-25, 25)
    fields = []
    for _ in stack:
        fine = mottle(rng, stack.shape[1:], grain, spread)
        lines = ndimage.gaussian_filter(rng.standard_normal(stack.shape[1:], dtype=np.float32), (0.8, 10))
        lines = ndimage.rotate(lines, turn, reshape=False, order=1, mode="reflect")
        fields.append(fine + lines * np.float32(streaks * spread / max(float(lines.std()), 1e-6)))
    return np.asarray(stack + np.stack(fields) * (stack > -500), dtype=np.float32)  # air stays air
