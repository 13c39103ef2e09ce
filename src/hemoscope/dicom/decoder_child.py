"""A child process that decodes compressed frames, so that a decoder that dies or never ends takes no study with it.

Started by ``decoder_pool`` as ``python -P -m hemoscope.dicom.decoder_child DESCRIPTOR``. It reads requests from its
standard input, each a head in JSON and the frame, puts the words into the memory of DESCRIPTOR, which its parent
shares, and writes a head in JSON to its standard output. It ends when its input ends, that is when its parent does.
Nothing that comes from it is executed or unpickled.
"""

import json
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

from hemoscope.dicom.decoder_messages import caught_damage
from hemoscope.dicom.pixels import PixelFormat, decode_frame
from hemoscope.dicom.slices import QualityNote
from hemoscope.dicom.transfer_syntaxes import TALKATIVE
from hemoscope.errors import DicomReadError

SIZES = struct.Struct("<IQ")  # bytes of the head, and of the frame that follows it or of the words in shared memory
# Beside the frame itself, decoders keep a few words of four bytes for each pixel.
_MEMORY = 512 << 20
_MEMORY_OF_A_PIXEL = 64
_PRINTED = 1 << 20


def main() -> None:
    """Answer requests until there are no more."""
    sys.excepthook = lambda *_error: None  # the parent reports that this process died
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    requests, answers, shared = os.fdopen(os.dup(0), "rb"), os.dup(1), mmap.mmap(int(sys.argv[-1]), 0)
    with suppress(OSError):  # without a standard error
        os.dup2(2, 1)  # what a decoder prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_PRINTED, _PRINTED))  # what a decoder prints is caught in a file
    base = _data_bytes()
    while (request := _receive(requests)) is not None:
        head, frame = request
        pixels = PixelFormat(**head["pixels"])
        _limit_memory(base + _MEMORY + 3 * len(frame) + _MEMORY_OF_A_PIXEL * pixels.rows * pixels.columns)
        send(answers, shared, *answer(frame, pixels, head["syntax"]))


def answer(frame: bytes, pixels: PixelFormat, syntax: str) -> tuple[dict[str, Any], memoryview | bytes]:
    """Decode one frame: its words, or the reason why it cannot be decoded."""
    catching: AbstractContextManager[Sequence[QualityNote]] = nullcontext(())
    if syntax in TALKATIVE:
        catching = caught_damage()
    try:
        with catching as damage:
            words = decode_frame((memoryview(frame),), pixels=pixels, syntax=syntax, source="frame")
    except DicomReadError as error:
        return {"refused": error.reason}, b""
    return {"type": words.dtype.str, "damaged": bool(damage)}, words.data


def send(descriptor: int, shared: mmap.mmap, head: dict[str, Any], words: memoryview | bytes) -> None:
    """Put the words into the shared memory, then write the head, in one piece: the parent wakes up once."""
    text, view = json.dumps(head).encode(), memoryview(words).cast("B") if len(words) else memoryview(b"")
    shared[: len(view)] = view
    left = SIZES.pack(len(text), len(view)) + text
    while left:
        left = left[os.write(descriptor, left) :]


def _receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    sizes = stream.read(SIZES.size)
    if len(sizes) < SIZES.size:
        return None
    of_head, of_body = SIZES.unpack(sizes)
    return json.loads(stream.read(of_head)), stream.read(of_body)


def _data_bytes() -> int:
    """Return the bytes that RLIMIT_DATA counts now; 0 if the system does not tell, as other than Linux."""
    try:
        return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmData:")[1].split()[0]) * 1024
    except OSError:
        return 0


def _limit_memory(most: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
