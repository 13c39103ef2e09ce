"""Divides the slices of a series into acquisitions: what was scanned and computed as one."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.geometry import measured_positions, spacing_mm
from hemoscope.dicom.ordering import tie_break
from hemoscope.dicom.quality import is_sharp_kernel
from hemoscope.dicom.slices import SliceHeader

Headers = list[SliceHeader]
_Key = Callable[[SliceHeader], Hashable | None]
# Nearer than this share of their thickness, a slice of a second stack shows what the first one has shown.
APART = 0.75
_NEXT = 1.5  # of the thickness: farther away, there is a gap


def acquisitions(headers: Sequence[SliceHeader]) -> list[Headers]:
    """Divide the slices of one series by frame of reference, kernel, kind and Image Type.

    Of Image Type (0008,0008) the first two values count: original or derived, primary or secondary. The others name
    what the slices are in words of each vendor, and divide only slices that overlap. Soft kernels and Image Types do
    not divide slices that lie between or beside each other: they are one head.
    """
    keys: tuple[_Key, ...] = (
        lambda header: header.convolution_kernel,
        lambda header: header.image_type[:2] or None,
    )
    whole = _divided_by(headers, (lambda header: header.frame_of_reference_uid, lambda header: header.kind))
    return [found for group in whole for found in _joined(_divided_by(group, keys))]


def thickness_of(headers: Sequence[SliceHeader], places: Sequence[float]) -> list[float]:
    """Return the thickness of each slice, for those that lack it the typical spacing."""
    typical = spacing_mm(sorted(set(places))) or 0.0
    return [header.slice_thickness_mm or typical for header in headers]


def extents_mm(headers: Sequence[SliceHeader], places: Sequence[float]) -> NDArray[np.float64]:
    """Return the length along the normal that each slice stands for: its thickness, at least the spacing of its stack.

    Reformatted slices often state the thickness of what they were made from. Gaps as long as a slice are gaps, though:
    every second slice of a stack.
    """
    typical = spacing_mm(sorted(set(places))) or 0.0
    thickness = np.array(thickness_of(headers, places), dtype=np.float64)
    every_second = (thickness >= 0.4 * typical) & (thickness <= 0.6 * typical)
    return np.asarray(np.where(every_second, thickness, np.maximum(thickness, typical)), dtype=np.float64)


def _divided_by(headers: Sequence[SliceHeader], keys: Sequence[_Key]) -> list[Headers]:
    groups = [list(headers)]
    for key in keys:
        groups = [part for group in groups for part in divided(group, key)]
    return groups


def divided(headers: Sequence[SliceHeader], key: _Key) -> list[Headers]:
    """Group by a key, the largest group first; slices without the key belong to the largest group."""
    groups: dict[Hashable | None, Headers] = {}
    for header in headers:
        groups.setdefault(key(header), []).append(header)
    unknown = groups.pop(None, [])
    found = sorted(groups.values(), key=lambda group: (-len(group), min(map(tie_break, group))))
    return [[*found[0], *unknown], *found[1:]] if found else [unknown]


def _joined(groups: Sequence[Headers]) -> list[Headers]:
    """Join groups, all with a sharp kernel or none, that show adjacent places."""
    found: list[Headers] = []
    for group in groups:
        fitting = next((one for one in found if _is_sharp(one) == _is_sharp(group) and _adjacent(one, group)), None)
        if fitting is None:
            found.append(group)
        else:
            fitting += group
    return found


def _is_sharp(headers: Headers) -> bool:
    return is_sharp_kernel(headers[0].convolution_kernel, headers[0].series_description)


def _adjacent(one: Headers, other: Headers) -> bool:
    """Whether no slice of one group shows what the other does, and some lie next to each other."""
    places = [place for place in measured_positions([*one, *other]) if place is not None]
    if len(places) < len(one) + len(other):
        return False
    mine, theirs = places[: len(one)], places[len(one) :]
    extents = np.add.outer(extents_mm(one, mine), extents_mm(other, theirs)) / 2
    distances = np.abs(np.subtract.outer(mine, theirs))
    return bool((distances >= APART * extents).all() and (distances <= _NEXT * extents).any())
