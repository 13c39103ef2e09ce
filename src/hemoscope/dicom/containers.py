"""Archives as places of inputs: ZIP and TAR files and files compressed with gzip, also inside one another.

Declared sizes are compared with the limits before anything is inflated, and inflating stops at the limits. Nothing is
unpacked to disk. Few archives are open at a time: one inside another is kept in memory only while it is read.
"""

import gzip
import io
import os
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from hemoscope.dicom.read import load_bytes, raise_if_machine_failed
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal

# Names under which archives are looked for in folders and in other archives; a given path is one by its content.
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz")
HEAD_BYTES = 512
_OPEN_AT_A_TIME = 8
_STEP = 1 << 20
_CENTRAL_HEADER = b"PK\x01\x02"
_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    OSError,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
    OverflowError,
    NotImplementedError,
)


class Source(Protocol):
    """An input; ``name`` is shown to the user."""

    @property
    def name(self) -> str:
        """Its name, relative to the path that the user gave."""

    def load(self, limits: ReadLimits) -> bytes:
        """Return its bytes. Raises DicomReadError."""

    def stamp(self) -> tuple[int, ...]:
        """Return what changes with the content, without reading it: sizes, time of change. Raises OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file."""

    name: str
    path: Path

    def load(self, limits: ReadLimits) -> bytes:
        """Return its bytes. Raises DicomReadError ``unreadable`` or ``too_large``."""
        return load_bytes(self.path, source=self.name, limits=limits)

    def stamp(self) -> tuple[int, ...]:
        """Return size in bytes and time of change. Raises OSError."""
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class GzipSource:
    """The content of a file compressed with gzip (RFC 1952), inflated up to a limit each time it is read."""

    name: str
    parent: Source

    def load(self, limits: ReadLimits) -> bytes:
        """Return the content. Raises DicomReadError ``bad_archive`` or ``too_large``, and the errors of its file."""
        content = self._inflate(limits, most=limits.file_bytes + 1)
        if len(content) > limits.file_bytes:
            raise refusal(
                self.name, "too_large", f"it inflates to more than the limit file_bytes = {limits.file_bytes}"
            )
        return content

    def head(self, limits: ReadLimits) -> bytes:
        """Return the first ``HEAD_BYTES`` of the content; the errors of ``load``."""
        return self._inflate(limits, most=HEAD_BYTES)

    def stamp(self) -> tuple[int, ...]:
        """Return the stamp of the compressed file. Raises OSError."""
        return self.parent.stamp()

    def _inflate(self, limits: ReadLimits, *, most: int) -> bytes:
        stream = gzip.GzipFile(fileobj=io.BytesIO(self.parent.load(limits)))
        parts: list[bytes] = []
        try:
            while most > 0 and (part := stream.read(min(most, _STEP))):
                parts.append(part)
                most -= len(part)
        except _ERRORS as error:
            raise refusal(self.name, "bad_archive", f"it cannot be unpacked ({type(error).__name__})") from error
        return b"".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path in the archive, printable.
        size: bytes after inflating, as declared.
        info: for the library that reads it.
        readable: whether Python inflates it with a limit: deflated or stored, and not encrypted.
    """

    name: str
    size: int
    info: zipfile.ZipInfo | tarfile.TarInfo
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSource:
    """One member of an archive, inflated up to a limit each time it is read."""

    name: str
    archive: "Container"
    member: Member

    def load(self, limits: ReadLimits) -> bytes:
        """Return its bytes. Raises DicomReadError ``bad_archive`` or ``too_large``."""
        if self.member.size > limits.file_bytes:
            reason = f"{self.member.size} bytes, the limit file_bytes is {limits.file_bytes}"
            raise refusal(self.name, "too_large", reason)
        if not self.member.readable:
            raise refusal(self.name, "bad_archive", "it is encrypted, or compressed with a method other than deflate")
        try:
            return self.archive.read(self.member, limits)
        except _ERRORS as error:
            raise_if_machine_failed(error, self.name)
            raise refusal(self.name, "bad_archive", f"it cannot be unpacked ({type(error).__name__})") from error

    def stamp(self) -> tuple[int, ...]:
        """Return the stamp of the archive, and the declared size. Raises OSError."""
        return *self.archive.parent.stamp(), self.member.size


class Container:
    """A ZIP or TAR file: its members, and the bytes of one."""

    def __init__(self, parent: Source, *, kind: str, opened: "OpenArchives") -> None:
        """Name an archive of ``kind`` (``zip`` or ``tar``); it is opened when it is read."""
        self.parent = parent
        self._kind = kind
        self._opened = opened

    def members(self, limits: ReadLimits) -> list[Member]:
        """Return its files, without folders, links and devices, sorted by name.

        Raises:
            DicomReadError: ``bad_archive``, or ``too_large`` for more members than the limit.
        """
        with self._opened.lock:
            try:
                return sorted(self._opened.get(self, limits).members(limits.members), key=lambda one: one.name)
            except _TooManyError as error:
                reason = f"more members than the limit members = {limits.members}"
                raise refusal(self.parent.name, "too_large", reason) from error
            except _ERRORS as error:
                raise_if_machine_failed(error, self.parent.name)
                reason = f"not a valid {self._kind.upper()} file ({type(error).__name__})"
                raise refusal(self.parent.name, "bad_archive", reason) from error

    def read(self, member: Member, limits: ReadLimits) -> bytes:
        """Return the bytes of one of its members, no more than it declares. Raises one of many errors of libraries."""
        with self._opened.lock:
            return self._opened.get(self, limits).read(member)

    def open(self, limits: ReadLimits) -> "_Reader":
        """Open it: from disk if it is a file, else in memory."""
        kind = _Zip if self._kind == "zip" else _Tar
        if isinstance(self.parent, FileSource):
            try:
                place = _CountedReader(self.parent.path, limits)
            except OSError as error:
                raise_if_machine_failed(error, self.parent.name)
                cause = os.strerror(error.errno) if error.errno else type(error).__name__
                raise refusal(self.parent.name, "unreadable", f"cannot be opened: {cause}") from error
            return kind(place, 0)
        data = self.parent.load(limits)
        if self._kind == "zip" and data.count(_CENTRAL_HEADER) > limits.members:
            raise _TooManyError  # before each one becomes an object
        return kind(io.BytesIO(data), len(data))


class _TooManyError(ValueError):
    """An archive has more members than the limit."""


class _CountedReader(io.BufferedReader):
    """An archive on disk, whose entries are counted before they are objects.

    ``zipfile`` reads the directory of a ZIP at once, and makes an object of each entry that is ten times as large.
    """

    def __init__(self, path: Path, limits: ReadLimits) -> None:
        """Open the file. Raises OSError."""
        super().__init__(io.FileIO(path))
        self._limits = limits
        self.counting = False  # only while the directory is read: members may be archives too

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes. Raises _TooManyError for more of a directory than the limits allow."""
        if not self.counting:
            return super().read(size)
        if size is not None and size > self._limits.file_bytes:
            raise _TooManyError
        data = super().read(size)
        if data.count(_CENTRAL_HEADER) > self._limits.members:
            raise _TooManyError
        return data


