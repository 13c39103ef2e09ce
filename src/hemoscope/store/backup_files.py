"""The files of a backup: copied with their SHA-256, listed in ``SHA256SUMS`` as ``sha256sum --check`` reads it."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hemoscope.errors import DataError

SUMS = "SHA256SUMS"
_PIECE = 1 << 20
_NAMED = 5


def copy_file(source: Path, target: Path) -> str:
    """Copy a file into a new private one and return the SHA-256 of what was read; its folders are made."""
    _make_private(target.parent)
    digest = hashlib.sha256()
    with source.open("rb") as stream, private_file(target) as copy:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            copy.write(piece)
    return digest.hexdigest()


def private_file(path: Path) -> BinaryIO:
    """Open a new file that only its owner can read; the folder that it is part of is flushed to the disk as a whole."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _make_private(folder: Path) -> None:
    """Make a folder and its parents with mode 0700; ``mkdir(parents=True)`` gives the mode to the last one alone."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder tree, relative to it."""
    return (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())


def sums_text(sums: Mapping[str, str]) -> str:
    """The content of ``SHA256SUMS``: by relative path."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def read_sums(backup: Path) -> dict[str, str]:
    """Read ``SHA256SUMS``, and check that it lists what the backup holds, no more and no less.

    Raises:
        DataError: there is none, or files are missing or were added.
    """
    try:
        lines = (backup / SUMS).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{backup.name} is no complete backup: {SUMS} is missing or damaged. Give a folder of hemoscope backup"
        raise DataError(msg) from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {path.as_posix() for path in files_below(backup)} - {SUMS}
    for what, names in (("missing", sums.keys() - found), ("not part of it", found - sums.keys())):
        if names:
            raise damaged(backup, what, names)
    return sums


def damaged(backup: Path, what: str, names: "set[str] | list[str]") -> DataError:
    """The error for files of a backup that are not as they were; their names are random ids."""
    some = ", ".join(sorted(names)[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return DataError(f"{backup.name}: {some}{more}: {what}. Nothing was restored: take another backup")


@contextmanager
def writable(name: str) -> Iterator[None]:
    """Raise an error of the backup's own disk as a DataError, so that it is not taken for one of the store."""
    try:
        yield
    except OSError as error:
        msg = f"{name} cannot be written or read ({error.strerror or error}). Check its disk and free space"
        raise DataError(msg) from error
