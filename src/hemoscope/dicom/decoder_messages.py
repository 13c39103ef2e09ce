"""What decoders print on stderr about a damaged frame, caught so that it is reported beside the file's name.

GDCM's libjpeg and the RLE decoder write to file descriptor 2 themselves, past Python: a frame whose data are corrupt is
decoded as far as it goes, and only that line says so. Descriptors belong to the whole process, so a line that another
thread prints meanwhile is caught too; it is written when the frame is decoded.
"""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from hemoscope.dicom.slices import QualityNote

# libjpeg's warnings of corrupt data (jerror.h, JWRN_*).
_DAMAGE = re.compile(
    rb"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS parameters|Application transferred"
)
# GDCM tries its 8-bit decoder first, and then the one of the right depth.
_HARMLESS = re.compile(rb"Unsupported JPEG data precision|Unknown Adobe color transform|Warning: unknown JFIF revision")
DAMAGED = QualityNote(
    code="damaged_pixel_data",
    message="the compressed data are damaged; what the decoder made of them may be wrong",
)
_STDERR = 2
_one_at_a_time = threading.RLock()


@contextmanager
def caught_damage() -> Iterator[list[QualityNote]]:
    """Catch a decoder's messages about one frame; the list gets a note if its data are damaged.

    If the block raises, the error names the file and the reason, so the messages are dropped.
    """
    found: list[QualityNote] = []
    with _one_at_a_time:
        file = _file()
        kept = _redirect(file)
        try:
            yield found
        except BaseException:
            _restore(kept)
            _take(file)
            raise
        _restore(kept)
        lines = _take(file).splitlines(keepends=True)
    for line in lines:
        if not _DAMAGE.match(line) and not _HARMLESS.match(line) and kept is not None:
            os.write(_STDERR, line)
    if any(map(_DAMAGE.match, lines)):
        found.append(DAMAGED)


@cache
def _file() -> int:
    """The descriptor of one file for all frames: making one for each costs a search for a free inode."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _take(file: int) -> bytes:
    """What was written to the file, which is empty afterwards."""
    size = os.lseek(file, 0, os.SEEK_CUR)  # where writing ended
    if not size:
        return b""
    content = os.pread(file, size, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.ftruncate(file, 0)
    return content


def _redirect(file: int) -> int | None:
    """Let descriptor 2 lead to ``file``; a copy of it to restore, or None if the process has none."""
    try:
        kept = os.dup(_STDERR)
    except OSError:
        return None
    os.dup2(file, _STDERR)
    return kept


def _restore(kept: int | None) -> None:
    if kept is not None:
        os.dup2(kept, _STDERR)
        os.close(kept)
