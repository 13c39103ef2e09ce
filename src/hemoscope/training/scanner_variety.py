"""How other scanners would record the same head: kernel, dose, slice thickness and gantry tilt.

Functions take stacks of HU, float32 (slices, rows, columns), return new ones and draw from ``rng``. Thickness and tilt
need neighbours: a stack of one slice comes back as it is, with the same random numbers drawn.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Stack = NDArray[np.float32]

_LOWEST, _HIGHEST = -1024, 3071  # HU that 12 bits hold
_SOFTEST, _SHARPEST = -0.7, 0.8  # sharper ones draw a dark rim inside the skull, wide enough to hide a bleed
_TISSUE_HU, _BONE_HU = -150, 300
_MUCH_BONE = 0.3  # share of the head's pixels at the skull base
_BASE_NOISE = 2.5  # noise at the skull base, as a multiple of that without bone


def other_kernel(stack: Stack, rng: np.random.Generator) -> Stack:
    """Weaken or raise the high frequencies, as a smoother or a sharper reconstruction kernel would, edges included."""
    width, strength = rng.uniform(0.6, 1.2), rng.uniform(_SOFTEST, _SHARPEST)
    fine = stack - ndimage.gaussian_filter(stack, (0, width, width))
    return np.asarray(np.clip(stack + np.float32(strength) * fine, _LOWEST, _HIGHEST), dtype=np.float32)


def lower_dose(stack: Stack, highest: float, rng: np.random.Generator) -> Stack:
    """Add noise with the texture of CT: correlated, without low frequencies, stronger where bone takes the photons.

    Args:
        stack: HU.
        highest: largest standard deviation in HU in a slice without bone.
        rng: of its strength, grain and pixels; every slice has its own noise.
    """
    level, grain = rng.uniform(0, highest), rng.uniform(0.5, 1.0)
    noise = rng.standard_normal(stack.shape, dtype=np.float32)
    texture = ndimage.gaussian_filter(noise, (0, grain, grain)) - ndimage.gaussian_filter(noise, (0, 3.0, 3.0))
    strength = np.array([level * _attenuation(one) for one in stack], dtype=np.float32)
    return np.asarray(stack + texture * (strength / texture.std())[:, None, None], dtype=np.float32)


def thicker_slices(stack: Stack, rng: np.random.Generator) -> Stack:
    """Average every slice with its neighbours, which weigh up to as much as itself; end slices are repeated."""
    weight = np.float32(rng.uniform(0.1, 1.0))
    if len(stack) == 1:
        return stack
    padded = np.pad(stack, [(1, 1), (0, 0), (0, 0)], mode="edge")
    return np.asarray((stack + weight * (padded[:-2] + padded[2:])) / (1 + 2 * weight), dtype=np.float32)


def tilted(stack: Stack, highest: float, rng: np.random.Generator) -> Stack:
    """Shear the stack: each row lies between its slice and the next above or below, by up to ``highest`` slices.

    The middle row stays; the first and the last row move in opposite directions.
    """
    most = rng.uniform(-highest, highest)
    if len(stack) == 1:
        return stack
    shift = np.linspace(-most, most, stack.shape[1], dtype=np.float32)[None, :, None]
    padded = np.pad(stack, [(1, 1), (0, 0), (0, 0)], mode="edge")
    near = np.where(shift < 0, padded[:-2], padded[2:])
    return np.asarray(stack + np.abs(shift) * (near - stack), dtype=np.float32)


def _attenuation(hounsfield: NDArray[np.float32]) -> float:
    """Noise relative to a slice without bone: rises with the share of bone in the head, up to the skull base."""
    head = int((hounsfield > _TISSUE_HU).sum())
    bone = int((hounsfield > _BONE_HU).sum()) / max(head, 1)
    return 1 + (_BASE_NOISE - 1) * min(bone / _MUCH_BONE, 1.0)
