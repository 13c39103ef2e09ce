"""Parses headers of compressed frames (size, precision, sign), so that they can be checked before a decoder runs.

JPEG and JPEG-LS: ITU-T T.81 B.2.2 and T.87 C.2.2 (frame header). JPEG 2000 and HTJ2K: ITU-T T.800 A.5.1 (SIZ marker).
RLE: PS3.5 G.5.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xDA)) | {0x00, 0x01}
_NEEDLESS = frozenset(range(0xE0, 0xF0)) | {0xFE}
# Only a malicious file has more tiles, or more code blocks than bytes.
_MOST_TILES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFormat:
    """Header of a compressed frame: rows, columns, samples per pixel, bits per sample, and sign."""

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool = False


def bare_jpeg(frame: bytes) -> tuple[FrameFormat, int, bytes]:
    """Read the frame header of a JPEG or JPEG-LS frame, and remove the segments that grayscale pixels do not need.

    Application segments and comments do not affect stored values, but damaged ones (a JFIF version of 0.0) make GDCM
    abort the process.

    Returns:
        The format, the start of frame marker (its kind of coding), and the frame without those segments.

    Raises:
        ValueError: there is not exactly one complete frame header before the first scan.
    """
    if frame[:2] != b"\xff\xd8":
        msg = "no JPEG start of image"
        raise ValueError(msg)
    headers: list[tuple[FrameFormat, int]] = []
    kept = [b"\xff\xd8"]
    for marker, start, end in _jpeg_segments(frame):
        if marker in _START_OF_FRAME:
            if end - start < 10:
                break
            precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, start + 4)
            found = FrameFormat(rows=rows, columns=columns, samples=samples, precision=precision)
            headers.append((found, marker))
        if marker not in _NEEDLESS:
            kept.append(frame[start:end])
    if len(headers) != 1:
        msg = f"{len(headers)} JPEG frame headers"
        raise ValueError(msg)
    return *headers[0], b"".join(kept)


def _jpeg_segments(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment; the first scan extends to the end of the frame."""
    position = 2
    while position + 4 <= len(frame):
        marker = frame[position + 1]
        if frame[position] != 0xFF or marker in _WITHOUT_LENGTH:
            msg = "damaged JPEG segments"
            raise ValueError(msg)
        if marker == 0xFF:
            position += 1
            continue
        end = position + 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            yield marker, position, len(frame)
            return
        if end > len(frame) or end < position + 4:
            break
        yield marker, position, end
        position = end
    msg = "no JPEG scan"
    raise ValueError(msg)


def jpeg2000_format(frame: bytes) -> FrameFormat:
    """Read the SIZ marker of a JPEG 2000 frame. Raises ValueError if it is missing or implausible."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 1024)
    if start < 0 or len(frame) < start + 45:
        msg = "no JPEG 2000 size marker"
        raise ValueError(msg)
    x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y = struct.unpack_from(">8I", frame, start + 8)
    (samples, depth, step_x, step_y) = struct.unpack_from(">HBBB", frame, start + 40)
    if not (x1 > x0 and y1 > y0 and tile_width and tile_height and step_x == step_y == 1):
        msg = "implausible JPEG 2000 size marker"
        raise ValueError(msg)
    tiles = -(-(x1 - tile_x) // tile_width) * -(-(y1 - tile_y) // tile_height)
    if not 0 < tiles <= _MOST_TILES:
        msg = f"{tiles} JPEG 2000 tiles"
        raise ValueError(msg)
    return FrameFormat(
        rows=y1 - y0, columns=x1 - x0, samples=samples, precision=(depth & 0x7F) + 1, signed=bool(depth & 0x80)
    )


def rle_segments(frame: bytes) -> int:
    """Check an RLE header and return its number of segments. Raises ValueError if offsets are invalid."""
    if len(frame) < 64:
        msg = "no RLE header"
        raise ValueError(msg)
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[:count]
    if not 1 <= count <= 15 or used[0] != 64 or used != sorted(set(used)) or used[-1] >= len(frame):
        msg = "damaged RLE header"
        raise ValueError(msg)
    return int(count)
