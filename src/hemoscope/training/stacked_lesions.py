"""Lesion augmentation of a stack of neighbouring slices: a bleed continues above and below the middle slice.

A bleed of a few millilitres is one to four centimetres high, so it appears in several 5 mm slices. A lesion in only the
middle slice would teach a network that blood differs from the neighbouring slices, which is not true of real bleeds.
Lesions therefore continue:

- *pasted*: every slice of the stack gets the donor's slice at the same distance, with the same random movement and the
  same mask: beyond the donor's bleed, brain without blood is pasted.
- *synthetic*: the lesion shrinks from slice to slice, at different rates upward and downward, and may end before the
  first neighbour. It raises the neighbour's tissue to the HU of the blood in the middle slice and keeps the
  neighbour's own noise, because noise is independent between slices.

Label and mask are those of the middle slice. A stack of one slice uses the same random numbers as a single slice.
Stacks are float32 HU (slices, rows, columns), from inferior to superior.
"""

from copy import deepcopy
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.labels import Hemorrhage
from hemoscope.training.anatomical_lesions import anatomical_lesion
from hemoscope.training.synthetic_lesions import Inside, Mask, Slice, inside_skull, paste_lesion, synthesize_lesion

Stack = NDArray[np.float32]
Shapes = Literal["simple", "anatomical"]

_SOFT_HU = 100
_STEEPEST = 1.5  # above 1, a lesion ends before the next slice
_EDGE_PIXELS = 1.0
_SMOOTH_PIXELS = 2.0
_LEAST_WEIGHT = 1e-3


def paste_in_stack(
    stack: Stack,
    donor: Stack,
    mask: Mask,
    rng: np.random.Generator,
    *,
    inside: Inside | None = None,
    least_lift: float | None = None,
) -> tuple[Stack, Mask] | None:
    """Paste another head's bleed slice by slice; None if the middle slice has no room for it or does not show it.

    Args:
        stack: (n, S, S), unchanged.
        donor: (n, S, S) of the head with the bleed.
        mask: (S, S) of the bleed in the donor's middle slice.
        rng: random movement of the bleed.
        inside: ``inside_skull`` of the middle slice, if it is known already.
        least_lift: of the middle slice, in HU, as in ``paste_lesion``.
    """
    middle = len(stack) // 2
    same = [deepcopy(rng) for _ in range(len(stack) - 1)]  # the same movement for all slices
    lesion = paste_lesion(stack[middle], donor[middle], mask, rng, inside=inside, least_lift=least_lift)
    if lesion is None:
        return None
    new = np.array(stack)
    for i, again in zip((i for i in range(len(stack)) if i != middle), same, strict=True):
        beside = paste_lesion(stack[i], donor[i], mask, again)
        if beside is not None:
            new[i] = beside[0]
    new[middle] = lesion[0]
    return new, lesion[1]


def synthesize_in_stack(
    stack: Stack,
    kind: Hemorrhage,
    rng: np.random.Generator,
    shapes: Shapes = "simple",
    *,
    inside: Inside | None = None,
) -> tuple[Stack, Mask] | None:
    """Add a synthetic lesion of one type to a stack (n, S, S); None if the middle slice has no room for it.

    ``inside`` is ``inside_skull`` of the middle slice, if it is known already.
    """
    if shapes == "anatomical":
        return anatomical_lesion(stack, kind, rng)
    middle = len(stack) // 2
    lesion = synthesize_lesion(stack[middle], kind, rng, inside=inside)
    if lesion is None:
        return None
    new = np.array(stack)
    new[middle], shape = lesion
    if middle:
        depth = _depth(inside or inside_skull(stack[middle]), shape)
        for step in (-1, 1):
            pace = rng.uniform(0, _STEEPEST)
            for distance in range(1, middle + 1):
                left = depth > distance * pace * depth.max()
                new[middle + step * distance] = _continued(stack[middle + step * distance], new[middle], left)
    return new, shape


def _depth(inside: Inside | None, shape: Mask) -> Slice:
    """Distance of each lesion pixel from healthy tissue, so that a shrinking bleed stays at the inner table."""
    healthy = ~shape if inside is None else inside.mask & ~shape
    return np.asarray(ndimage.distance_transform_edt(~healthy) * shape, dtype=np.float32)


def _continued(neighbour: Slice, bleeding: Slice, shape: Mask) -> Slice:
    """Raise the neighbour's tissue inside the shape to the HU of the bleeding slice."""
    inside = inside_skull(neighbour) if shape.any() else None
    if inside is None:
        return neighbour
    shape = shape & inside.mask & (neighbour < _SOFT_HU)
    if not shape.any():
        return neighbour
    lift = np.clip(_level(bleeding, shape) - _level(neighbour, shape), 0, None)
    edge = ndimage.gaussian_filter(shape.astype(np.float32), _EDGE_PIXELS) * (neighbour < _SOFT_HU)
    return np.asarray(neighbour + edge * lift, dtype=np.float32)


def _level(hounsfield: Slice, shape: Mask) -> Slice:
    """Low-frequency HU inside the shape, without adjacent bone."""
    weight = ndimage.gaussian_filter(shape.astype(np.float32), _SMOOTH_PIXELS)
    total = ndimage.gaussian_filter(np.where(shape, hounsfield, 0).astype(np.float32), _SMOOTH_PIXELS)
    return np.asarray(total / np.maximum(weight, _LEAST_WEIGHT), dtype=np.float32)
