"""Reads folders, archives (ZIP, TAR, gzip), DICOMDIRs and files into studies, and a chosen series into one volume.

Opening an archive only parses headers; ``read_series`` decodes the chosen series. A file that was replaced in between
is refused: its pixels would get the identity and the place of another slice. The files of a small archive are kept
until they are decoded, so that they are read and parsed once.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.arrival import SliceArrival
from hemoscope.dicom.ct_objects import is_directory
from hemoscope.dicom.grids import is_on_grid, on_grid, reference_slice
from hemoscope.dicom.hounsfield import rounded
from hemoscope.dicom.kept_images import KeptImages, file_stamp
from hemoscope.dicom.lost_slices import Refused, series_of, with_lost_slices
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.quality import decoding_notes
from hemoscope.dicom.read import Admission, OpenedImage, admit, decode_image, decode_rounded, open_image
from hemoscope.dicom.read_budget import ReadBudget
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.series import Series, Study, build_studies
from hemoscope.dicom.series_volume import native_stacks, series_volume, volume_part
from hemoscope.dicom.slices import CTSlice, QualityNote, Rejected, RoundedSlice, SliceHeader, UnreadSlices
from hemoscope.dicom.sources import GzipSource, Source, as_paths, find_sources, rejected_by
from hemoscope.dicom.tags import SOP_CLASS_UID
from hemoscope.errors import DicomReadError, SeriesError
from hemoscope.progress import Progress
from hemoscope.volume import HounsfieldVolume

__all__ = ["Archive", "DecodedSeries", "Study", "open_archive", "read_series", "without_slices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """All studies found, all inputs refused, and access to the bytes of each source.

    ``stamps`` tells for each source which bytes were indexed (``stamp_of``); ``kept`` are those in memory, checked, to
    be decoded without being read again; ``budget``, what files may still cost. A file that is read again counts again;
    of an ordinary slice, nothing counts.
    """

    studies: tuple[Study, ...]
    rejected: tuple[Rejected, ...]
    limits: ReadLimits = field(default_factory=ReadLimits)
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    stamps: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    budget: ReadBudget | None = field(default=None, repr=False, compare=False)
    kept: KeptImages = field(default_factory=KeptImages, repr=False)

    def load(self, source: str) -> bytes:
        """Return the bytes of the source that a header names: those that were indexed, and no others.

        Raises:
            DicomReadError: it can no longer be read, or was replaced since (``changed_file``).
        """
        data = self.sources[source].load(self.limits)
        if source in self.stamps and stamp_of(data) != self.stamps[source]:
            raise refusal(source, "changed_file", "it was replaced or written to while it was read")
        return data

    def part(self) -> "Archive":
        """Return the studies with their own files alone, and none of them kept: little, for another process."""
        headers = (
            one for study in self.studies for series in study.series for one in (*series.headers, *series.left_out)
        )
        names = sorted({header.source for header in headers})
        return Archive(
            studies=self.studies,
            rejected=(),
            limits=self.limits,
            sources={name: self.sources[name] for name in names},
            stamps={name: self.stamps[name] for name in names},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedSeries:
    """A series in Hounsfield units.

    Attributes:
        volume: the slices from feet to head.
        slices: their headers.
        slice_quality: for each slice, the notes from its header and its decoding.
        quality: notes on the whole series.
        rejected: files whose slices could not be decoded; they are not in the volume.
        unread: the slices of those files, counted by the code of their refusal, and those that the series excludes
            though no other slice shows their place.
        native: of united stacks of different grids, each stack with the pixels as stored, and the places of its slices
            in ``volume``: the model reads these, so that resampling changes no answer. Empty if all have one grid.
    """

    volume: HounsfieldVolume
    slices: tuple[SliceHeader, ...]
    slice_quality: tuple[tuple[QualityNote, ...], ...]
    quality: tuple[QualityNote, ...]
    rejected: tuple[Rejected, ...]
    unread: tuple[UnreadSlices, ...] = ()
    native: tuple[tuple[HounsfieldVolume, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Where decoded slices go: the volume on its grid, and the slices of other grids as stored, by their place."""

    hounsfield: NDArray[np.int16]
    grid: SliceHeader
    arrival: SliceArrival
    native: dict[int, NDArray[np.int16]] = field(default_factory=dict)


