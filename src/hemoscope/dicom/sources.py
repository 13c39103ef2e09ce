"""Finds inputs: files in folders, members of ZIP files, references of a DICOMDIR. Their names identify no patient.

A source's name is relative to the path that the user gave (folder names above it may hold a patient's name). If
several given paths share a name, it is prefixed with the number of its path in the list, as in ``2/IM0001.dcm``.
"""

import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePosixPath

from hemoscope.dicom import tags
from hemoscope.dicom.ct_objects import is_directory
from hemoscope.dicom.elements import PARSE_ERRORS, quiet
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read import load_bytes
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DicomReadError

# Files that desktop systems create; users do not mean to give these.
_SYSTEM_FILES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", ".DS_Store"})
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file; ``name`` is shown to the user."""

    name: str
    path: Path

    def load(self, limits: ReadLimits) -> bytes:
        """Return its bytes. Raises DicomReadError ``unreadable`` or ``too_large``."""
        return load_bytes(self.path, source=self.name, limits=limits)

    def stamp(self) -> tuple[int, int]:
        """Return what changes with the content, without reading it: size in bytes, time of change. Raises OSError."""
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns


class ZipSource:
    """One member of a ZIP file, inflated up to a limit each time it is read."""

    def __init__(self, *, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, lock: threading.Lock) -> None:
        """Name a member; ``archive`` stays open as long as any of its sources exists."""
        self.name = name
        self._archive = archive
        self._member = member
        self._lock = lock

    def renamed(self, name: str) -> "ZipSource":
        """Return the same member under another name."""
        return ZipSource(name=name, archive=self._archive, member=self._member, lock=self._lock)

    def load(self, limits: ReadLimits) -> bytes:
        """Return its bytes. Raises DicomReadError ``bad_archive`` or ``too_large``."""
        size = self._member.file_size
        if size > limits.file_bytes:
            raise refusal(self.name, "too_large", f"{size} bytes, the limit file_bytes is {limits.file_bytes}")
        if self._member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or self._member.flag_bits & 1:
            # Python's zipfile inflates other methods without a limit.
            raise refusal(self.name, "bad_archive", "it is encrypted, or compressed with a method other than deflate")
        try:
            # zipfile inflates no more than the declared size, and then checks the checksum.
            with self._lock, self._archive.open(self._member) as stream:
                return stream.read(size)
        except _ZIP_ERRORS as error:
            raise refusal(self.name, "bad_archive", f"it cannot be unpacked ({type(error).__name__})") from error

    def stamp(self) -> tuple[int, int]:
        """Return what changes with the content, without inflating it: size in bytes, checksum."""
        return self._member.file_size, self._member.CRC


Source = FileSource | ZipSource


def as_paths(paths: str | PathLike[str] | Sequence[str | PathLike[str]]) -> tuple[Path, ...]:
    """Return one path or several as paths.

    Examples:
        >>> [path.name for path in as_paths("scans")]
        ['scans']
    """
    return (Path(paths),) if isinstance(paths, str | PathLike) else tuple(Path(path) for path in paths)


def find_sources(paths: Sequence[Path], *, limits: ReadLimits) -> tuple[tuple[Source, ...], tuple[Rejected, ...]]:
    """Find every input under the given paths: files, folders (recursively), ZIP files, DICOMDIR files.

    Hidden files and files of desktop systems are skipped; links to folders are not followed.

    Returns:
        Sources with unique names, in the order of the paths and then of names, and refused inputs.
    """
    found: list[tuple[int, Source]] = []
    rejected: list[Rejected] = []
    for number, path in enumerate(paths, 1):
        try:
            found += [(number, source) for source in _expand(path, limits, rejected)]
        except DicomReadError as error:
            rejected.append(rejected_by(error))
    counts = Counter(source.name for _, source in found)
    return tuple(_unique(number, source, counts) for number, source in found), tuple(rejected)


def rejected_by(error: DicomReadError) -> Rejected:
    """Return the error as a refused input."""
    return Rejected(
        source=error.source, code=error.code, message=f"{error.reason}. {error.remedy}", remedy=error.remedy
    )


def _unique(number: int, source: Source, counts: Counter[str]) -> Source:
    if counts[source.name] == 1:
        return source
    name = f"{number}/{source.name}"
    return replace(source, name=name) if isinstance(source, FileSource) else source.renamed(name)


def _expand(path: Path, limits: ReadLimits, rejected: list[Rejected]) -> Iterator[Source]:
    if path.is_dir():
        yield from _walk(path, limits)
    elif path.name.upper() == "DICOMDIR":
        yield from _referenced(path, limits, rejected)
    elif path.is_file() and zipfile.is_zipfile(path):
        yield from _members(path, limits)
    else:
        yield FileSource(name=path.name, path=path)


def _walk(folder: Path, limits: ReadLimits) -> Iterator[Source]:
    count = 0
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(here.iterdir(), reverse=True)
        except OSError as error:
            name = here.relative_to(folder).as_posix()
            raise refusal(name, "unreadable", f"the folder cannot be listed ({type(error).__name__})") from error
        waiting += [entry for entry in entries if entry.is_dir() and not entry.is_symlink() and _is_wanted(entry.name)]
        for entry in reversed(entries):
            if entry.is_dir() or not _is_wanted(entry.name):
                continue
            count += 1
            if count > limits.members:
                raise refusal("folder", "too_large", f"more files than the limit members = {limits.members}")
            yield FileSource(name=entry.relative_to(folder).as_posix(), path=entry)


def _is_wanted(name: str) -> bool:
    return name not in _SYSTEM_FILES and not name.startswith(".")


def _members(path: Path, limits: ReadLimits) -> Iterator[Source]:
    """Yield the members of a ZIP file; declared sizes are checked against the limits before anything is inflated."""
    size = path.stat().st_size
    if size > limits.archive_bytes:
        raise refusal(path.name, "too_large", f"{size} bytes, the limit archive_bytes is {limits.archive_bytes}")
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise refusal(path.name, "bad_archive", f"not a valid ZIP file ({type(error).__name__})") from error
    members = [one for one in archive.infolist() if not one.is_dir()]
    total = sum(one.file_size for one in members)
    if total > limits.archive_bytes or len(members) > limits.members:
        reason = (
            f"{len(members)} members of {total} bytes in all, the limits are members = {limits.members} "
            f"and archive_bytes = {limits.archive_bytes}"
        )
        raise refusal(path.name, "too_large", reason)
    lock = threading.Lock()
    for one in sorted(members, key=lambda member: member.filename):
        if all(_is_wanted(part) for part in PurePosixPath(one.filename).parts):
            yield ZipSource(name=_printable(one.filename), archive=archive, member=one, lock=lock)


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)


def _referenced(path: Path, limits: ReadLimits, rejected: list[Rejected]) -> Iterator[Source]:
    """Yield the files that a DICOMDIR references (PS3.3 F.3); refuse missing files and files elsewhere."""
    found = parse(load_bytes(path, source=path.name, limits=limits), source=path.name, limits=limits)
    if not is_directory(found):
        raise refusal(path.name, "malformed", "named DICOMDIR, but not a DICOM directory")
    try:
        with quiet():
            records = found.elements.items(tags.DIRECTORY_RECORD_SEQUENCE)
            names = [record.texts(tags.REFERENCED_FILE_ID) for record in records]
    except PARSE_ERRORS as error:
        raise refusal(path.name, "malformed", f"its records cannot be parsed ({type(error).__name__})") from error
    for parts in filter(None, names):
        name = "/".join(parts)
        target = _resolve(path.parent, parts)
        if target is None:
            missing = refusal(name, "unreadable", "the DICOMDIR references it, but it is missing")
            rejected.append(rejected_by(missing))
        else:
            yield FileSource(name=name, path=target)


def _resolve(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return a file below ``folder``, ignoring case as on CD copies; None if it is missing or outside."""
    here = folder
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part:
            return None
        exact = here / part
        if not exact.exists():
            matches = [entry for entry in here.iterdir() if entry.name.upper() == part.upper()] if here.is_dir() else []
            if not matches:
                return None
            exact = matches[0]
        here = exact
    return here if here.is_file() else None