class _Reader(Protocol):
    """An open archive; ``memory`` is the bytes that it keeps in memory."""

    memory: int

    def members(self, most: int) -> list[Member]: ...
    def read(self, member: Member) -> bytes: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class OpenArchives:
    """Archives that are open now: few, and in memory no more than the limit ``file_bytes`` beside the one in use."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    _readers: "OrderedDict[Container, _Reader]" = field(default_factory=OrderedDict)

    def get(self, archive: Container, limits: ReadLimits) -> _Reader:
        """Return the reader of an archive, opened if it is not; the caller holds the lock while it uses it."""
        reader = self._readers.pop(archive, None) or archive.open(limits)
        self._readers[archive] = reader
        while len(self._readers) > 1 and (len(self._readers) > _OPEN_AT_A_TIME or self._memory() > limits.file_bytes):
            self._readers.popitem(last=False)[1].close()
        return reader

    def __reduce__(self) -> tuple[type["OpenArchives"], tuple[()]]:
        """Open archives stay in their process: a copy in another one begins with none."""
        return OpenArchives, ()

    def _memory(self) -> int:
        return sum(reader.memory for reader in self._readers.values())


class _Zip:
    def __init__(self, place: BinaryIO, memory: int) -> None:
        self.memory = memory
        try:
            if isinstance(place, _CountedReader):
                place.counting = True
            self._file = zipfile.ZipFile(place)
        except _ERRORS:
            place.close()
            raise
        if isinstance(place, _CountedReader):
            place.counting = False
        self._closer = weakref.finalize(self, place.close)

    def members(self, most: int) -> list[Member]:
        found = [one for one in self._file.infolist() if not one.is_dir()]
        if len(found) > most:
            raise _TooManyError
        return [
            Member(name=_member_name(one.filename), size=one.file_size, info=one, readable=_is_bounded(one))
            for one in found
        ]

    def read(self, member: Member) -> bytes:
        # zipfile inflates no more than the declared size, and then checks the checksum.
        with self._file.open(cast("zipfile.ZipInfo", member.info)) as stream:
            return stream.read(member.size)

    def close(self) -> None:
        self._closer()


def _is_bounded(info: zipfile.ZipInfo) -> bool:
    """Whether zipfile inflates a member with a limit; it does not for methods other than deflate."""
    return info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1


class _Tar:
    def __init__(self, place: BinaryIO, memory: int) -> None:
        self.memory = memory
        self._place = place
        try:
            self._file = tarfile.open(fileobj=place, mode="r:")  # noqa: SIM115 - kept open
        except _ERRORS:
            place.close()
            raise
        self._closer = weakref.finalize(self, place.close)

    def members(self, most: int) -> list[Member]:
        found: list[Member] = []
        for number, one in enumerate(self._file, 1):
            if number > most:
                raise _TooManyError
            if one.isreg() and not one.issparse():
                found.append(Member(name=_member_name(one.name), size=one.size, info=one))
        # tarfile stops at a damaged header as it does at the zeros of the end.
        self._place.seek(self._file.offset)
        if self._place.read(tarfile.BLOCKSIZE).strip(b"\0"):
            msg = "damaged header"
            raise tarfile.ReadError(msg)
        return found

    def read(self, member: Member) -> bytes:
        stream = self._file.extractfile(cast("tarfile.TarInfo", member.info))
        data = stream.read(member.size) if stream is not None else b""
        if len(data) != member.size:
            msg = "unexpected end of data"
            raise EOFError(msg)
        return data

    def close(self) -> None:
        self._closer()


def kind_of(head: bytes) -> str | None:
    """Return ``zip``, ``tar`` or ``gzip`` by the first ``HEAD_BYTES`` bytes, None for anything else.

    A DICOM file may begin with any 128 bytes (PS3.10 7.1), those of an archive too.
    """
    if head[128:132] == b"DICM":
        return None
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    return "tar" if head[257:262] == b"ustar" else None


def _member_name(name: str) -> str:
    """Return a printable name without the parts that lead elsewhere: it only names a source.

    Archivers of Windows write a backslash between the parts.
    """
    return printable("/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")))


def printable(name: str) -> str:
    """Return a file name without control characters and without bytes that are no text."""
    return "".join(character if character.isprintable() else "?" for character in name)
