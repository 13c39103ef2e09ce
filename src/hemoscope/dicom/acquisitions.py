"""Divides headers into what was acquired as one: patients, acquisitions of a series, and passes over one place.

Acquisition Number and time do not divide by themselves: sequential scanners change them from slice to slice. They
divide only slices that overlap, that is nearer to each other than half their thickness.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.geometry import measured_positions, spacing_mm
from hemoscope.dicom.ordering import OrderedSlices, tie_break
from hemoscope.dicom.quality import is_sharp_kernel
from hemoscope.dicom.slices import SliceHeader

Headers = list[SliceHeader]
_Key = Callable[[SliceHeader], Hashable | None]
_OVERLAP = 0.5  # of the thickness
# Nearer than this share of their thickness, a slice of a second stack shows what the first one has shown.
APART = 0.75
_NEXT = 1.5  # of the thickness: farther away, there is a gap
_LEAST_RUN = 3  # slices, on average: more runs of instance numbers than that are no scans


def patients(headers: Sequence[SliceHeader]) -> list[Headers]:
    """Divide the slices of one study by Patient ID (0010,0020), name (0010,0010) and birth date (0010,0030).

    Patients of different sites, and those whose identity was removed, can share an ID. Names are often spelled in two
    ways: they do not count where an ID and a birth date are given.
    """
    keys: tuple[_Key, ...] = (
        lambda header: header.patient_id,
        lambda header: header.patient_birth_date,
        lambda header: None if header.patient_id and header.patient_birth_date else header.patient_name,
    )
    return _divided_by(headers, keys)


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


def passes(ordered: OrderedSlices) -> list[Headers]:
    """Divide parallel slices of one size into passes over the same place; most series are one pass.

    A pass holds units of one thickness, kernel, Image Type, acquisition and run; two units that overlap are in
    different passes. Here a missing kernel is another one: nothing says which of the overlapping slices it belongs to.
    """
    headers, places = ordered.headers, ordered.places
    if places is None:
        return [list(headers)]
    units = _units(headers)
    conflicts = _conflicts(headers, places, units)
    if not conflicts:
        return [list(headers)]
    pass_of: dict[Hashable, int] = {}
    for header in sorted(headers, key=tie_break):
        unit = units[id(header)]
        if unit not in pass_of:
            taken = {pass_of[other] for other in conflicts.get(unit, ()) if other in pass_of}
            pass_of[unit] = next(number for number in range(len(taken) + 1) if number not in taken)
    found: dict[int, Headers] = {}
    for header in headers:
        found.setdefault(pass_of[units[id(header)]], []).append(header)
    return [found[number] for number in sorted(found)]


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
        groups = [part for group in groups for part in _divided(group, key)]
    return groups


def _divided(headers: Sequence[SliceHeader], key: _Key) -> list[Headers]:
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


def _units(headers: Sequence[SliceHeader]) -> dict[int, Hashable]:
    """Return the thickness, kernel, Image Type, acquisition and run of each slice, by its ``id``."""
    times = {header.acquisition[1] for header in headers}
    timed = _LEAST_RUN * len(times) <= len(headers)  # else time only counts slices
    runs = _runs(headers)
    return {
        id(header): (
            round(header.slice_thickness_mm or 0.0, 2),
            header.convolution_kernel,
            header.image_type,
            header.acquisition[0],
            header.acquisition[1] if timed else "",
            runs.get(id(header), 0),
        )
        for header in headers
    }


def _runs(headers: Sequence[SliceHeader]) -> dict[int, int]:
    """Number the runs in which places rise or fall with the instance number, else with the acquisition time.

    ``headers`` are in order of their places. None if values are unknown or repeated, or if runs are too short.
    """
    ways: tuple[Callable[[SliceHeader], tuple[float | str, int] | None], ...] = (
        lambda header: None if header.instance_number is None else (header.instance_number, header.frame),
        lambda header: (header.acquisition[1], header.frame) if header.acquisition[1] else None,
    )
    for value_of in ways:
        values = {value: index for index, header in enumerate(headers) if (value := value_of(header)) is not None}
        if len(values) == len(headers):
            found = _numbered([values[value] for value in sorted(values)])
            if _LEAST_RUN * (max(found.values()) + 1) <= len(headers):
                return {id(header): found[index] for index, header in enumerate(headers)}
    return {}


def _numbered(ranks: Sequence[int]) -> dict[int, int]:
    """Return the number of the run in which ranks rise or fall, for each rank."""
    run, direction, found = 0, 0, {ranks[0]: 0}
    for before, after in pairwise(ranks):
        step = 1 if after > before else -1
        if direction and step != direction:
            run, step = run + 1, 0
        direction = step
        found[after] = run
    return found


def _conflicts(
    headers: Sequence[SliceHeader], places: Sequence[float], units: dict[int, Hashable]
) -> dict[Hashable, set[Hashable]]:
    """Return, for each unit, the units that overlap it; ``places`` ascend."""
    thickness = thickness_of(headers, places)
    farthest = _OVERLAP * max(thickness)
    found: dict[Hashable, set[Hashable]] = {}
    for index, header in enumerate(headers):
        unit = units[id(header)]
        for other in range(index + 1, len(headers)):
            apart = places[other] - places[index]
            if apart >= farthest:
                break
            against = units[id(headers[other])]
            if against != unit and apart < _OVERLAP * (thickness[index] + thickness[other]) / 2:
                found.setdefault(unit, set()).add(against)
                found.setdefault(against, set()).add(unit)
    return found
