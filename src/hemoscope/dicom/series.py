"""Groups slices into studies and series: one person, one acquisition, its stacks united in anatomical order.

A study's series may hold several acquisitions (frames of reference, kernels, Image Types): each becomes a ``Series``.
Slices are ordered by position along the slice normal, from feet to head, never by file name. Slices that are not read
are excluded and listed.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hemoscope.dicom.acquisitions import acquisitions
from hemoscope.dicom.ordering import tie_break
from hemoscope.dicom.patients import patients
from hemoscope.dicom.quality import missing_slices, series_notes
from hemoscope.dicom.ranking import plane_of
from hemoscope.dicom.slices import QualityNote, SliceHeader, UnreadSlices
from hemoscope.dicom.stacks import Stack, United, divide, unite
from hemoscope.dicom.wording import counted

_TIME_POINTS = 3  # at more places than not: a dynamic series, not a repeated scan


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One acquisition of one series.

    Attributes:
        headers: slices from feet to head.
        left_out: slices that are not read.
        quality: notes.
        unread: those left-out slices whose place in the head no other slice shows.
        ordered: False if nothing orders the slices.
        undecided: a slice that is read and another one at its place from which only its UID tells it: two scans whose
            slices nothing keeps apart, or copies. Only their pixels can tell.
    """

    study_instance_uid: str
    series_instance_uid: str
    headers: tuple[SliceHeader, ...]
    left_out: tuple[SliceHeader, ...] = ()
    quality: tuple[QualityNote, ...] = ()
    unread: tuple[UnreadSlices, ...] = ()
    ordered: bool = True
    undecided: tuple[tuple[SliceHeader, SliceHeader], ...] = ()

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study of one patient: its series, sorted by UID, and of one UID the largest acquisition first."""

    study_instance_uid: str
    series: tuple[Series, ...]


def build_studies(headers: Iterable[SliceHeader]) -> tuple[Study, ...]:
    """Group headers by study, patient and series; the result does not depend on the order of the files."""
    groups: dict[str, list[SliceHeader]] = {}
    for header in sorted(headers, key=tie_break):
        groups.setdefault(header.study_instance_uid, []).append(header)
    return tuple(study for uid in sorted(groups) for study in _studies(uid, patients(groups[uid])))


def build_series(headers: Sequence[SliceHeader]) -> Series:
    """Unite the stacks of one acquisition in anatomical order, exclude slices that do not fit, and add quality notes.

    Of stacks that overlap, the preferred one by the rule of ``choose_series`` is kept. Of slices at one position
    (within 0.01 mm), the one with the lowest instance number is kept. If all positions are equal, they are unknown.
    """
    found, copies = _without_copies(sorted(headers, key=tie_break))
    stacks = divide(found)
    return _series(stacks, unite(stacks), copies, _uid_notes(found))


def build_stacks(headers: Sequence[SliceHeader]) -> tuple[Series, ...]:
    """Return each stack of each acquisition of a series on its own, for training: none is united with another."""
    built = []
    for acquisition in acquisitions(headers):
        found, copies = _without_copies(sorted(acquisition, key=tie_break))
        for number, stack in enumerate(divide(found)):
            built.append(_series([stack], unite([stack]), copies if number == 0 else [], []))
    return tuple(built)


def _studies(uid: str, people: Sequence[list[SliceHeader]]) -> list[Study]:
    message = f"files of {len(people)} patients have one Study Instance UID: each patient is read as a study"
    shared = (QualityNote(code="several_patients", message=message),) if len(people) > 1 else ()
    studies = []
    for person in people:
        groups: dict[str, list[SliceHeader]] = {}
        for header in person:
            groups.setdefault(header.series_instance_uid, []).append(header)
        series = tuple(build_series(part) for name in sorted(groups) for part in acquisitions(groups[name]))
        noted = tuple(replace(one, quality=(*shared, *one.quality)) for one in series)
        studies.append(Study(study_instance_uid=uid, series=noted))
    return studies


def _without_copies(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], list[SliceHeader]]:
    """Tell slices from copies: files with one UID, frame, place and instance number.

    If all of a file's places are unknown, nothing tells: such slices cannot be ordered either.
    """
    seen: set[object] = set()
    found: list[SliceHeader] = []
    copies: list[SliceHeader] = []
    for header in headers:
        place = header.position_mm, header.slice_location_mm, header.instance_number
        identity = (header.sop_instance_uid, header.frame, place)
        (copies if identity in seen and set(place) != {None} else found).append(header)
        seen.add(identity)
    return found, copies


def _series(
    stacks: Sequence[Stack], united: United, copies: Sequence[SliceHeader], notes: Sequence[QualityNote]
) -> Series:
    base = stacks[0]
    unplaced = [header for stack in stacks for header in stack.slices.unplaced]
    duplicates = [header for stack in stacks for header in stack.duplicates]
    first = united.headers[0]
    return Series(
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        headers=united.headers,
        left_out=(*united.apart, *unplaced, *united.overlapping, *duplicates, *copies),
        quality=(
            *notes,
            *_left_out_notes(base, united),
            *_place_notes(base, united, len(duplicates), len(copies)),
            *series_notes(united.headers),
        ),
        unread=_unread(base, united, unplaced),
        ordered=base.slices.by is not None or len(united.headers) == 1,
        undecided=tuple(pair for stack in stacks for pair in stack.undecided),
    )


def _note(code: str, message: str) -> QualityNote:
    return QualityNote(code=code, message=message)


def _uid_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    counts = Counter((header.sop_instance_uid, header.frame) for header in headers)
    repeated = sum(count for count in counts.values() if count > 1)
    message = f"{repeated} slices share a SOP Instance UID with another slice; as their places differ, all are read"
    return [_note("repeated_uid", message)] if repeated else []


def _apart(base: Stack, united: United) -> dict[str, list[SliceHeader]]:
    """Return the slices that could not be united, by the code of their note."""
    first = base.headers[0]
    found: dict[str, list[SliceHeader]] = {}
    for header in united.apart:
        same = (header.rows, header.columns) == (first.rows, first.columns) and header.orientation != first.orientation
        found.setdefault("mixed_orientation" if same else "mixed_size", []).append(header)
    return found


def _left_out_notes(base: Stack, united: United) -> list[QualityNote]:
    count, apart = len(united.headers) + len(united.apart), _apart(base, united)
    notes = []
    if turned := apart.get("mixed_orientation"):
        message = f"{len(turned)} of {count} slices {_have(turned)} another orientation and {_are(turned)} excluded"
        notes.append(_note("mixed_orientation", message))
    if sized := apart.get("mixed_size"):
        message = f"{len(sized)} of {count} slices {_have(sized)} another size or place and {_are(sized)} excluded"
        notes.append(_note("mixed_size", message))
    first = united.parts[0][0]
    if any((part[0].rows, part[0].columns, part[0].orientation) != _form(first) for part in united.parts[1:]):
        parts = " and ".join(f"{len(part)}" for part in united.parts)
        message = f"stacks of {parts} slices, which differ in tilt, size or thickness, are read as one"
        notes.append(_note("united_stacks", message))
    return notes


def _have(slices: Sequence[SliceHeader]) -> str:
    return "has" if len(slices) == 1 else "have"


def _are(slices: Sequence[SliceHeader]) -> str:
    return "is" if len(slices) == 1 else "are"


def _form(header: SliceHeader) -> tuple[object, ...]:
    return header.rows, header.columns, header.orientation


def _place_notes(base: Stack, united: United, duplicates: int, copies: int) -> list[QualityNote]:
    """Return notes on slices where another one is read: time points, passes, duplicates, and copies of a file."""
    places = len(united.headers)
    times = (len(united.overlapping) + duplicates + places) / places
    if base.slices.places is not None and times >= _TIME_POINTS:
        message = f"a dynamic series: about {times:.0f} time points at each of {places} places, of which one is read"
        return [_note("dynamic_series", message)]
    notes = []
    if united.overlapping:
        stacked = counted(len(united.overlapping), "slice")
        message = f"{stacked} of another pass or stack over the same place {_are(united.overlapping)} not read"
        notes.append(_note("overlapping_stacks", message))
    if duplicates + copies:
        twice = duplicates + copies
        words = counted(twice, "slice", ("duplicates", "duplicate"))
        message = f"{words} the position of another slice and {'is' if twice == 1 else 'are'} excluded"
        notes.append(_note("duplicate_slices", message))
    return notes


def _unread(base: Stack, united: United, unplaced: Sequence[SliceHeader]) -> tuple[UnreadSlices, ...]:
    """Count the slices of the same plane that show what no other slice does."""
    plane = plane_of(base.headers)
    found = {
        code: [header for header in headers if plane_of([header]) in (plane, None)]
        for code, headers in _apart(base, united).items()
    }
    words = {
        "mixed_orientation": "slices of another orientation could not be united with the others",
        "mixed_size": "slices of another size or place could not be united with the others",
        "no_position": "slices lack the position or orientation that orders the others",
    }
    found["no_position"] = list(unplaced)
    counted = [
        UnreadSlices(code=code, message=f"{words[code]}, first {headers[0].source}", count=len(headers))
        for code, headers in sorted(found.items())
        if headers
    ]
    if (missing := missing_slices(united.headers) - len(unplaced)) > 0:
        message = "gaps between the slices: they were not given, or refused when the input was opened"
        counted.append(UnreadSlices(code="missing_slices", message=message, count=missing))
    return tuple(counted)
