"""Finds inputs: files in folders and archives, references of a DICOMDIR. Their names identify no patient.

A source's name is relative to the path that the user gave (folder names above it may hold a patient's name). If
several given paths share a name, it is prefixed with the number of its path in the list, as in ``2/IM0001.dcm``.
"""

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePosixPath

from hemoscope.dicom.containers import (
    ARCHIVE_SUFFIXES,
    HEAD_BYTES,
    Container,
    FileSource,
    GzipSource,
    Member,
    MemberSource,
    OpenArchives,
    kind_of,
    printable,
)
from hemoscope.dicom.dicomdir import referenced_files
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DicomReadError

__all__ = ["FileSource", "GzipSource", "Source", "as_paths", "find_sources", "rejected_by"]

# Files and folders that desktop systems create; users do not mean to give these.
_SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini", ".DS_Store"})
_SYSTEM_FOLDER = "__MACOSX"
_RESOURCE_FORK = "._"  # AppleDouble, beside each file of an archive made on macOS

Source = FileSource | GzipSource | MemberSource


def as_paths(paths: str | PathLike[str] | Sequence[str | PathLike[str]]) -> tuple[Path, ...]:
    """Return one path or several as paths.

    Examples:
        >>> [path.name for path in as_paths("scans")]
        ['scans']
    """
    return (Path(paths),) if isinstance(paths, str | PathLike) else tuple(Path(path) for path in paths)


def find_sources(paths: Sequence[Path], *, limits: ReadLimits) -> tuple[tuple[Source, ...], tuple[Rejected, ...]]:
    """Find every input under the given paths: files, folders (recursively), archives, DICOMDIR files.

    Archives are ZIP and TAR files and files compressed with gzip. A given path is one by its content; in folders and in
    other archives they are found by their extension. Links to folders are not followed. A folder or archive that cannot
    be read is refused, and the others are read.

    Hidden files and files of desktop systems are skipped in folders. Of archives, whose maker may be a stranger, hidden
    files are refused by name, and files of desktop systems counted.

    Returns:
        Sources with unique names, in the order of the paths and then of names, and refused inputs.
    """
    found: list[tuple[int, Source]] = []
    rejected: list[Rejected] = []
    opened = OpenArchives()
    for number, path in enumerate(paths, 1):
        try:
            found += [(number, source) for source in _Finder(limits, opened, rejected).expand(path)]
        except DicomReadError as error:
            rejected.append(rejected_by(error))
        except _TooManyFilesError:
            reason = f"more files than the limit members = {limits.members}"
            rejected.append(rejected_by(refusal("folder", "too_large", reason)))
    return _unique(found), tuple(rejected)


def rejected_by(error: DicomReadError) -> Rejected:
    """Return the error as a refused input."""
    return Rejected(
        source=error.source, code=error.code, message=f"{error.reason}. {error.remedy}", remedy=error.remedy
    )


def _unique(found: Sequence[tuple[int, Source]]) -> tuple[Source, ...]:
    """Give each source its own name: a shared one gets the number of its path, and a count if it is shared still."""
    counts = Counter(source.name for _, source in found)
    taken = Counter[str]()
    unique: list[Source] = []
    for number, source in found:
        name = source.name if counts[source.name] == 1 else f"{number}/{source.name}"
        taken[name] += 1
        unique.append(replace(source, name=name if taken[name] == 1 else f"{name} ({taken[name]})"))
    return tuple(unique)


class _TooManyFilesError(Exception):
    """A path has more files than the limit."""


@dataclass(slots=True)
class _Budget:
    """Bytes that an archive and the archives in it may still inflate to."""

    left: int