def open_archive(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    keep: bool = True,
) -> Archive:
    """Find and check every CT slice under the given paths; refused inputs do not stop the others.

    Args:
        paths: one or several of: file, folder, archive (ZIP, TAR, gzip), DICOMDIR file.
        limits: size limits of one input.
        progress: called with the inputs done and their total.
        keep: keep the files of a small archive in memory until they are decoded; False if others decode them.

    Examples:
        >>> archive = open_archive("examples/sample")
        >>> [len(series) for study in archive.studies for series in study.series]
        [10]
    """
    sources, rejected = find_sources(as_paths(paths), limits=limits)
    budget = ReadBudget(limits)
    refused, headers = [Refused(rejected=one) for one in rejected], list[SliceHeader]()
    stamps: dict[str, tuple[int, int]] = {}
    kept = KeptImages() if keep else KeptImages(0)
    for done, source in enumerate(sources, 1):
        try:
            before = file_stamp(source)
            data = source.load(limits)
            if isinstance(source, GzipSource):
                budget.inflate(source.name, len(data))
            stamps[source.name] = stamp_of(data)
            found = _index(data, source.name, budget)
            headers += found.headers
            several = bool(headers) and headers[0].study_instance_uid != headers[-1].study_instance_uid
            kept.keep(source, before, found.image, len(data), several_studies=several)
            refused += [Refused(rejected=rejected_by(error)) for error in found.refused]
        except DicomReadError as error:
            refused.append(series_of(source, rejected_by(error), limits))
        if progress is not None:
            progress(done, len(sources))
    return Archive(
        studies=with_lost_slices(build_studies(headers), refused),
        rejected=tuple(one.rejected for one in refused),
        limits=limits,
        budget=budget,
        sources={source.name: source for source in sources},
        stamps=stamps,
        kept=kept,
    )


def stamp_of(data: bytes) -> tuple[int, int]:
    """Return the size and the CRC-32 of a file's bytes, to tell whether they are still the same.

    Examples:
        >>> stamp_of(b"123456789") == (9, 0xCBF43926)
        True
    """
    return len(data), zlib.crc32(data)


def _index(data: bytes, source: str, budget: ReadBudget) -> Admission:
    """Return the headers of one source; none for a DICOMDIR beside its files, which is not reported as refused."""
    try:
        return admit(data, source=source, limits=budget.limits, together=budget)
    except DicomReadError as error:
        if error.code == "not_ct" and _is_directory(data, source, budget):
            return Admission(headers=())
        raise


def _is_directory(data: bytes, source: str, budget: ReadBudget) -> bool:
    try:
        return is_directory(parse(data, source=source, limits=budget.limits, until=SOP_CLASS_UID, together=budget))
    except DicomReadError:
        return False


def read_series(
    archive: Archive,
    series: Series,
    *,
    threads: int = 2,
    progress: Progress | None = None,
    begun: Callable[[HounsfieldVolume], None] | None = None,
) -> DecodedSeries:
    """Decode one series into one int16 volume of rounded HU; a refused slice does not stop the others.

    Args:
        archive: where the series was found.
        series: one of its series.
        threads: number of slices read and decoded in parallel.
        progress: called with the slices done and their total.
        begun: called with the volume before its slices are decoded, to read them meanwhile (``HounsfieldVolume.part``);
            not called for stacks of different grids. What is returned may lack slices of it.

    Raises:
        SeriesError: no slice of the series can be decoded.

    Examples:
        >>> archive = open_archive("examples/sample")
        >>> read_series(archive, archive.studies[0].series[0]).volume.hounsfield.shape
        (10, 650, 650)
    """
    grid = reference_slice(series.headers)
    pixels = _Pixels(np.empty((len(series), grid.rows, grid.columns), dtype=np.int16), grid, SliceArrival(len(series)))
    if begun is not None and all(is_on_grid(header, grid) for header in series.headers):
        begun(replace(series_volume(series.headers, pixels.hounsfield.view(), grid), arrival=pixels.arrival))
    places: dict[str, dict[int, int]] = defaultdict(dict)
    for index, header in enumerate(series.headers):
        places[header.source][header.frame] = index
    notes: dict[int, tuple[QualityNote, ...]] = {}
    rejected: list[Rejected] = []
    done = 0
    try:
        for source, outcome in zip(places, _decoded_sources(archive, places, pixels, threads), strict=True):
            if isinstance(outcome, DicomReadError):
                rejected.append(rejected_by(outcome))
            else:
                notes |= outcome
            done += len(places[source])
            if progress is not None:
                progress(done, len(series))
    finally:
        pixels.arrival.end()
    return _decoded(series, pixels, notes, {one: len(places[one.source]) for one in rejected})


def _decoded_sources(
    archive: Archive, places: Mapping[str, Mapping[int, int]], pixels: _Pixels, threads: int
) -> Iterator[dict[int, tuple[QualityNote, ...]] | DicomReadError]:
    """Yield what ``_decode`` returns for each source, in order; those not begun are left if the caller stops."""
    if threads <= 1:  # the caller's own thread: a task that is one of many starts no others
        yield from (_decode(archive, source, places[source], pixels) for source in places)
        return
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="decode") as pool:
        try:
            yield from pool.map(lambda source: _decode(archive, source, places[source], pixels), places)
        finally:
            pool.shutdown(cancel_futures=True)


