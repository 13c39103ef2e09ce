"""Finds the files that a DICOMDIR references (PS3.3 F.3), as copies of media name them.

Referenced File ID (0004,1500) has up to eight components of capital letters, digits and underscores, without extension
(PS3.10 8.2). Copies have extensions, lower case, version numbers of ISO 9660 (``IM0.;1``), or slashes in the component.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath

from hemoscope.dicom import tags
from hemoscope.dicom.containers import FileSource
from hemoscope.dicom.ct_objects import is_directory
from hemoscope.dicom.elements import PARSE_ERRORS, quiet
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read import load_bytes
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.errors import DicomReadError


def referenced_files(path: Path, *, limits: ReadLimits) -> Iterator[FileSource | DicomReadError]:
    """Yield each referenced file once, or a refusal if it is missing or outside the folder of the DICOMDIR.

    Raises:
        DicomReadError: the file is no DICOMDIR or is damaged.
    """
    found = parse(load_bytes(path, source=path.name, limits=limits), source=path.name, limits=limits)
    if not is_directory(found):
        raise refusal(path.name, "malformed", "named DICOMDIR, but not a DICOM directory")
    try:
        with quiet():
            records = found.elements.items(tags.DIRECTORY_RECORD_SEQUENCE)
            names = [record.texts(tags.REFERENCED_FILE_ID) for record in records]
    except PARSE_ERRORS as error:
        raise refusal(path.name, "malformed", f"its records cannot be parsed ({type(error).__name__})") from error
    listing = _Listing()
    for parts in dict.fromkeys(filter(None, map(_components, names))):
        name = "/".join(parts)
        target = listing.find(path.parent, parts)
        if target is None:
            yield refusal(name, "unreadable", "the DICOMDIR references it, but it is missing")
        else:
            yield FileSource(name=name, path=target)


def _components(values: Sequence[str]) -> tuple[str, ...]:
    """Return the folders and the name; some writers separate them by slashes, or begin with a separator."""
    parts = (part for value in values for part in value.split("/"))
    return tuple(part for part in parts if part not in ("", "."))


@dataclass(frozen=True, slots=True)
class _Folder:
    """The names in one folder, as they are, in capitals, and without extension."""

    folders: dict[str, list[str]]
    files: dict[str, list[str]]
    stems: dict[str, list[str]]


class _Listing:
    """Finds files by the names of a DICOMDIR; each folder is listed once."""

    def __init__(self) -> None:
        self._folder = cache(_list)

    def find(self, root: Path, parts: Sequence[str]) -> Path | None:
        """Return a file below ``root``; None if it is missing, would be outside, or several can be meant."""
        here = root
        for part in parts[:-1]:
            names = self._folder(here).folders.get(_normal(part))
            if part == ".." or not names:
                return None
            here = here / (part if part in names else names[0])
        name = self._file(self._folder(here), parts[-1])
        return None if name is None else here / name

    @staticmethod
    def _file(folder: _Folder, part: str) -> str | None:
        """Return the file that a name means: exactly, else in another case, else with another extension."""
        wanted = _normal(part)
        same = folder.files.get(wanted)
        if same:
            return part if part in same else same[0]
        stem = PurePath(wanted).stem
        others = folder.stems.get(stem, [])
        dicom = [name for name in others if _normal(name) in (stem, f"{stem}.DCM")] or others
        return dicom[0] if len(dicom) == 1 else None


def _list(folder: Path) -> _Folder:
    found = _Folder(defaultdict(list), defaultdict(list), defaultdict(list))
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = _normal(entry.name)
            if entry.is_dir():
                found.folders[name].append(entry.name)
            else:
                found.files[name].append(entry.name)
                found.stems[PurePath(name).stem].append(entry.name)
    except OSError:
        pass  # what cannot be listed is missing
    return found


def _normal(name: str) -> str:
    """Return a name in capitals, without the version number and the dot of ISO 9660."""
    return name.upper().partition(";")[0].rstrip(".")
