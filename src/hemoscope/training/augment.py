"""Spatial and intensity augmentation of head-cropped HU: float32, shape (slices, rows, columns)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import grid_sample

from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import AIR
from hemoscope.training.scanner_variety import lower_dose, other_kernel, thicker_slices, tilted

Slice = NDArray[np.float32]
Stack = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """Strength of each augmentation; 0 turns it off.

    Attributes:
        flip: probability of a left-right flip.
        rotation: largest rotation in degrees, in either direction.
        scale: largest relative change of size, in either direction.
        shift: largest shift as a share of the side, in either direction.
        gain: largest relative change of HU, in either direction.
        offset: largest offset in HU, in either direction.
        noise: highest standard deviation of added noise in HU.
        blur: probability of a Gaussian blur of 0.4 to 1 pixels.
        kernel: probability of another reconstruction kernel, smoother or sharper.
        dose: highest standard deviation, in HU in a slice without bone, of correlated noise; up to 2.5 times as much at
            the skull base.
        thickness: probability that slices are averaged with their neighbours; for stacks of several slices.
        tilt: largest through-plane shift of the first and the last row in slices, in opposite directions; for stacks.
        field: further relative change of size, in either direction, as of another field of view around the head.
        turn: probability that the whole head is turned by any angle.
    """

    flip: float = 0.5
    rotation: float = 17.0
    scale: float = 0.2
    shift: float = 0.08
    gain: float = 0.05
    offset: float = 4.0
    noise: float = 8.0
    blur: float = 0.3
    kernel: float = 0.0
    dose: float = 0.0
    thickness: float = 0.0
    tilt: float = 0.0
    field: float = 0.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        """Reject a scanner variety that cannot be."""
        bounds = {"kernel": 1.0, "dose": 100.0, "thickness": 1.0, "tilt": 0.5, "field": 0.5, "turn": 1.0}
        for name, most in bounds.items():
            if not 0 <= getattr(self, name) <= most:
                msg = f"{name} must be 0 to {most:g}, got {getattr(self, name)}"
                raise ConfigError(msg)


def spatial_augmentation(
    stack: Stack, mask: Slice, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Stack, Slice]:
    """Flip, rotate, scale and shift a stack of slices and its lesion mask by the same transform; pad with air.

    All slices of a stack get the same transform. The identity transform returns the input unchanged, not resampled.
    """
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    mirror = -1.0 if rng.random() < config.flip else 1.0
    zoom = 1 + rng.uniform(-config.scale, config.scale)
    stretch = 1 + rng.uniform(-config.scale, config.scale) / 4
    right, down = rng.uniform(-2 * config.shift, 2 * config.shift, size=2)
    if config.turn and rng.random() < config.turn:
        angle += rng.uniform(-np.pi, np.pi)
    if config.field:
        zoom *= 1 + rng.uniform(-config.field, config.field)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    place = np.array([[mirror * cosine, -sine, right], [mirror * sine, cosine * stretch, down]])
    if np.array_equal(place, np.eye(2, 3)):
        return stack, mask
    grid = torch.from_numpy(_places(place.astype(np.float32), mask.shape))[None]
    moved = _moved(stack - AIR, grid) + AIR
    return moved, _moved(mask[None].copy(), grid)[0] if mask.any() else mask


def _places(place: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return where each pixel comes from, (rows, columns, 2): PyTorch's ``affine_grid``, at a tenth of its time."""
    rows, columns = (np.linspace(1 / n - 1, 1 - 1 / n, n, dtype=np.float32) for n in shape)
    grid = np.empty((*shape, 2), dtype=np.float32)
    for axis in range(2):
        grid[..., axis] = place[axis, 0] * columns + (place[axis, 1] * rows + place[axis, 2])[:, None]
    return grid


def _moved(stack: Stack, grid: torch.Tensor) -> Stack:
    """Sample slices at the places of a grid; 0 outside of them."""
    given = torch.from_numpy(stack)[None]
    found: Stack = grid_sample(given, grid, mode="bilinear", align_corners=False)[0].numpy()
    return found


def intensity_augmentation(stack: Stack, config: AugmentConfig, rng: np.random.Generator) -> Stack:
    """Return a new stack as another scanner and kernel would record it: other calibration, sharpness and noise.

    Calibration, sharpness, thickness and tilt are the same for all slices; noise is independent in each slice.
    """
    if config.tilt:
        stack = tilted(stack, config.tilt, rng)
    if config.thickness and rng.random() < config.thickness:
        stack = thicker_slices(stack, rng)
    if config.kernel and rng.random() < config.kernel:
        stack = other_kernel(stack, rng)
    if config.dose:
        stack = lower_dose(stack, config.dose, rng)
    stack = stack * np.float32(1 + rng.uniform(-config.gain, config.gain))
    stack += np.float32(rng.uniform(-config.offset, config.offset))
    if rng.random() < config.blur:
        stack = ndimage.gaussian_filter(stack, (0, *2 * [rng.uniform(0.4, 1.0)]))
    if config.noise and rng.random() < 0.7:
        noise = rng.standard_normal(stack.shape, dtype=np.float32)
        if rng.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, (0, 0.7, 0.7)) * np.float32(2.2)
        stack = stack + noise * np.float32(rng.uniform(0, config.noise))
    return np.asarray(stack, dtype=np.float32)