def _decode(
    archive: Archive, source: str, frames: Mapping[int, int], pixels: _Pixels
) -> dict[int, tuple[QualityNote, ...]] | DicomReadError:
    """Decode frames of one source into the volume; return a refusal, so that other threads continue."""
    try:
        image = _opened(archive, source)
        whole = all(is_on_grid(header, pixels.grid) for header in image.headers)
        into = {frame: pixels.hounsfield[index] for frame, index in frames.items()}
        slices = decode_rounded(image, frames.keys(), into=into) if whole else decode_image(image, frames.keys())
    except DicomReadError as error:
        pixels.arrival.end()  # the volume will lack slices: nobody needs it as it is
        return error
    for one in slices:
        _place(one, frames[one.header.frame], pixels)
    pixels.arrival.add(frames[one.header.frame] for one in slices)
    return {frames[one.header.frame]: one.header.quality + one.quality for one in slices}


def _opened(archive: Archive, source: str) -> OpenedImage:
    """Return what was kept of a file, or read it again. Raises DicomReadError."""
    image = archive.kept.take(archive.sources[source])
    if image is not None:
        return image
    data = archive.load(source)
    return open_image(data, source=source, limits=archive.limits, together=archive.budget)


def _place(one: CTSlice | RoundedSlice, index: int, pixels: _Pixels) -> None:
    if isinstance(one, RoundedSlice):
        if one.hounsfield.base is not pixels.hounsfield:  # else it is there already
            pixels.hounsfield[index] = one.hounsfield
        return
    if not is_on_grid(one.header, pixels.grid):
        pixels.native[index] = rounded(one.hounsfield)
    pixels.hounsfield[index] = rounded(on_grid(one.hounsfield, one.header, pixels.grid))


def _decoded(
    series: Series,
    pixels: _Pixels,
    notes: Mapping[int, tuple[QualityNote, ...]],
    refused: Mapping[Rejected, int],
) -> DecodedSeries:
    """Put together what was decoded, and what was refused with its number of slices."""
    kept = sorted(notes)
    if not kept:
        reason = next((one.message for one in refused), "it is empty")
        msg = f"no slice of series {series.series_instance_uid} can be decoded: {reason}"
        raise SeriesError(msg)
    quality, hounsfield = series.quality, pixels.hounsfield
    if len(kept) < len(series):
        hounsfield = hounsfield[kept]
        quality += (_refused_note(len(series) - len(kept), len(series), "could not be decoded"),)
    slices = tuple(series.headers[index] for index in kept)
    volume = series_volume(slices, hounsfield, pixels.grid)
    return DecodedSeries(
        volume=volume,
        slices=slices,
        slice_quality=tuple(notes[index] for index in kept),
        quality=quality + decoding_notes(notes, [header.source for header in slices]),
        rejected=tuple(refused),
        unread=(*series.unread, *_unread(refused)),
        native=native_stacks(slices, volume, {place: pixels.native.get(index) for place, index in enumerate(kept)}),
    )


def without_slices(
    decoded: DecodedSeries, refused: Mapping[int, Rejected], *, why: str = "are pages of text or noise"
) -> DecodedSeries:
    """Return a series without the slices at some places, each with its refusal; at least one slice must be left."""
    kept = [place for place in range(len(decoded.slices)) if place not in refused]
    new = {place: index for index, place in enumerate(kept)}
    native = []
    for volume, places in decoded.native:
        rows = [row for row, place in enumerate(places) if place in new]
        if rows:
            native.append((volume_part(volume, rows), tuple(new[places[row]] for row in rows)))
    note = _refused_note(len(refused), len(decoded.slices), why)
    return replace(
        decoded,
        volume=volume_part(decoded.volume, kept),
        slices=tuple(decoded.slices[place] for place in kept),
        slice_quality=tuple(decoded.slice_quality[place] for place in kept),
        quality=(*decoded.quality, note),
        rejected=(*decoded.rejected, *refused.values()),
        unread=(*decoded.unread, *_unread(dict.fromkeys(refused.values(), 1))),
        native=tuple(native),
    )


def _refused_note(count: int, total: int, why: str) -> QualityNote:
    return QualityNote(code="slices_refused", message=f"{count} of {total} slices {why}")


def _unread(refused: Mapping[Rejected, int]) -> tuple[UnreadSlices, ...]:
    """Count refused slices by code, with the message of the first."""
    counts = Counter[str]()
    for one, slices in refused.items():
        counts[one.code] += slices
    messages = {one.code: one.message for one in reversed(tuple(refused))}
    return tuple(UnreadSlices(code=code, message=messages[code], count=count) for code, count in counts.items())
