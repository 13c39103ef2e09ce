"""Tasks of one worker in preparing DICOM: identify files, and decode one series into the cache.

Both are functions of plain values, so that they run equally in this process, in a local process or on a cluster with
the same folders.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from hemoscope.data.cache import series_path, stored_images, write_series
from hemoscope.dicom import tags
from hemoscope.dicom.archive import Archive, read_series, stamp_of
from hemoscope.dicom.elements import Elements, character_set
from hemoscope.dicom.kept_images import KeptImages, file_stamp
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read import OpenedImage, admission, load_bytes, open_image
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.series import Series, build_stacks
from hemoscope.dicom.slices import SliceHeader
from hemoscope.dicom.sources import FileSource
from hemoscope.errors import DataError, DicomReadError, SeriesError

LeftOut = tuple[str, str]  # image id, reason
_PATIENT_ID = 0x00100020
# Encoded pixels of a series that are kept from its check until they are decoded; more are read a second time.
_HELD_BYTES = 512 << 20
_HEAD_BYTES = 1 << 13  # contains all elements up to the series in nearly every CT file


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A labelled file: ``name`` is shown to the user, ``patient_id`` is from the label table."""

    image_id: str
    name: str
    path: Path
    patient_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifiedImage:
    """A file with its patient, study and series."""

    file: ImageFile
    patient_id: str
    study_id: str
    series_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyTask:
    """Files to identify; ``pseudonyms`` replaces patient IDs from headers by their hash."""

    files: tuple[ImageFile, ...]
    pseudonyms: bool
    limits: ReadLimits = field(default_factory=ReadLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTask:
    """One series to decode into the cache at ``output``."""

    output: Path
    series_id: str
    files: tuple[ImageFile, ...]
    limits: ReadLimits = field(default_factory=ReadLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDone:
    """The stacks written for one series, as (id in the cache, image ids from feet to head), and excluded slices."""

    series_id: str
    stacks: tuple[tuple[str, tuple[str, ...]], ...]
    left_out: tuple[LeftOut, ...]


def identify(task: IdentifyTask) -> tuple[list[IdentifiedImage], list[LeftOut]]:
    """Identify each file from its header; files that cannot be identified are excluded with the reason."""
    found: list[IdentifiedImage] = []
    left_out: list[LeftOut] = []
    for file in task.files:
        try:
            found.append(_identify(file, task))
        except (DicomReadError, DataError) as error:
            left_out.append((file.image_id, str(error)))
    return found, left_out


def prepare_series(task: SeriesTask) -> SeriesDone:
    """Decode one series and write it; a series that is complete in the cache is not read again.

    Slices that do not fit into one stack (another kernel, size or orientation, a second pass, a duplicate position)
    become separate stacks, ``ID_part2`` and so on: every labelled slice is kept, and none gets slices of another stack
    as neighbours.
    """
    try:
        series_path(task.output, task.series_id)
    except DataError as error:
        return _none_of(task, str(error))
    kept = tuple(_stored(task.output, task.series_id))
    if sorted(image for _, images in kept for image in images) == sorted(file.image_id for file in task.files):
        return SeriesDone(series_id=task.series_id, stacks=kept, left_out=())
    return _decode(task)


def _identify(file: ImageFile, task: IdentifyTask) -> IdentifiedImage:
    elements = _elements(file, task.limits)
    study, series = elements.text(tags.STUDY_INSTANCE_UID), elements.text(tags.SERIES_INSTANCE_UID)
    if not study or not series:
        raise refusal(file.name, "malformed", "no study or series instance UID (0020,000D), (0020,000E)")
    patient = file.patient_id
    if patient is None:
        patient = elements.prose(_PATIENT_ID, character_set=character_set(elements))
        if not patient:
            msg = f"{file.name}: no patient ID (0010,0020). Add a column patient_id to the labels"
            raise DataError(msg)
        patient = _pseudonym(patient) if task.pseudonyms else patient
    return IdentifiedImage(file=file, patient_id=patient, study_id=study, series_id=series)


def _pseudonym(patient_id: str) -> str:
    """Return the same pseudonym for the same patient in every preparation; the ID itself is not stored."""
    return f"patient-{hashlib.sha256(patient_id.encode()).hexdigest()[:16]}"


def _elements(file: ImageFile, limits: ReadLimits) -> Elements:
    """Parse the elements up to the series: from the first bytes if they suffice, else all before the pixels.

    Each file is parsed whole when it is prepared: what is wrong with the rest of it is found there.
    """
    try:
        with file.path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        found = parse(head, source=file.name, limits=limits, until=tags.SERIES_INSTANCE_UID).elements
        if all(tag in found for tag in (_PATIENT_ID, tags.STUDY_INSTANCE_UID, tags.SERIES_INSTANCE_UID)):
            return found
    except (OSError, DicomReadError):
        pass  # parsing the whole file, below, gives the true reason
    return parse(load_bytes(file.path, source=file.name, limits=limits), source=file.name, limits=limits).elements


def _stored(output: Path, series_id: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number in count(1):
        name = _stack_name(series_id, number)
        images = stored_images(output, name)
        if not images:
            return
        yield name, images


def _stack_name(series_id: str, number: int) -> str:
    return series_id if number == 1 else f"{series_id}_part{number}"


def _decode(task: SeriesTask) -> SeriesDone:
    headers: list[SliceHeader] = []
    left_out: list[LeftOut] = []
    stamps: dict[str, tuple[int, int]] = {}
    kept = KeptImages(_HELD_BYTES, return_pages=False)  # the next slice needs them
    for file in task.files:
        try:
            source = FileSource(name=file.name, path=file.path)
            before = file_stamp(source)
            data = load_bytes(file.path, source=file.name, limits=task.limits)
            image = open_image(data, source=file.name, limits=task.limits)
            headers.append(_header(image, task))
        except DicomReadError as error:
            left_out.append((file.image_id, str(error)))
            continue
        if not kept.keep(source, before, image, len(data)):
            stamps[file.name] = stamp_of(data)
    sources = {file.name: FileSource(name=file.name, path=file.path) for file in task.files}
    archive = Archive(studies=(), rejected=(), limits=task.limits, sources=sources, stamps=stamps, kept=kept)
    stacks: list[tuple[str, tuple[str, ...]]] = []
    while headers:
        found = build_stacks(headers)
        for series in found:
            name = _stack_name(task.series_id, len(stacks) + 1)
            images, bad = _write_stack(task, name, series, archive)
            left_out += bad
            if images:
                stacks.append((name, images))
        headers = [header for series in found for header in series.left_out]
    # Of an earlier preparation that found more stacks.
    _remove_stacks(task.output, task.series_id, first=len(stacks) + 1)
    return SeriesDone(series_id=task.series_id, stacks=tuple(stacks), left_out=tuple(left_out))


def _header(image: OpenedImage, task: SeriesTask) -> SliceHeader:
    headers = admission(image).headers
    if len(headers) != 1:
        reason = f"{len(headers)} frames, but one labelled slice is expected"
        raise refusal(image.source, "inconsistent_pixel_data", reason)
    if headers[0].series_instance_uid != task.series_id:
        raise refusal(image.source, "changed_file", "it was replaced by a slice of another series while it was read")
    return headers[0]


def _write_stack(
    task: SeriesTask, name: str, series: Series, archive: Archive
) -> tuple[tuple[str, ...], list[LeftOut]]:
    image_of = {file.name: file.image_id for file in task.files}
    try:
        decoded = read_series(archive, series, threads=1)
    except SeriesError as error:
        return (), [(image_of[header.source], str(error)) for header in series.headers]
    images = tuple(image_of[header.source] for header in decoded.slices)
    volume = decoded.volume.canonical  # the cache does not store an orientation
    write_series(
        task.output,
        name,
        hounsfield=volume.hounsfield,
        spacing_mm=volume.spacing_mm,
        positions_mm=volume.positions_mm,
        thickness_mm=volume.thickness_mm or (),
        images=images,
    )
    return images, [(image_of[one.source], f"{one.source}: {one.message}") for one in decoded.rejected]


def remove_series(output: Path, series_id: str) -> None:
    """Remove what was prepared of a series."""
    try:
        _remove_stacks(output, series_id, first=1)
    except DataError:
        return  # no name of a file: nothing was ever written under it


def _remove_stacks(output: Path, series_id: str, *, first: int) -> None:
    for number in count(first):
        path = series_path(output, _stack_name(series_id, number))
        if not path.is_file():
            return
        path.unlink()


def _none_of(task: SeriesTask, reason: str) -> SeriesDone:
    left_out = tuple((file.image_id, reason) for file in task.files)
    return SeriesDone(series_id=task.series_id, stacks=(), left_out=left_out)
