"""Counts refused files among the slices of their series: a file that is damaged at the end of a head leaves no gap.

A damaged file often still names its series. One that does not, but is called like a DICOM file or listed in a DICOMDIR,
belongs to the series of its folder, if there is only one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hemoscope.dicom import tags
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.series import Series, Study
from hemoscope.dicom.slices import Rejected, UnreadSlices
from hemoscope.dicom.sources import Source
from hemoscope.errors import DicomReadError

# Refusals of what may be a slice of a head; all others name another kind of object.
_SLICES = frozenset(
    {"malformed", "no_pixels", "truncated_pixel_data", "inconsistent_pixel_data", "no_rescale", "unsupported_syntax"}
    | {"unreadable", "too_large", "not_dicom"}
)
# Up to the series; a header of the field has about a hundred.
_HEADER_ELEMENTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refused input and the Series Instance UID (0020,000E) that it names, empty if unknown."""

    rejected: Rejected
    series_instance_uid: str = ""


def series_of(source: Source, rejected: Rejected, limits: ReadLimits) -> Refused:
    """Read the series of a refused input again, from as much of its header as can be parsed."""
    uid = ""
    if rejected.code in _SLICES - {"not_dicom", "unreadable"}:
        try:
            few = replace(limits, elements=min(limits.elements, _HEADER_ELEMENTS))
            found = parse(source.load(limits), source=source.name, limits=few, until=tags.SERIES_INSTANCE_UID)
            uid = found.elements.text(tags.SERIES_INSTANCE_UID)
        except DicomReadError:
            uid = ""
    return Refused(rejected=rejected, series_instance_uid=uid)


def with_lost_slices(studies: Sequence[Study], refused: Iterable[Refused]) -> tuple[Study, ...]:
    """Return the studies with refused inputs counted as unread slices of the largest acquisition of their series."""
    folders: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        for series in study.series:
            for header in (*series.headers, *series.left_out):
                folders[_folder(header.source)].add(series.series_instance_uid)
    lost: dict[str, list[Rejected]] = defaultdict(list)
    for one in refused:
        if one.rejected.code in _SLICES and (uid := one.series_instance_uid or _uid_of_folder(one.rejected, folders)):
            lost[uid].append(one.rejected)
    return tuple(
        replace(study, series=tuple(_counted(one, lost.pop(one.series_instance_uid, [])) for one in study.series))
        for study in studies
    )


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _uid_of_folder(rejected: Rejected, folders: dict[str, set[str]]) -> str:
    found = folders.get(_folder(rejected.source), set())
    named = rejected.code == "unreadable" or rejected.source.lower().endswith((".dcm", ".dicom"))
    return next(iter(found)) if named and len(found) == 1 else ""


def _counted(series: Series, lost: Sequence[Rejected]) -> Series:
    """Add refused inputs to what is unread; gaps between slices are no longer counted where they explain them."""
    if not lost:
        return series
    counts = Counter(one.code for one in lost)
    messages = {one.code: one.message for one in reversed(lost)}
    unread = [
        replace(one, count=one.count - len(lost)) if one.code == "missing_slices" else one for one in series.unread
    ]
    found = [UnreadSlices(code=code, message=messages[code], count=count) for code, count in sorted(counts.items())]
    return replace(series, unread=(*(one for one in unread if one.count > 0), *found))
