"""Chooses the series of a study to read."""

from dataclasses import dataclass

from hemoscope.dicom.ranking import REASONS, plane_of, preference
from hemoscope.dicom.series import Series, Study
from hemoscope.errors import SeriesError


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesChoice:
    """The series to read and, for each other series, its UID, why it is skipped, and its number of slices."""

    series: Series
    skipped: tuple[tuple[str, str, int], ...]


def choose_series(study: Study, *, series_instance_uid: str | None = None) -> SeriesChoice:
    """Choose the series to read.

    The rule, most important first: slices before computed images, and projections last (``ImageKind.rank``); axial (a
    series without orientation counts after those known to be axial; coronal and sagittal ones are never chosen, nor
    series whose slices nothing orders); no contrast agent; a soft kernel; no body part other than the head; covering a
    head (100 mm, or 15 slices if positions are unknown); slices 2 to 6 mm thick, else the thinner ones, else the
    thicker; more slices; and finally the lower UID. ``series_instance_uid`` overrides the rule; of several acquisitions
    under that UID, the rule chooses one.

    Args:
        study: series to choose from.
        series_instance_uid: choose this series regardless of the rule.

    Raises:
        SeriesError: the UID is not in the study, no series is axial, or nothing orders the slices.
    """
    if series_instance_uid is not None:
        named = [series for series in study.series if series.series_instance_uid == series_instance_uid]
        if not named:
            found = ", ".join(dict.fromkeys(series.series_instance_uid for series in study.series))
            msg = f"the study has no series {series_instance_uid}. Name one of: {found}"
            raise SeriesError(msg)
        return _choice(study, _best(named), "another series was requested")
    candidates = [series for series in study.series if plane_of(series.headers) in ("axial", None)]
    if not candidates:
        planes = ", ".join(sorted({plane_of(series.headers) or "unknown" for series in study.series})) or "none"
        msg = (
            f"no axial series in the study (planes found: {planes}). Export the axial series, or name one with --series"
        )
        raise SeriesError(msg)
    return _choice(study, _best(candidates), None)


def _best(candidates: list[Series]) -> Series:
    ordered = [series for series in candidates if series.ordered]
    if not ordered:
        slices = sum(len(series) for series in candidates)
        msg = (
            f"nothing orders its {slices} slices: no Image Position (0020,0032), no Slice Location (0020,1041) and no "
            "Instance Number (0020,0013) of their own. Export the series again with one of them"
        )
        raise SeriesError(msg)
    return min(ordered, key=lambda series: (preference(series.headers), series.series_instance_uid))


def _choice(study: Study, chosen: Series, reason: str | None) -> SeriesChoice:
    others = [series for series in study.series if series is not chosen]
    skipped = tuple((one.series_instance_uid, _reason(one, chosen, reason), len(one)) for one in others)
    return SeriesChoice(series=chosen, skipped=skipped)


def _reason(series: Series, chosen: Series, requested: str | None) -> str:
    if requested is not None and series.series_instance_uid != chosen.series_instance_uid:
        return requested
    return _why_not(series, chosen)


def _why_not(series: Series, chosen: Series) -> str:
    """Return the first criterion of the rule that decided against a series."""
    found = plane_of(series.headers)
    if found not in ("axial", None):
        return f"{found}, not axial"
    mine, best = (preference(one.headers, ordered=one.ordered) for one in (series, chosen))
    return next(
        (reason for reason, a, b in zip(REASONS, mine, best, strict=True) if a != b), "equal to the chosen series"
    )
