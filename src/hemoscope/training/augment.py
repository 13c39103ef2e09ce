"""Augmentation of head-cropped HU: where the head lies, and how the scanner saw it. Float32 (rows, columns)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import affine_grid, grid_sample

from hemoscope.preprocess import AIR

Slice = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How far each change goes; zero switches it off.

    Attributes:
        flip: probability of a left-right mirror.
        rotation: degrees either way.
        scale: relative change of size either way.
        shift: part of the side, either way.
        gain: relative change of HU either way.
        offset: HU added, either way.
        noise: highest standard deviation of added noise in HU.
        blur: probability of a Gaussian blur of 0.4 to 1 pixels.
    """

    flip: float = 0.5
    rotation: float = 17.0
    scale: float = 0.2
    shift: float = 0.08
    gain: float = 0.05
    offset: float = 4.0
    noise: float = 8.0
    blur: float = 0.3


def move(image: Slice, outline: Slice, config: AugmentConfig, rng: np.random.Generator) -> tuple[Slice, Slice]:
    """Mirror, rotate, scale and shift a slice and its lesion outline alike; air comes in from outside."""
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    mirror = -1.0 if rng.random() < config.flip else 1.0
    zoom = 1 + rng.uniform(-config.scale, config.scale)
    stretch = 1 + rng.uniform(-config.scale, config.scale) / 4
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    right, down = rng.uniform(-2 * config.shift, 2 * config.shift, size=2)
    theta = torch.tensor([[[mirror * cosine, -sine, right], [mirror * sine, cosine * stretch, down]]])
    both = torch.from_numpy(np.stack([image - AIR, outline]))[None]
    grid = affine_grid(theta.float(), list(both.shape), align_corners=False)
    moved = grid_sample(both, grid, mode="bilinear", align_corners=False)[0].numpy()
    return moved[0] + AIR, moved[1]


def rescan(image: Slice, config: AugmentConfig, rng: np.random.Generator) -> Slice:
    """Change calibration, noise and sharpness as another scanner and kernel would."""
    image = image * np.float32(1 + rng.uniform(-config.gain, config.gain))
    image += np.float32(rng.uniform(-config.offset, config.offset))
    if rng.random() < config.blur:
        image = ndimage.gaussian_filter(image, rng.uniform(0.4, 1.0))
    if config.noise and rng.random() < 0.7:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        if rng.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, 0.7) * np.float32(2.2)
        image = image + noise * np.float32(rng.uniform(0, config.noise))
    return np.asarray(image, dtype=np.float32)
