"""Files and folders that appear complete or not at all, and that outlive a power failure once they are there.

What is written stands under a temporary name in the same folder until it is on the disk (fsync); then it takes its
name in one step (rename), and the folder that holds the name is flushed too. A reader sees the old content or the new
one. After an error the old one stays and the temporary file is removed; a killed process leaves ``.NAME-*.part``.

A full disk and every other failure is the OSError of the system. Modes are subject to the umask, as always.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_MODE, _FOLDER_MODE = 0o666, 0o777
# A disk cannot give back the bytes of a file: a bad sector, or a file system that found its own checksum wrong.
# Linux alone has a number for the second, EUCLEAN.
UNREADABLE = (errno.EIO, errno.EBADMSG, *([errno.EUCLEAN] if hasattr(errno, "EUCLEAN") else []))
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF)


def write_bytes(path: Path, content: bytes, *, mode: int = _MODE) -> Path:
    """Write a file, in place of one of the same name; returns its path."""
    with atomic_file(path, mode=mode) as stream:
        stream.write(content)
    return path


def write_text(path: Path, text: str, *, mode: int = _MODE) -> Path:
    """Write a file in UTF-8, in place of one of the same name; returns its path."""
    return write_bytes(path, text.encode("utf-8"), mode=mode)


@contextmanager
def atomic_file(path: Path, *, mode: int = _MODE) -> Iterator[BinaryIO]:
    """Yield a stream; what was written to it takes the place of ``path`` when the block ends without an error."""
    with _temporary(path) as draft:
        with new_file(draft, mode=mode) as stream:
            yield stream
        _rename(draft, path)


@contextmanager
def atomic_path(path: Path, *, mode: int = _MODE) -> Iterator[Path]:
    """Yield the path of an empty file for a library that writes by name; it becomes ``path`` as in ``atomic_file``.

    A library that puts a file of its own in that place (safetensors) chooses the mode.
    """
    with _temporary(path) as draft:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield draft
        publish(draft, path)


@contextmanager
def atomic_folder(path: Path, *, mode: int = _FOLDER_MODE) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` when the block ends without an error.

    Files in it may be written in any way. ``path`` must not exist, or be an empty folder.
    """
    draft = _temporary_name(path)
    draft.mkdir(mode=mode)
    try:
        yield draft
        publish(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def new_file(path: Path, *, mode: int = _MODE, synced: bool = True) -> Iterator[BinaryIO]:
    """Yield a file that did not exist, on the disk when the block ends; after an error it is removed.

    It is visible while it is written. Its name is on the disk after ``sync_folder``. If it is not ``synced``, its
    content is on the disk after ``sync_file``.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        try:
            yield stream
            stream.flush()
            if synced:
                os.fsync(stream.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def valid_text(text: str) -> str:
    r"""Return text that is valid Unicode: bytes of a file name that are not UTF-8 are written as escapes.

    Python keeps such bytes as lone surrogates (PEP 383), which no encoding of Unicode may hold.

    Examples:
        >>> valid_text("A\udcc4B")
        'A\\xc4B'
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def inert_text(text: str) -> str:
    """Return text for a cell of a table with an apostrophe before what a spreadsheet would run as a formula.

    Examples:
        >>> inert_text("=1+1"), inert_text("1.2")
        ("'=1+1", '1.2')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def append_line(path: Path, line: str, *, mode: int = _MODE) -> None:
    """Add a line to a file, made if it is missing; the line is on the disk before this returns."""
    begun = path.exists()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode), "wb") as stream:
        stream.write(f"{line}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())
    if not begun:
        sync_folder(path.parent)


def publish(draft: Path, path: Path) -> None:
    """Give a complete file, or a folder with all in it, its final name in the same folder; flush it first."""
    if draft.is_dir():
        for folder, _, names in os.walk(draft, topdown=False):
            for name in names:
                sync_file(Path(folder, name))
            sync_folder(Path(folder))
    else:
        sync_file(draft)
    _rename(draft, path)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk: fsync of a file does not do that for its name."""
    try:
        sync_file(folder)
    except OSError as error:
        # Some network file systems have no fsync for folders; PostgreSQL goes on there, too.
        if error.errno not in _NO_FOLDER_SYNC:
            raise


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    draft = _temporary_name(path)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")


def _rename(draft: Path, path: Path) -> None:
    draft.replace(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
