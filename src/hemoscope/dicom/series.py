"""Groups slices into series in anatomical order, and chooses the series to read.

Slices are ordered by position along the slice normal, from feet to head, never by file name; instance numbers are used
only if positions are unknown. Slices that do not fit (another orientation or size, duplicates) are excluded and listed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hemoscope.dicom.geometry import plane, position_mm, spacing_mm
from hemoscope.dicom.quality import (
    HEAD_MM,
    covered_mm,
    is_other_anatomy,
    is_sharp_kernel,
    known_positions,
    series_notes,
)
from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.errors import SeriesError

_SAME_PLACE_MM = 0.01
_THICK_MM = (2.0, 6.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series: headers from feet to head, excluded slices, and quality notes."""

    study_instance_uid: str
    series_instance_uid: str
    headers: tuple[SliceHeader, ...]
    left_out: tuple[SliceHeader, ...] = ()
    quality: tuple[QualityNote, ...] = ()

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study: its series, sorted by UID."""

    study_instance_uid: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesChoice:
    """The series to read and, for each other series, its UID, why it is skipped, and its number of slices."""

    series: Series
    skipped: tuple[tuple[str, str, int], ...]


def build_studies(headers: Iterable[SliceHeader]) -> tuple[Study, ...]:
    """Group headers by study and series; the result does not depend on the order of the files."""
    groups: dict[str, dict[str, list[SliceHeader]]] = {}
    for header in headers:
        study = groups.setdefault(header.study_instance_uid, {})
        study.setdefault(header.series_instance_uid, []).append(header)
    return tuple(
        Study(study_instance_uid=uid, series=tuple(build_series(study[series]) for series in sorted(study)))
        for uid, study in sorted(groups.items())
    )


def build_series(headers: Sequence[SliceHeader]) -> Series:
    """Sort the slices of one series, exclude those that do not fit, and add quality notes.

    Of several orientations and sizes, the most frequent is kept. Of slices at one position (within 0.01 mm), the one
    with the lowest instance number is kept; if all positions are equal, they count as unknown.
    """
    ordered = sorted(headers, key=_tie_break)
    notes: list[QualityNote] = []
    left_out: list[SliceHeader] = []
    ordered = _keep_most_frequent(
        ordered, _orientation_key, "mixed_orientation", "another orientation", left_out, notes
    )
    ordered = _keep_most_frequent(ordered, _size_key, "mixed_size", "another size", left_out, notes)
    ordered = _drop_duplicates(_in_order(ordered), left_out, notes)
    return Series(
        study_instance_uid=ordered[0].study_instance_uid,
        series_instance_uid=ordered[0].series_instance_uid,
        headers=tuple(ordered),
        left_out=tuple(left_out),
        quality=(*notes, *series_notes(ordered)),
    )


def choose_series(study: Study, *, series_instance_uid: str | None = None) -> SeriesChoice:
    """Choose the series to read.

    The rule, most important first: axial (a series without orientation counts after those known to be axial; coronal
    and sagittal ones are never chosen); no contrast agent; a soft kernel; no body part other than the head; covering
    a head (100 mm, or 15 slices if positions are unknown); slices 2 to 6 mm thick, else the thinner ones, else the
    thicker; more slices; and finally the lower UID. ``series_instance_uid`` overrides the rule.

    Args:
        study: series to choose from.
        series_instance_uid: choose this series regardless of the rule.

    Raises:
        SeriesError: the UID is not in the study, or no series is axial.
    """
    if series_instance_uid is not None:
        named = [series for series in study.series if series.series_instance_uid == series_instance_uid]
        if not named:
            found = ", ".join(series.series_instance_uid for series in study.series)
            msg = f"the study has no series {series_instance_uid}. Name one of: {found}"
            raise SeriesError(msg)
        return _choice(study, named[0], "another series was requested")
    candidates = [series for series in study.series if _plane(series) in ("axial", None)]
    if not candidates:
        planes = ", ".join(sorted({_plane(series) or "unknown" for series in study.series})) or "none"
        msg = (
            f"no axial series in the study (planes found: {planes}). Export the axial series, or name one with --series"
        )
        raise SeriesError(msg)
    return _choice(study, min(candidates, key=_preference), None)


def _choice(study: Study, chosen: Series, reason: str | None) -> SeriesChoice:
    others = [series for series in study.series if series is not chosen]
    skipped = tuple((one.series_instance_uid, reason or _why_not(one, chosen), len(one)) for one in others)
    return SeriesChoice(series=chosen, skipped=skipped)


_REASONS = (
    "orientation unknown",
    "contrast agent",
    "bone kernel",
    "its body part is not the head",
    "covers less than a head",
    "thinner or thicker slices than preferred",
    "fewer slices",
)


def _preference(series: Series) -> tuple[float | str, ...]:
    """The rule of ``choose_series`` as a sort key: the smallest wins. Positions match ``_REASONS``, then ties."""
    headers = series.headers
    thickness = _thickness(series)
    preferred = thickness is not None and _THICK_MM[0] <= thickness <= _THICK_MM[1]
    thickness_class = 0 if preferred else 1 if thickness is not None and thickness < _THICK_MM[0] else 2
    return (
        _plane(series) is None,
        any(header.contrast_agent is not None for header in headers),
        any(is_sharp_kernel(header.convolution_kernel, header.series_description) for header in headers),
        any(is_other_anatomy(header) for header in headers),
        not _covers_head(series),
        thickness_class,
        -len(series),
        series.series_instance_uid,
    )


def _why_not(series: Series, chosen: Series) -> str:
    """Return the first criterion of the rule that decided against a series."""
    found = _plane(series)
    if found not in ("axial", None):
        return f"{found}, not axial"
    for reason, mine, best in zip(_REASONS, _preference(series), _preference(chosen), strict=False):
        if mine != best:
            return reason
    return "equal to the chosen series"


def _plane(series: Series) -> str | None:
    orientation = series.headers[0].orientation
    return plane(orientation) if orientation is not None else None


def _thickness(series: Series) -> float | None:
    positions = known_positions(series.headers)
    return series.headers[0].slice_thickness_mm or (spacing_mm(positions) if positions else None)


def _covers_head(series: Series) -> bool:
    covered = covered_mm(series.headers)
    return len(series) >= 15 if covered is None else covered >= HEAD_MM


def _tie_break(header: SliceHeader) -> tuple[float, str, int, str]:
    number = header.instance_number
    return (float("inf") if number is None else number, header.sop_instance_uid, header.frame, header.source)


def _orientation_key(header: SliceHeader) -> object:
    # Two decimals are about half a degree: more than rounding, less than another plane.
    return None if header.orientation is None else tuple(round(cosine, 2) + 0.0 for cosine in header.orientation)


def _size_key(header: SliceHeader) -> object:
    return (header.rows, header.columns)


def _keep_most_frequent(
    headers: list[SliceHeader],
    key: Callable[[SliceHeader], object],
    code: str,
    what: str,
    left_out: list[SliceHeader],
    notes: list[QualityNote],
) -> list[SliceHeader]:
    counts = Counter(key(header) for header in headers)
    if len(counts) == 1:
        return headers
    kept = counts.most_common(1)[0][0]
    others = [header for header in headers if key(header) != kept]
    left_out += others
    message = f"{len(others)} of {len(headers)} slices have {what} and are excluded"
    notes.append(QualityNote(code=code, message=message))
    return [header for header in headers if key(header) == kept]


def _in_order(headers: list[SliceHeader]) -> list[SliceHeader]:
    positions = known_positions(headers)
    if positions is None:
        return headers
    places = {id(header): position for header, position in zip(headers, positions, strict=True)}
    return sorted(headers, key=lambda header: (places[id(header)], _tie_break(header)))


def _drop_duplicates(
    headers: list[SliceHeader], left_out: list[SliceHeader], notes: list[QualityNote]
) -> list[SliceHeader]:
    positions = known_positions(headers)
    usable = positions is not None and (max(positions) - min(positions) > _SAME_PLACE_MM or len(headers) == 2)
    kept: list[SliceHeader] = []
    seen: set[tuple[str, int]] = set()
    dropped: list[SliceHeader] = []
    for header in headers:
        identity = (header.sop_instance_uid, header.frame)
        if identity in seen or (usable and kept and _same_place(kept[-1], header)):
            dropped.append(header)
            continue
        seen.add(identity)
        kept.append(header)
    if dropped:
        left_out += dropped
        message = f"{len(dropped)} slices duplicate the position of another slice and are excluded"
        notes.append(QualityNote(code="duplicate_slices", message=message))
    return kept


def _same_place(one: SliceHeader, other: SliceHeader) -> bool:
    a, b = position_mm(one), position_mm(other)
    return a is not None and b is not None and abs(a - b) <= _SAME_PLACE_MM
