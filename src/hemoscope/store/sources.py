"""The uploaded files: how they are opened, and how they are named in results.

By default they are deleted once a study is read: the page needs the volume, not the DICOM, which holds identity.
A site may have them replaced by de-identified copies before anything is read from them; then everything derived from
them, UIDs in findings too, and everything that is kept is free of identity.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.slices import Rejected
from hemoscope.dicom.sources import rejected_by
from hemoscope.errors import DicomReadError
from hemoscope.files import sync_folder
from hemoscope.progress import Progress
from hemoscope.store.storage import Storage, new_private_file


def open_upload(
    storage: Storage,
    upload_id: str,
    *,
    deidentify: bool,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> Archive:
    """Open the files of an upload, in the order they came.

    Args:
        storage: their folder.
        upload_id: of the upload.
        deidentify: replace them by de-identified copies first, so that nothing derived from them can identify anybody.
        limits: size limits of one input.
        progress: called with the files done and their number.
    """
    folder = storage.source(upload_id)
    if not deidentify:
        return open_archive(_files(folder), limits=limits, progress=progress)
    clean = folder.with_name("clean")
    rejected: tuple[Rejected, ...] = ()
    if folder.exists() or not clean.exists():  # else a crash came between the last two steps below
        archive = open_archive(_files(folder), limits=limits, progress=progress)
        rejected = archive.rejected + _write_clean(storage, archive, clean)
        storage.remove_aside(folder, upload_id)
    clean.rename(folder)
    opened = open_archive(_files(folder), limits=limits)
    return replace(opened, rejected=rejected + opened.rejected)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _write_clean(storage: Storage, archive: Archive, clean: Path) -> tuple[Rejected, ...]:
    """Write a de-identified copy of every file that holds a slice; return those that cannot be de-identified."""
    from hemoscope.dicom.deidentify import deidentified_file  # its tables are loaded by sites that use it alone

    storage.remove(clean)
    clean.mkdir(mode=0o700)
    key, rejected = storage.pseudonym_key(), list[Rejected]()
    headers = (header for study in archive.studies for series in study.series for header in series.headers)
    left_out = (header for study in archive.studies for series in study.series for header in series.left_out)
    named = dict.fromkeys(header.source for header in (*headers, *left_out))
    for number, source in enumerate(sorted(named), 1):
        try:
            content = deidentified_file(archive.load(source), key=key, source=source, limits=archive.limits)
        except DicomReadError as error:
            rejected.append(rejected_by(error))
            continue
        with new_private_file(clean / f"{number:06d}") as file:
            file.write(content)
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
