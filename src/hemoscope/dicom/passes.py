"""Divides slices over one place into passes, by what tells two scans apart.

Acquisition Number and time do not divide by themselves: sequential scanners change them from slice to slice. They
divide only slices that overlap, that is nearer to each other than half their thickness.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from hemoscope.dicom.acquisitions import Headers, thickness_of
from hemoscope.dicom.geometry import SAME_PLACE_MM
from hemoscope.dicom.ordering import OrderedSlices, tie_break
from hemoscope.dicom.slices import SliceHeader

__all__ = ["nothing_tells_apart", "passes"]

_Place = tuple[SliceHeader, float]
_OVERLAP = 0.5  # of the thickness
_LEAST_RUN = 3  # slices, on average: more runs of instance numbers than that are no scans
_MOSTLY = 0.8  # of the instance numbers stand for several slices: several scans count alike


def nothing_tells_apart(one: SliceHeader, other: SliceHeader) -> bool:
    """Whether two slices at one place state the same number, acquisition and time: only their UIDs differ."""
    return _stated(one) == _stated(other)


def _stated(header: SliceHeader) -> Hashable:
    return header.instance_number, header.frame, header.acquisition


def passes(ordered: OrderedSlices) -> list[Headers]:
    """Divide parallel slices of one size into passes over the same place; most series are one pass.

    A pass holds units of one thickness, kernel, Image Type, acquisition and run; two units that overlap are in
    different passes. Here a missing kernel is another one: nothing says which of the overlapping slices it belongs to.
    """
    headers, places = ordered.headers, ordered.places
    if places is None:
        return [list(headers)]
    units = _units(headers, places)
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


def _units(headers: Sequence[SliceHeader], places: Sequence[float]) -> dict[int, Hashable]:
    """Return the thickness, kernel, Image Type, acquisition and run of each slice, by its ``id``."""
    times = {header.acquisition[1] for header in headers}
    timed = _LEAST_RUN * len(times) <= len(headers)  # else time only counts slices
    runs = _runs(headers, places)
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


def _runs(headers: Sequence[SliceHeader], places: Sequence[float]) -> dict[int, int]:
    """Number the scan of each slice, by its ``id``: scans follow each other, or state the same instance numbers.

    ``headers`` are in order of their places. Empty if nothing tells scans apart.
    """
    return (
        _runs_by(headers, places, lambda header: header.instance_number)
        or _runs_by(headers, places, lambda header: header.acquisition[1] or None)
        or _repeats(headers, places)
        or _runs_by(headers, places, _uid_numbers, shortest=_LEAST_RUN)
    )


def _runs_by(
    headers: Sequence[SliceHeader],
    places: Sequence[float],
    value_of: Callable[[SliceHeader], Any],
    *,
    shortest: int = 1,
) -> dict[int, int]:
    """Number the runs in which places rise or fall with a value that each slice has alone.

    Empty if values are unknown or repeated, or if runs are too short.
    """
    values = [(value_of(header), header.frame) for header in headers]
    if any(value is None for value, _ in values) or len(set(values)) < len(values):
        return {}
    found = _numbered(sorted(range(len(values)), key=values.__getitem__), places)
    lengths = Counter(found.values())
    if _LEAST_RUN * len(lengths) > len(headers) or min(lengths.values()) < shortest:
        return {}
    return {id(header): found[index] for index, header in enumerate(headers)}


def _numbered(ranks: Sequence[int], places: Sequence[float]) -> dict[int, int]:
    """Return the number of the run in which ranks rise or fall, for each rank."""
    steps = [abs(places[after] - places[before]) for before, after in pairwise(ranks)]
    typical = float(np.median(steps)) if steps else 0.0
    run, direction, found, last = 0, 0, {ranks[0]: 0}, 0.0
    for (before, after), size in zip(pairwise(ranks), steps, strict=True):
        step = 1 if after > before else -1
        if direction and step != direction:
            run, step = run + 1, 0
            if (
                last < _OVERLAP * typical
            ):  # the slice before the turn lies beside the end of its run: it starts the next
                found[before] = run
        direction, last = step, size
        found[after] = run
    return found


def _repeats(headers: Sequence[SliceHeader], places: Sequence[float]) -> dict[int, int]:
    """Rank the slices of one instance number by time, place and patient: two scans often count from 1 each.

    Slices of which only the UID differs have one rank, unless all UIDs of one scan come before those of the other.
    """
    numbers: dict[Hashable, list[_Place]] = {}
    for header, place in zip(headers, places, strict=True):
        if header.instance_number is not None:
            numbers.setdefault((header.instance_number, header.frame), []).append((header, place))
    repeated = [sorted(group, key=_rank_key) for group in numbers.values() if len(group) > 1]
    most = max(map(len, repeated), default=0)
    if len(repeated) < _MOSTLY * len(numbers) or _LEAST_RUN * most > len(headers):
        return {}
    ranked = [_ranked(group) for group in repeated]
    by_uid = _in_blocks(ranked)
    found: dict[int, int] = {}
    for ranks in ranked:
        first = 0
        for alike in ranks:
            for index, header in enumerate(alike):
                found[id(header)] = first + (index if by_uid else 0)
            first += len(alike)
    return found


def _rank_key(one: _Place) -> tuple[str, float, str, tuple[int, ...]]:
    header, place = one
    return header.acquisition[1], round(place, 1), header.patient_id or "", _uid_numbers(header)


def _ranked(group: Sequence[_Place]) -> list[Headers]:
    """Divide sorted slices of one instance number into those that nothing but the UID tells apart."""
    found: list[list[_Place]] = []
    for one in group:
        if found and _alike(found[-1][-1], one):
            found[-1].append(one)
        else:
            found.append([one])
    return [[header for header, _ in alike] for alike in found]


def _alike(one: _Place, other: _Place) -> bool:
    same = one[0].acquisition[1] == other[0].acquisition[1] and one[0].patient_id == other[0].patient_id
    return same and abs(one[1] - other[1]) <= SAME_PLACE_MM


def _in_blocks(ranked: Sequence[Sequence[Headers]]) -> bool:
    """Whether the UIDs of each scan lie on one side of those of all others: the scanner counted through."""
    scans: dict[int, list[tuple[int, ...]]] = {}
    for ranks in ranked:
        for alike in ranks:
            if len(alike) > 1:
                for index, header in enumerate(alike):
                    scans.setdefault(index, []).append(_uid_numbers(header))
    return all(max(scans[index]) < min(scans[index + 1]) for index in range(len(scans) - 1))


def _uid_numbers(header: SliceHeader) -> tuple[int, ...]:
    """Return the numbers of a SOP Instance UID (0008,0018): as text, 1.10 would come before 1.9."""
    return tuple(int(part) for part in header.sop_instance_uid.split(".") if part.isdigit())


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
