"""Decodes compressed frames in child processes that are kept warm: one for each thread that decodes at a time.

A decoder reads what anybody may have made. If it dies, takes too long or answers nonsense, its child is ended, the
frame is refused, and the next one gets a new child. Each child has limits on memory and on what it writes
(``decoder_child``).

Frames go to a child through a pipe; words come back in memory that both share. The child can write there at any time,
so they are copied before they are used, and its size is sealed, so that no child takes it away under its parent.
"""

import atexit
import fcntl
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from hemoscope.dicom.decoder_child import SIZES
from hemoscope.dicom.decoder_messages import DAMAGED
from hemoscope.dicom.pixels import PixelFormat, Words
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import QualityNote
from hemoscope.errors import DecoderStartError

_COMMAND = (sys.executable, "-P", "-m", "hemoscope.dicom.decoder_child")
# The C library (mallopt(3)) keeps freed memory for the next frame: a third of the time was spent on fresh pages.
_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    "MALLOC_TOP_PAD_": str(1 << 25),
    "OPENBLAS_NUM_THREADS": "1",
}
_MOST_S = 60.0  # for one frame; the largest takes a few seconds
_MOST_HEAD = 1 << 16
_MOST_PARTS = 1000  # of one writev (IOV_MAX is 1024)
_PIPE = 1 << 20
_ROOM = 1 << 22  # a megapixel of four bytes; a larger frame gets a child with more
_TYPES = {"|u1": 1, "<u2": 2, "<u4": 4}


class _ChildError(Exception):
    """A child that cannot be used any more; the message says why."""


class _Child:
    """One process, used by one thread at a time."""

    def __init__(self, room: int) -> None:
        """Start it, with so many bytes for the words of a frame. Raises DecoderStartError."""
        self.room = room
        try:
            self._shared, self._process = _started(room)
        except OSError as error:
            cause = os.strerror(error.errno or 0)
            msg = (
                f"no decoder of compressed pixels can be started on this machine ({cause}). Free memory, or allow more "
                "processes and open files, and try again"
            )
            raise DecoderStartError(msg) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
        with suppress(OSError, AttributeError):  # only Linux has it, up to a limit for each user
            fcntl.fcntl(self._to, fcntl.F_SETPIPE_SZ, _PIPE)

    def ask(self, head: dict[str, Any], frame: Sequence[memoryview], *, count: int) -> tuple[dict[str, Any], bytes]:
        """Send a frame and return the answer: ``count`` words, or a refusal. Raises _ChildError."""
        deadline = time.monotonic() + _MOST_S
        text = json.dumps(head).encode()
        try:
            self._write([SIZES.pack(len(text), sum(map(len, frame))) + text, *frame], deadline)
            answer, size = self._answer(deadline)
            if size > min(4 * count, self.room):
                msg = "its decoder gave more than the frame can hold"
                raise _ChildError(msg)
            if "refused" not in answer and size != count * _TYPES.get(str(answer.get("type")), 0):
                msg = "its decoder gave something else than the frame"
                raise _ChildError(msg)
            return answer, self._shared[:size]
        except (OSError, ValueError, TypeError) as error:  # a broken pipe; no JSON
            raise _ChildError(self.end()) from error

    def _write(self, parts: Sequence[bytes | memoryview], deadline: float) -> None:
        left = [memoryview(part) for part in parts]
        while left:
            try:
                written = os.writev(self._to, left[:_MOST_PARTS])
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, deadline)
                continue
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]

    def _answer(self, deadline: float) -> tuple[dict[str, Any], int]:
        """The head of an answer, and the bytes of its words."""
        content, whole, size = b"", SIZES.size, 0
        while len(content) < whole:
            self._wait(self._from, select.POLLIN, deadline)
            more = os.read(self._from, _MOST_HEAD)
            if not more:
                raise _ChildError(self.end())
            content += more
            if len(content) >= SIZES.size:
                of_head, size = SIZES.unpack_from(content)
                whole = SIZES.size + of_head
                if max(whole, len(content)) > _MOST_HEAD:
                    msg = "its decoder gave more than the frame can hold"
                    raise _ChildError(msg)
        return dict(json.loads(content[SIZES.size : whole])), size

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            msg = f"its decoder took more than {_MOST_S:g} s and was ended"
            raise _ChildError(msg)

    def end(self, *, wait_s: float = 1.0) -> str:
        """End the process and return how it ended; it exits by itself when its input is closed."""
        with self._process as process:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            try:
                code = process.wait(wait_s)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        self._shared.close()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its decoder died ({how})"


def _started(room: int) -> tuple[mmap.mmap, subprocess.Popen[bytes]]:
    """A child, and the memory that it shares with this process."""
    descriptor = _memory(room)
    try:
        shared = mmap.mmap(descriptor, room)  # before the child, which nobody would end if this failed
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module
                (*_COMMAND, str(descriptor)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a Python without memory prints a traceback before any of our code runs
                env={**os.environ, **_ENVIRONMENT},
                pass_fds=(descriptor,),
            )
        except BaseException:
            shared.close()
            raise
        return shared, process
    finally:
        os.close(descriptor)


def _memory(size: int) -> int:
    """The descriptor of memory to share; on Linux nobody can change its size, which would end who uses it (SIGBUS)."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("words", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return os.dup(file.fileno())


class DecoderPool:
    """Idle children; the one used last is used next."""

    def __init__(self) -> None:
        """Begin without children."""
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    @contextmanager
    def child(self, room: int) -> Iterator[_Child]:
        """Lend a child with that much room; after an error it is ended. Raises DecoderStartError."""
        with self._lock:
            found = self._idle.pop() if self._idle else None
        if found is not None and found.room < room:
            found.end()
            found = None
        child = _Child(max(room, _ROOM)) if found is None else found
        try:
            yield child
        except BaseException:
            child.end(wait_s=0.0)
            raise
        with self._lock:
            self._idle.append(child)

    def close(self) -> None:
        """End all idle children."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()


_pools = [DecoderPool()]
# A forked process has none of them; the earlier pool stays referenced, so that nothing in it is closed twice.
os.register_at_fork(after_in_child=lambda: _pools.append(DecoderPool()))


@atexit.register
def close() -> None:
    """End the children of this process that decode nothing now."""
    _pools[-1].close()


def decode_apart(
    fragments: tuple[memoryview, ...], *, pixels: PixelFormat, syntax: str, source: str
) -> tuple[Words, tuple[QualityNote, ...]]:
    """Decode one compressed frame as ``pixels.decode_frame`` does, in a child process; with a note if it is damaged.

    Raises:
        DicomReadError: ``inconsistent_pixel_data`` if the frame contradicts the header or cannot be decoded,
            ``decoder_died`` if the decoder ended, took too long or gave something else than a frame.
        DecoderStartError: the machine cannot start a decoder now; the frame may be good.
    """
    head = {"pixels": asdict(pixels), "syntax": syntax}
    count = pixels.rows * pixels.columns
    try:
        with _pools[-1].child(4 * count) as child:
            answer, words_bytes = child.ask(head, fragments, count=count)
    except _ChildError as error:
        raise refusal(source, "decoder_died", str(error)) from error
    if "refused" in answer:
        raise refusal(source, "inconsistent_pixel_data", str(answer["refused"])[:500])
    words: Words = np.frombuffer(words_bytes, dtype=answer["type"]).reshape(pixels.rows, pixels.columns)
    return words, (DAMAGED,) if answer.get("damaged") else ()
