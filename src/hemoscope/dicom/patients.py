"""Divides the slices of one study by patient: Patient ID (0010,0020), birth date (0010,0030), name (0010,0010)."""

from collections.abc import Sequence
from dataclasses import dataclass

from hemoscope.dicom.acquisitions import Headers, divided
from hemoscope.dicom.slices import SliceHeader

__all__ = ["patients"]

_MOSTLY = 0.5


def patients(headers: Sequence[SliceHeader]) -> list[Headers]:
    """Divide the slices of one study by patient.

    Patients of different sites, and those whose identity was removed, can share an ID. Names are often spelled in two
    ways: they do not count where an ID and a birth date are given.
    """
    dated = [part for group in _by_id(headers) for part in divided(group, lambda header: header.patient_birth_date)]
    return [part for group in dated for part in _by_name(group)]


def _by_id(headers: Sequence[SliceHeader]) -> list[Headers]:
    """Group by ID, the largest group first.

    Slices without an ID belong to the patient whose name or birth date they state, else to the largest group, unless
    they show the same places of the same series once more: then they are somebody's second head.
    """
    unknown = [header for header in headers if header.patient_id is None]
    if not unknown or len(unknown) == len(headers):
        return divided(headers, lambda header: header.patient_id)
    groups = divided([header for header in headers if header.patient_id is not None], lambda header: header.patient_id)
    stated = [_Stated.of(group) for group in groups]
    left: Headers = []
    for header in unknown:
        fitting = [group for group, known in zip(groups, stated, strict=True) if known.fits(header)]
        (fitting[0] if len(fitting) == 1 else left).append(header)
    if _repeats_places(left, groups[0]):
        return [*groups, left]
    groups[0] += left
    return groups


@dataclass(frozen=True, slots=True)
class _Stated:
    """What the slices with one ID state of their patient."""

    names: frozenset[str]
    birth_dates: frozenset[str]

    @classmethod
    def of(cls, headers: Headers) -> "_Stated":
        names = frozenset(one.patient_name for one in headers if one.patient_name is not None)
        dates = frozenset(one.patient_birth_date for one in headers if one.patient_birth_date is not None)
        return cls(names, dates)

    def fits(self, header: SliceHeader) -> bool:
        if header.patient_birth_date is not None and self.birth_dates:
            return header.patient_birth_date in self.birth_dates
        return header.patient_name in self.names


def _repeats_places(unknown: Headers, known: Headers) -> bool:
    """Whether most slices lie where a known one of the same series does; copies of a file share its UID."""
    uids = {header.sop_instance_uid for header in known}
    places = {_place(header) for header in known}
    again = [one for one in unknown if one.sop_instance_uid not in uids and None not in _place(one)]
    return bool(again) and sum(_place(one) in places for one in again) > _MOSTLY * len(unknown)


def _place(header: SliceHeader) -> tuple[object, object, object]:
    return header.series_instance_uid, header.position_mm, header.orientation


def _by_name(headers: Headers) -> list[Headers]:
    """Group slices by name; those with an ID and a birth date are of one patient, however the name is spelled."""
    certain = [header for header in headers if header.patient_id and header.patient_birth_date]
    if not certain:
        return divided(headers, lambda header: header.patient_name)
    names = {header.patient_name for header in certain} | {None}
    others = [header for header in headers if not (header.patient_id and header.patient_birth_date)]
    certain += [header for header in others if header.patient_name in names]
    apart = divided([one for one in others if one.patient_name not in names], lambda header: header.patient_name)
    return [certain, *(group for group in apart if group)]
