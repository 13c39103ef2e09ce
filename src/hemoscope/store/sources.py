"""The uploaded files: how they are opened, and how they are named in results.

By default they are deleted once a study is read: the page needs the volume, not the DICOM, which holds identity.
A site may have them replaced by de-identified copies before anything is read from them; then everything derived from
them, UIDs in findings too, and everything that is kept is free of identity.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hemoscope.checksums import read_sums, sha256_of, sums_text, warn_unchecked
from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.series import Study
from hemoscope.dicom.slices import Rejected, UnreadSlices
from hemoscope.dicom.sources import rejected_by
from hemoscope.errors import DicomReadError
from hemoscope.files import sync_folder
from hemoscope.progress import Progress
from hemoscope.store.storage import SOURCE_SUMS, Storage, full_disk_refused, new_private_file

_LOST = "lost_upload"


def open_upload(
    storage: Storage,
    upload_id: str,
    *,
    deidentify: bool,
    last_attempt: bool = True,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> Archive:
    """Open the files of an upload, in the order they came.

    Args:
        storage: their folder.
        upload_id: of the upload.
        deidentify: replace them by de-identified copies first, so that nothing derived from them can identify anybody.
        last_attempt: a file that cannot be read is refused; before, that may pass, and the upload is read again later.
        limits: size limits of one input.
        progress: called with the files done and their number.

    Raises:
        OSError: a file cannot be read, and this is not the last attempt; or the copies cannot be written.
        StoreError: too many files are open, the disk is full, or the id of the storage folder cannot be read.
    """
    folder = storage.source(upload_id)
    if not deidentify:
        return _open(storage, folder, limits, progress, last_attempt=last_attempt)
    clean = folder.with_name("clean")
    rejected: tuple[Rejected, ...] = ()
    if folder.exists() or not clean.exists():  # else a crash came between the last two steps below
        archive = _open(storage, folder, limits, progress, last_attempt=last_attempt)
        refused = _write_clean(storage, archive, clean)
        if not last_attempt:
            check_could_be_read(refused)
        rejected = tuple(one for one in archive.rejected if one.code != _LOST) + refused
        storage.remove_aside(folder, upload_id)
    clean.rename(folder)
    opened = _open(storage, folder, limits, last_attempt=last_attempt)
    return replace(opened, rejected=rejected + opened.rejected)


def check_could_be_read(rejected: Iterable[Rejected]) -> None:
    """Raise OSError if a file could not be read, which may pass: with checksums, it could be read a moment ago."""
    if any(one.code == "unreadable" for one in rejected):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _open(
    storage: Storage, folder: Path, limits: ReadLimits, progress: Progress | None = None, *, last_attempt: bool
) -> Archive:
    """Open the files that are as they were uploaded; the others are refused, and no study is complete without them."""
    found: dict[str, Path] = {}
    lost = {"upload": "its folder is no longer in the storage folder"}
    if folder.exists() or not storage.store_id():  # without its id the storage folder itself is away and may come back
        found = {path.name: path for path in sorted(folder.iterdir()) if path.name != SOURCE_SUMS}
        lost = _lost(found, read_sums(folder / SOURCE_SUMS), last_attempt=last_attempt)
    files = [path for name, path in found.items() if name not in lost]
    archive = open_archive(files, limits=limits, progress=progress)
    if not last_attempt:
        check_could_be_read(archive.rejected)
    rejected = tuple(rejected_by(refusal(name, _LOST, reason)) for name, reason in sorted(lost.items()))
    return replace(archive, studies=_with_lost(archive.studies, rejected), rejected=rejected + archive.rejected)


def _lost(found: Mapping[str, Path], sums: Mapping[str, str] | None, *, last_attempt: bool) -> dict[str, str]:
    """Return the reason for each file that is not as its checksum says.

    A file that is there and cannot be read is lost only at the last attempt: a file server may be away for a moment.
    """
    if sums is None:
        warn_unchecked("An upload", "It is read as it is")
        return {}
    lost = dict.fromkeys(sums.keys() - found.keys(), "it is no longer in the storage folder")
    for name, path in found.items():
        try:
            with full_disk_refused():  # too many open files is no property of this file
                digest = sha256_of(path)
            if digest != sums.get(name):
                lost[name] = "its bytes in the storage folder are not those that arrived"
        except OSError as error:
            if not last_attempt and not isinstance(error, FileNotFoundError | IsADirectoryError):
                raise
            lost[name] = f"it cannot be read from the storage folder ({os.strerror(error.errno or 0)})"
    return lost


def _with_lost(studies: tuple[Study, ...], lost: Sequence[Rejected]) -> tuple[Study, ...]:
    """Add files that were lost to what is unread in every series: nobody knows which slices they held, or how many."""
    if not lost:
        return studies
    what = "an uploaded file was" if len(lost) == 1 else f"{len(lost)} uploaded files were"
    message = f"{what} lost or damaged in storage: {lost[0].message}"
    unread = UnreadSlices(code=_LOST, message=message, count=0)
    return tuple(
        replace(study, series=tuple(replace(one, unread=(*one.unread, unread)) for one in study.series))
        for study in studies
    )


def _write_clean(storage: Storage, archive: Archive, clean: Path) -> tuple[Rejected, ...]:
    """Write a de-identified copy of every file that holds a slice; return those that cannot be de-identified."""
    from hemoscope.dicom.deidentify import deidentified_file  # its tables are loaded by sites that use it alone

    storage.remove(clean)
    clean.mkdir(mode=0o700)
    key, rejected = storage.pseudonym_key(), list[Rejected]()
    digests = {f"lost-{one.source}": "" for one in archive.rejected if one.code == _LOST}  # whoever reads on must know
    headers = (header for study in archive.studies for series in study.series for header in series.headers)
    left_out = (header for study in archive.studies for series in study.series for header in series.left_out)
    named = dict.fromkeys(header.source for header in (*headers, *left_out))
    for number, source in enumerate(sorted(named), 1):
        try:
            content = deidentified_file(
                archive.load(source), key=key, source=source, limits=archive.limits, together=archive.budget
            )
        except DicomReadError as error:
            rejected.append(rejected_by(error))
            continue
        with new_private_file(clean / f"{number:06d}") as file:
            file.write(content)
        digests[f"{number:06d}"] = hashlib.sha256(content).hexdigest()
    with new_private_file(clean / SOURCE_SUMS) as file:
        file.write(sums_text(digests).encode("ascii"))
    sync_folder(clean)
    return tuple(rejected)


def named_by_number(document: dict[str, Any], archive: Archive) -> dict[str, Any]:
    """Replace the names of sources in a findings document by numbers: names within a ZIP may be a patient's."""
    numbers = {name: f"{number:06d}" for number, name in enumerate(archive.sources, 1)}
    for study in document["studies"]:
        for one in study["slices"]:
            one["source"] = numbers.get(one["source"], "upload")
    for refused in document["rejected"]:
        refused["source"] = numbers.get(refused["source"], "upload")
    return document
