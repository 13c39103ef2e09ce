"""Stacks of parallel slices: divides one acquisition into them, and unites those that lie apart in one head.

Where stacks overlap, only the better one by the rule of ``choose_series`` is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.acquisitions import APART, Headers, extents_mm
from hemoscope.dicom.geometry import SAME_PLACE_MM, measured_positions, parallel_groups
from hemoscope.dicom.grids import comparable, same_grid
from hemoscope.dicom.ordering import OrderedSlices, in_order
from hemoscope.dicom.passes import nothing_tells_apart, passes
from hemoscope.dicom.ranking import plane_of, preference
from hemoscope.dicom.slices import SliceHeader

# Farther from all others, a stack shows something else than this head.
_APART_MM = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Parallel slices of one size in anatomical order, without a second slice at any place.

    Attributes:
        slices: in order; ``unplaced`` are not in ``headers``.
        headers: the slices to read.
        duplicates: slices at the place of another one of the same stack.
        undecided: each of ``duplicates`` that only its UID tells from the slice that is read, after that slice.
    """

    slices: OrderedSlices
    headers: tuple[SliceHeader, ...]
    duplicates: tuple[SliceHeader, ...]
    undecided: tuple[tuple[SliceHeader, SliceHeader], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class United:
    """Stacks as one: the slices to read in order, and the others by the reason that excludes them.

    Attributes:
        parts: the slices of each stack that is read, the preferred first.
        overlapping: slices of other stacks where a better one is read.
        apart: slices of stacks that could not be united with the preferred one.
    """

    headers: tuple[SliceHeader, ...]
    parts: tuple[Headers, ...]
    overlapping: tuple[SliceHeader, ...]
    apart: tuple[SliceHeader, ...]


def divide(headers: Sequence[SliceHeader]) -> list[Stack]:
    """Divide the slices of one acquisition into stacks, the preferred one first."""
    stacks = []
    for group in _parallel(headers):
        whole = in_order(group)
        for number, part in enumerate(passes(whole)):
            unplaced = whole.unplaced if number == 0 else ()
            stacks.append(_stack(_part(whole, part, unplaced)))
    # Of stacks that are alike, one that states its kernel is known to be soft.
    return sorted(stacks, key=lambda stack: (preference(stack.headers), stack.headers[0].convolution_kernel is None))


def unite(stacks: Sequence[Stack]) -> United:
    """Unite the axial stacks of known positions that lie apart with the first stack, which is preferred."""
    base, *others = stacks
    waiting = [stack.headers for stack in others if _can_unite(base, stack)]
    apart = [header for stack in others if not _can_unite(base, stack) for header in stack.headers]
    places = _places([base.headers, *waiting]) if waiting else {}
    parts, overlapping = [list(base.headers)], list[SliceHeader]()
    while waiting:
        read = [header for part in parts for header in part]
        found = next((stack for stack in waiting if _distances(stack, read, places).min() <= _APART_MM), None)
        if found is None:
            break
        waiting.remove(found)
        free = _free(found, parts, places)
        parts.append([header for header in found if id(header) in free])
        overlapping += [header for header in found if id(header) not in free]
    apart += [header for stack in waiting for header in stack]
    read = [header for part in parts for header in part]
    places = _places([read])
    return United(
        headers=tuple(sorted(read, key=lambda header: places[id(header)]))
        if len(read) > len(base.headers)
        else base.headers,
        parts=tuple(part for part in parts if part),
        overlapping=tuple(overlapping),
        apart=tuple(apart),
    )


def _parallel(headers: Sequence[SliceHeader]) -> list[Headers]:
    """Divide by orientation, then by size and pixel spacing; slices that lack a spacing come last, to fit any."""
    groups: dict[int, list[Headers]] = {}
    numbered = zip(headers, parallel_groups(headers), strict=True)
    for header, number in sorted(numbered, key=lambda one: one[0].pixel_spacing_mm is None):
        grids = groups.setdefault(number, [])
        fitting = next((grid for grid in grids if same_grid(header, grid[0])), None)
        if fitting is None:
            grids.append([header])
        else:
            fitting.append(header)
    return [grid for grids in groups.values() for grid in grids]


def _part(whole: OrderedSlices, headers: Headers, unplaced: tuple[SliceHeader, ...]) -> OrderedSlices:
    places = whole.places
    if places is not None:
        place_of = dict(zip(map(id, whole.headers), places, strict=True))
        places = tuple(place_of[id(header)] for header in headers)
    return OrderedSlices(headers=tuple(headers), places=places, by=whole.by, unplaced=unplaced)


def _stack(ordered: OrderedSlices) -> Stack:
    kept: Headers = []
    duplicates: Headers = []
    undecided: list[tuple[SliceHeader, SliceHeader]] = []
    last: float | None = None
    for header, place in zip(ordered.headers, ordered.places or (None,) * len(ordered.headers), strict=True):
        if place is not None and last is not None and place - last <= SAME_PLACE_MM:
            duplicates.append(header)
            undecided += [(kept[-1], header)] if nothing_tells_apart(kept[-1], header) else []
            continue
        kept.append(header)
        last = place
    return Stack(slices=ordered, headers=tuple(kept), duplicates=tuple(duplicates), undecided=tuple(undecided))


def _can_unite(base: Stack, other: Stack) -> bool:
    placed = all(stack.slices.by == "position" and plane_of(stack.headers) == "axial" for stack in (base, other))
    return placed and comparable(base.headers[0], other.headers[0])


def _places(stacks: Sequence[Sequence[SliceHeader]]) -> dict[int, float]:
    """Return the position of each slice, by its ``id``, along one normal for all stacks."""
    headers = [header for stack in stacks for header in stack]
    found = zip(headers, measured_positions(headers), strict=True)
    return {id(header): place for header, place in found if place is not None}


def _distances(
    stack: Sequence[SliceHeader], others: Sequence[SliceHeader], places: dict[int, float]
) -> NDArray[np.float64]:
    """Return the distance of each slice (first axis) to each of ``others``."""
    mine, theirs = (np.array([places[id(header)] for header in headers]) for headers in (stack, others))
    return np.asarray(np.abs(mine[:, None] - theirs), dtype=np.float64)


def _free(stack: Sequence[SliceHeader], parts: Sequence[Headers], places: dict[int, float]) -> set[int]:
    """Return the ``id`` of each slice that shows what no slice of ``parts`` does."""
    free = np.ones(len(stack), dtype=bool)
    for part in parts:
        if part:
            mine, theirs = (_extents_mm(headers, places) for headers in (stack, part))
            free &= (_distances(stack, part, places) >= APART * (mine[:, None] + theirs) / 2).all(axis=1)
    return {id(header) for header, one in zip(stack, free, strict=True) if one}


def _extents_mm(headers: Sequence[SliceHeader], places: dict[int, float]) -> NDArray[np.float64]:
    return extents_mm(headers, [places[id(header)] for header in headers])
