"""The files as they were uploaded: what of them is read, how they are named in results, and what is kept of them.

By default nothing is kept once a study is read: the page needs the volume, not the DICOM, and DICOM holds identity.
"""

from collections.abc import Callable
from typing import Any

from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.errors import ConfigError
from hemoscope.store.storage import Storage


def open_upload(
    storage: Storage, upload_id: str, *, deidentify: bool, progress: Callable[[int, int], None] | None = None
) -> Archive:
    """Open the files of an upload, in the order they came.

    Args:
        storage: where they lie.
        upload_id: of the upload.
        deidentify: read a de-identified copy, so that nothing derived from the files can identify anybody.
        progress: called with the files done and their number.

    Raises:
        ConfigError: ``deidentify`` is on, which this version cannot do yet.
    """
    if deidentify:
        # The seam: write de-identified copies into storage.upload(upload_id) / "clean", replace "source" by it, go on.
        msg = "de-identified storage is not available in this version. Start without it"
        raise ConfigError(msg)
    return open_archive(sorted(storage.source(upload_id).iterdir()), progress=progress)


def named_by_number(document: dict[str, Any], archive: Archive) -> dict[str, Any]:
    """Replace the names of sources in a findings document by numbers: names within a ZIP may be a patient's."""
    numbers = {name: f"{number:06d}" for number, name in enumerate(archive.sources, 1)}
    for study in document["studies"]:
        for one in study["slices"]:
            one["source"] = numbers.get(one["source"], "upload")
    for refused in document["rejected"]:
        refused["source"] = numbers.get(refused["source"], "upload")
    return document


def remove_sources(storage: Storage, upload_id: str) -> None:
    """Remove the files as they were uploaded."""
    aside = storage.set_aside(storage.source(upload_id), upload_id)
    if aside is not None:
        storage.remove(aside)
