"""Finds the files that a DICOMDIR references (PS3.3 F.3), as copies of media name them.

Referenced File ID (0004,1500) has up to eight components of capital letters, digits and underscores, without extension
(PS3.10 8.2). Copies have extensions, lower case, version numbers of ISO 9660 (``IM0.;1``), or slashes in the component.
"""

from collections.abc import Iterator, Sequence
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


class _Listing:
    """The names in folders, each listed once."""

    def __init__(self) -> None:
        self._names = cache(self._list)

    def find(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """Return a file below ``folder``; None if it is missing, or would be outside."""
        here = folder
        for number, part in enumerate(parts, 1):
            if part == "..":
                return None
            match = self._match(here, part, is_file=number == len(parts))
            if match is None:
                return None
            here = here / match
        return here

    def _match(self, folder: Path, part: str, *, is_file: bool) -> str | None:
        """Return the entry that a component means: exactly, else in another case, else with another extension."""
        names = [name for name in self._names(folder) if (folder / name).is_file() == is_file]
        wanted = _normal(part)
        stem = PurePath(wanted).stem
        same = [name for name in names if name == part] or [name for name in names if _normal(name) == wanted]
        if same or not is_file:
            return same[0] if same else None
        others = [name for name in names if PurePath(_normal(name)).stem == stem]
        dicom = [name for name in others if _normal(name) in (stem, f"{stem}.DCM")]
        candidates = dicom or others
        return candidates[0] if len(candidates) == 1 else None

    @staticmethod
    def _list(folder: Path) -> tuple[str, ...]:
        try:
            return tuple(sorted(entry.name for entry in folder.iterdir()))
        except OSError:
            return ()


def _normal(name: str) -> str:
    """Return a name in capitals, without the version number and the dot of ISO 9660."""
    return name.upper().partition(";")[0].rstrip(".")
