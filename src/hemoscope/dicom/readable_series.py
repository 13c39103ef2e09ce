"""Reads the best series of a study that can be read: if its values are no Hounsfield units, the next one by rank.

Pages of text and noise among the slices of a good series, and a few slices with wrong values, are refused one by one;
the others are read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hemoscope.dicom.archive import Archive, DecodedSeries, read_series, without_slices
from hemoscope.dicom.plausibility import check_plausible, wrong_slices
from hemoscope.dicom.read import read_slices
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.rest_of_head import rest_in_other_series
from hemoscope.dicom.series import Series, Study
from hemoscope.dicom.series_choice import choose_series
from hemoscope.dicom.slices import QualityNote, Rejected, SliceHeader
from hemoscope.dicom.sources import rejected_by
from hemoscope.dicom.texture import strange_slices
from hemoscope.dicom.wording import counted
from hemoscope.errors import DicomReadError, SeriesError
from hemoscope.progress import Progress
from hemoscope.volume import HounsfieldVolume

__all__ = ["ReadableSeries", "read_best_series"]

_Skipped = tuple[str, str, int]
# With more pages of text or noise than that, the series itself is refused.
_MOST_STRANGE = 0.5
# With more slices of wrong values, those of the others are not trusted either.
_MOST_WRONG = 0.1
# As many slices at the place of another one change no answer; beyond, so many pairs are compared.
_FEW_COPIES, _COMPARED = 0.05, 24
_STRANGE = {
    "sheet": "thin lines on a constant background: a page of text, or a drawing",
    "implausible_hounsfield": "neighboring pixels are unrelated: the image is noise, or damaged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadableSeries:
    """What was read of a study, or None; the UID, reason and slices of its other series; and everything refused."""

    decoded: DecodedSeries | None
    skipped: tuple[_Skipped, ...] = ()
    rejected: tuple[Rejected, ...]


def read_best_series(
    archive: Archive,
    study: Study,
    *,
    series_instance_uid: str | None = None,
    threads: int = 2,
    progress: Progress | None = None,
    begun: Callable[[HounsfieldVolume], None] | None = None,
) -> ReadableSeries:
    """Decode the first series by the rule of ``choose_series`` that has plausible values.

    Args:
        archive: where the study was found.
        study: one of its studies.
        series_instance_uid: read this series or none.
        threads: number of slices read and decoded in parallel.
        progress: called with the slices done and their total, for each series that is tried.
        begun: called with the volume of each series that is tried, before its slices are decoded (``read_series``).
    """
    refused: list[Rejected] = []
    passed: list[tuple[Series, Rejected]] = []
    left = study
    while not passed or series_instance_uid is None:
        try:
            choice = choose_series(left, series_instance_uid=series_instance_uid)
        except SeriesError as error:
            refused += () if passed else (_no_series(study, error),)
            break
        reading = partial(read_series, archive, choice.series, threads=threads, progress=progress, begun=begun)
        decoded, why = _plausible(archive, study, choice.series, reading)
        refused += why
        if decoded is not None:
            archive.kept.forget(header.source for one in study.series for header in (*one.headers, *one.left_out))
            return ReadableSeries(
                decoded=replace(
                    decoded,
                    quality=(*_passed_notes(passed), *decoded.quality),
                    unread=(*decoded.unread, *rest_in_other_series(study, choice.series)),
                ),
                skipped=(*(_skipped(series) for series, _ in passed), *choice.skipped),
                rejected=tuple(dict.fromkeys(refused)),
            )
        passed.append((choice.series, why[-1]))
        left = replace(left, series=tuple(one for one in left.series if one is not choice.series))
    return ReadableSeries(decoded=None, rejected=tuple(dict.fromkeys(refused)))


def _plausible(
    archive: Archive, study: Study, series: Series, reading: Callable[[], DecodedSeries]
) -> tuple[DecodedSeries | None, tuple[Rejected, ...]]:
    """Decode one series and return what was refused of it; if all of it was, None, and the reason last."""
    try:
        decoded = reading()
    except SeriesError as error:
        return None, (_no_series(study, error),)
    try:
        _check_copies(archive, series, decoded)
        decoded = _without_strange_slices(decoded)
        decoded, notes = _without_wrong_slices(decoded)
    except DicomReadError as error:
        return None, (*decoded.rejected, rejected_by(error))
    return replace(decoded, quality=decoded.quality + notes), decoded.rejected


def _without_strange_slices(decoded: DecodedSeries) -> DecodedSeries:
    """Refuse pages of text and noise among the slices, and the series if it holds little else."""
    strange, count = strange_slices(decoded.volume), len(decoded.slices)
    if not strange:
        return decoded
    if len(strange) > _MOST_STRANGE * count:
        code = next(iter(strange.values()))
        reason = f"{len(strange)} of {count} slices: {_STRANGE[code]}"
        raise refusal(f"series {decoded.slices[0].series_instance_uid}", code, reason)
    return without_slices(
        decoded, {index: _refused(decoded.slices[index], code, _STRANGE[code]) for index, code in strange.items()}
    )


def _without_wrong_slices(decoded: DecodedSeries) -> tuple[DecodedSeries, tuple[QualityNote, ...]]:
    """Return what ``check_plausible`` notes, without the slices whose values alone are wrong if they are few."""
    try:
        return decoded, check_plausible(decoded.volume, decoded.slices)
    except DicomReadError:
        wrong = wrong_slices(decoded.volume)
        if not 0 < len(wrong) <= _MOST_WRONG * len(decoded.slices):
            raise
    refused = {index: _refused(decoded.slices[index], "implausible_hounsfield", why) for index, why in wrong.items()}
    left = without_slices(decoded, refused, why="have values that are not Hounsfield units of a head")
    return left, check_plausible(left.volume, left.slices)


def _check_copies(archive: Archive, series: Series, decoded: DecodedSeries) -> None:
    """Refuse a series if slices that only their UIDs tell apart are of two scans, not copies.

    Raises:
        DicomReadError: ``mixed_scans``.
    """
    read = {(header.source, header.frame) for header in decoded.slices}
    pairs = [pair for pair in series.undecided if (pair[0].source, pair[0].frame) in read]
    if len(pairs) <= _FEW_COPIES * len(decoded.slices):
        return
    some = pairs[:: -(-len(pairs) // _COMPARED)]
    different = sum(not _same_pixels(archive, *pair) for pair in some)
    if different > _FEW_COPIES * len(some):
        places = len({id(kept) for kept, _ in pairs})
        reason = f"several scans over the same {places} places, whose slices nothing tells apart"
        raise refusal(f"series {series.series_instance_uid}", "mixed_scans", reason)


def _same_pixels(archive: Archive, one: SliceHeader, other: SliceHeader) -> bool:
    """Whether two slices have the same values; one that cannot be decoded tells nothing."""
    try:
        mine, theirs = (
            read_slices(
                archive.load(header.source),
                source=header.source,
                limits=archive.limits,
                frames=[header.frame],
                together=archive.budget,
            )
            for header in (one, other)
        )
    except DicomReadError:
        return True
    return bool(np.array_equal(mine[0].hounsfield, theirs[0].hounsfield))


def _refused(header: SliceHeader, code: str, why: str) -> Rejected:
    frame = f"frame {header.frame + 1}: " if header.frame else ""
    return rejected_by(refusal(header.source, code, f"{frame}{why}"))


def _no_series(study: Study, error: SeriesError) -> Rejected:
    return Rejected(source=f"study {study.study_instance_uid}", code="no_series", message=str(error))


def _skipped(series: Series) -> _Skipped:
    return series.series_instance_uid, "refused: see the refusals", len(series)


def _passed_notes(passed: Sequence[tuple[Series, Rejected]]) -> tuple[QualityNote, ...]:
    if not passed:
        return ()
    *others, last = (len(series) for series, _ in passed)
    slices = " and ".join((*map(str, others), counted(last, "slice")))
    codes = ", ".join(sorted({why.code for _, why in passed}))
    message = f"a preferred series of {slices} was refused ({codes}); this is the next one by rank"
    return (QualityNote(code="series_refused", message=message),)
