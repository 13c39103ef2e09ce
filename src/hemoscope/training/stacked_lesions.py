"""Lesions in a stack of neighbouring slices: what a bleed of the middle slice looks like above and below it.

A bleed of a few millilitres is one to four centimetres high, so that it is seen in several slices of 5 mm. A lesion in
the middle slice alone, between untouched neighbours, would teach a network with neighbours that blood is what differs
from them, which is true of no real bleed. So a lesion goes on:

- *pasted*: every slice of the stack receives the donor's slice at the same distance, moved by the same chance and
  through the same outline: where the donor's bleed ends, its brain without blood is what is pasted.
- *made*: the lesion narrows from slice to slice, upward and downward each at its own pace, and may end before the
  first neighbour. It brings the neighbour's tissue to the brightness of the middle slice's blood and leaves the
  neighbour its own noise: a copy of the same noise would be seen in no scan.

The label and the outline are those of the middle slice alone. A stack of one slice is a slice: the numbers drawn are
the same as without neighbours. Stacks are float32 HU (slices, rows, columns), from below to above.
"""

from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.labels import Hemorrhage
from hemoscope.training.lesions import Mask, Slice, inside_skull, paste_lesion, synthesize_lesion

Stack = NDArray[np.float32]

_SOFT_HU = 100
_STEEPEST = 1.5  # beyond 1 a lesion ends before the next slice
_EDGE_PIXELS = 1.0
_SMOOTH_PIXELS = 2.0
_LEAST_WEIGHT = 1e-3


def paste_in_stack(stack: Stack, donor: Stack, outline: Mask, rng: np.random.Generator) -> tuple[Stack, Mask] | None:
    """A real bleed of another head, slice onto slice; None where the middle slice has no place for it.

    Args:
        stack: (n, S, S), left as it was.
        donor: (n, S, S) of the head with the bleed.
        outline: (S, S) of the bleed in the donor's middle slice.
        rng: decides how the bleed is moved.
    """
    middle = len(stack) // 2
    same = [deepcopy(rng) for _ in stack]  # one movement for all slices
    lesion = paste_lesion(stack[middle], donor[middle], outline, rng)
    if lesion is None:
        return None
    new = np.array(stack)
    for i in (i for i in range(len(stack)) if i != middle):
        beside = paste_lesion(stack[i], donor[i], outline, same[i])
        if beside is not None:
            new[i] = beside[0]
    new[middle] = lesion[0]
    return new, lesion[1]


def synthesize_in_stack(stack: Stack, kind: Hemorrhage, rng: np.random.Generator) -> tuple[Stack, Mask] | None:
    """A bleed of one type by rule, through a stack (n, S, S); None where the middle slice has no place for it."""
    middle = len(stack) // 2
    lesion = synthesize_lesion(stack[middle], kind, rng)
    if lesion is None:
        return None
    new = np.array(stack)
    new[middle], shape = lesion
    if middle:
        depth = _depth(stack[middle], shape)
        for step in (-1, 1):
            pace = rng.uniform(0, _STEEPEST)
            for distance in range(1, middle + 1):
                left = depth > distance * pace * depth.max()
                new[middle + step * distance] = _continued(stack[middle + step * distance], new[middle], left)
    return new, shape


def _depth(hounsfield: Slice, shape: Mask) -> Slice:
    """Distance of a lesion's places from healthy tissue: a bleed along the inner table stays there as it thins."""
    inside = inside_skull(hounsfield)
    healthy = ~shape if inside is None else inside.mask & ~shape
    return np.asarray(ndimage.distance_transform_edt(~healthy) * shape, dtype=np.float32)


def _continued(neighbour: Slice, bleeding: Slice, shape: Mask) -> Slice:
    """The neighbour with its tissue inside the shape as bright as the bleeding slice is there."""
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
    """The slowly varying part of what lies inside the shape: bone beside it adds nothing."""
    weight = ndimage.gaussian_filter(shape.astype(np.float32), _SMOOTH_PIXELS)
    total = ndimage.gaussian_filter(np.where(shape, hounsfield, 0).astype(np.float32), _SMOOTH_PIXELS)
    return np.asarray(total / np.maximum(weight, _LEAST_WEIGHT), dtype=np.float32)