class _Finder:
    """Expands one given path, and counts its files."""

    def __init__(self, limits: ReadLimits, opened: OpenArchives, rejected: list[Rejected]) -> None:
        self._limits = limits
        self._opened = opened
        self._rejected = rejected
        self._files = 0

    def expand(self, path: Path) -> Iterator[Source]:
        """Yield the sources under a path; append what else is refused to ``rejected``.

        Raises:
            DicomReadError: the whole path is refused.
            _TooManyFilesError: it has more files than the limit.
        """
        if _is_folder(path):
            yield from self._walk(path)
        elif path.name.upper() == "DICOMDIR":
            for source in referenced_files(path, limits=self._limits):
                if isinstance(source, DicomReadError):
                    self._rejected.append(rejected_by(source))
                else:
                    yield from self._one(source)
        else:
            source = FileSource(name=printable(path.name), path=path)
            kind = _kind_of_file(path)
            yield from self._one(source) if kind is None else self._unpack(source, kind, prefix="", depth=1)

    def _one(self, source: Source) -> Iterator[Source]:
        self._files += 1
        if self._files > self._limits.members:
            raise _TooManyFilesError
        yield source

    def _walk(self, folder: Path) -> Iterator[Source]:
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            try:
                entries = sorted(here.iterdir(), reverse=True)
            except OSError as error:
                name = printable(here.relative_to(folder).as_posix())
                cause = os.strerror(error.errno) if error.errno else type(error).__name__
                found = refusal(name, "unreadable", f"the folder cannot be listed: {cause}")
                self._rejected.append(rejected_by(found))
                continue
            wanted = [entry for entry in entries if _is_wanted(entry.name)]
            folders = {entry for entry in wanted if _is_folder(entry)}
            waiting += [entry for entry in wanted if entry in folders and not entry.is_symlink()]
            for entry in reversed(wanted):
                if entry not in folders:
                    name = printable(entry.relative_to(folder).as_posix())
                    yield from self._named(FileSource(name=name, path=entry), depth=1)

    def _named(
        self, source: FileSource | MemberSource, *, depth: int, budget: _Budget | None = None
    ) -> Iterator[Source]:
        """Yield what is in a file if its name and content are an archive's, else the file itself."""
        if not source.name.lower().endswith(ARCHIVE_SUFFIXES):
            yield from self._one(source)
            return
        try:
            if isinstance(source, FileSource):
                kind = _kind_of_file(source.path)
            else:
                kind = kind_of(source.load(self._limits)[:HEAD_BYTES])
            if kind is None:
                yield from self._one(source)
            else:
                yield from self._unpack(source, kind, prefix=f"{source.name}/", depth=depth, budget=budget)
        except DicomReadError as error:
            self._rejected.append(rejected_by(error))

    def _unpack(
        self, source: Source, kind: str, *, prefix: str, depth: int, budget: _Budget | None = None
    ) -> Iterator[Source]:
        """Yield the files in an archive, or the content of a file compressed with gzip. Raises DicomReadError."""
        if depth > self._limits.archive_depth:
            reason = f"archives lie deeper in one another than the limit archive_depth = {self._limits.archive_depth}"
            raise refusal(source.name, "too_large", reason)
        inner: str | None = kind
        if kind == "gzip":
            source = GzipSource(name=source.name, parent=source)
            inner = kind_of(source.head(self._limits))
        if inner not in ("zip", "tar"):
            yield from self._one(source)
            return
        archive = Container(source, kind=inner, opened=self._opened)
        self._check_size(source)
        members = archive.members(self._limits)
        budget = budget or _Budget(self._limits.archive_bytes)
        self._charge(budget, members, source.name)
        given = [one for one in members if not _is_of_system(one.name)]
        if not given:
            raise refusal(source.name, "bad_archive", "there is no file in it")
        if left_out := len(members) - len(given):
            reason = f"{left_out} files that the archiving program added are left out"
            self._rejected.append(rejected_by(refusal(source.name, "system_files", reason)))
        for member in given:
            if not all(_is_wanted(part) for part in PurePosixPath(member.name).parts):
                reason = "it is hidden in the archive, and not read"
                self._rejected.append(rejected_by(refusal(f"{prefix}{member.name}", "hidden_file", reason)))
                continue
            one = MemberSource(name=f"{prefix}{member.name}", archive=archive, member=member)
            yield from self._named(one, depth=depth + 1, budget=budget)

    def _check_size(self, source: Source) -> None:
        """Refuse a large file before its table of contents is read."""
        if isinstance(source, FileSource):
            size, most = source.path.stat().st_size, self._limits.archive_bytes
            if size > most:
                raise refusal(source.name, "too_large", f"{size} bytes, the limit archive_bytes is {most}")

    def _charge(self, budget: _Budget, members: Sequence[Member], name: str) -> None:
        total = sum(member.size for member in members)
        if total > budget.left:
            reason = (
                f"{len(members)} members of {total} bytes in all, the limit archive_bytes is "
                f"{self._limits.archive_bytes} for an archive with all that is in it"
            )
            raise refusal(name, "too_large", reason)
        budget.left -= total


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder; one that may not be looked at is none, and is refused when it is read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_wanted(name: str) -> bool:
    return name not in _SYSTEM_FILES and name != _SYSTEM_FOLDER and not name.startswith(".")


def _is_of_system(member: str) -> bool:
    name = PurePosixPath(member).name
    return name in _SYSTEM_FILES or name.startswith(_RESOURCE_FORK)


def _kind_of_file(path: Path) -> str | None:
    """Return the kind of archive by a file's content; None for a file that cannot be opened, which reading refuses."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        # A self-extracting ZIP begins with a program.
        return kind_of(head) or ("zip" if head[128:132] != b"DICM" and zipfile.is_zipfile(path) else None)
    except OSError:
        return None
