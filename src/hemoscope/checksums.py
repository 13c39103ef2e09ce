"""Checksums of stored data, written with it and checked when it is used: a disk or a copy may change single bits.

A folder has them in ``SHA256SUMS``, in the format of ``sha256sum`` (GNU coreutils), which can check it too. They tell
damage, not forgery: who can write the data can write its checksums.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from tokenize import TokenError

from hemoscope.files import write_text

SUMS = "SHA256SUMS"
# What NumPy raises over a damaged header of a .npy file, which it evaluates as a Python literal.
NPY_ERRORS = (ValueError, TypeError, KeyError, EOFError, SyntaxError, TokenError, MemoryError, OverflowError)
_log = logging.getLogger(__name__)


class ChecksumError(ValueError):
    """Stored bytes are not those that were written; the message names the file."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sums_text(digests: Mapping[str, str]) -> str:
    """Return the lines of ``SHA256SUMS`` for digests by file name."""
    return "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items()))


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the SHA-256 of files that stand in a folder."""
    write_text(folder / SUMS, sums_text({name: sha256_of(folder / name) for name in names}))


def read_sums(path: Path) -> dict[str, str] | None:
    """Return digests by file name, damaged lines too; None if there is no such file, as in data of earlier versions."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    lines = (line.partition("  ") for line in text.removesuffix("\n").split("\n") if line)
    return {file: digest for digest, _, file in lines}


def warn_unchecked(what: str, remedy: str) -> None:
    """Log that data of an earlier version has no checksums."""
    _log.warning("%s has no checksums, as an earlier version wrote it: damage goes unnoticed. %s", what, remedy)


def read_checked(path: Path, sums: Mapping[str, str] | None) -> bytes:
    """Return the bytes of a file of a folder with ``sums``; None checks nothing.

    Raises:
        ChecksumError: they are not those that were written.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if sums is not None and hashlib.sha256(content).hexdigest() != sums.get(path.name):
        msg = f"{path.name}: its SHA-256 is not that in {SUMS}"
        raise ChecksumError(msg)
    return content
