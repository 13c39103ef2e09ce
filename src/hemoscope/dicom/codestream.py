"""The first lines of a compressed frame: size, precision and sign, so that they can be checked before a decoder runs.

JPEG and JPEG-LS: ITU-T T.81 B.2.2 and T.87 C.2.2 (frame header). JPEG 2000 and HTJ2K: ITU-T T.800 A.5.1 (SIZ marker).
RLE: PS3.5 G.5.
"""

import struct
from dataclasses import dataclass

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xDA)) | {0x01}
# More tiles, or smaller code blocks than one byte of data can feed, only a hostile file has.
_MOST_TILES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFormat:
    """What a compressed frame says of itself: rows, columns, samples a pixel, bits a sample, and sign."""

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool = False


def jpeg_format(frame: bytes) -> FrameFormat:
    """Read the frame header of a JPEG or JPEG-LS frame; ValueError where there is none."""
    if frame[:2] != b"\xff\xd8":
        msg = "no JPEG start of image"
        raise ValueError(msg)
    position = 2
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME and position + 10 <= len(frame):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return FrameFormat(rows=rows, columns=columns, samples=samples, precision=precision)
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    msg = "no JPEG frame header"
    raise ValueError(msg)


def jpeg2000_format(frame: bytes) -> FrameFormat:
    """Read the SIZ marker of a JPEG 2000 frame; ValueError where there is none or it is absurd."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 1024)
    if start < 0 or len(frame) < start + 45:
        msg = "no JPEG 2000 size marker"
        raise ValueError(msg)
    x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y = struct.unpack_from(">8I", frame, start + 8)
    (samples, depth, step_x, step_y) = struct.unpack_from(">HBBB", frame, start + 40)
    if not (x1 > x0 and y1 > y0 and tile_width and tile_height and step_x == step_y == 1):
        msg = "absurd JPEG 2000 size marker"
        raise ValueError(msg)
    tiles = -(-(x1 - tile_x) // tile_width) * -(-(y1 - tile_y) // tile_height)
    if not 0 < tiles <= _MOST_TILES:
        msg = f"{tiles} JPEG 2000 tiles"
        raise ValueError(msg)
    return FrameFormat(
        rows=y1 - y0, columns=x1 - x0, samples=samples, precision=(depth & 0x7F) + 1, signed=bool(depth & 0x80)
    )


def rle_segments(frame: bytes) -> int:
    """Check an RLE header and return its number of segments; ValueError where offsets leave the frame or go back."""
    if len(frame) < 64:
        msg = "no RLE header"
        raise ValueError(msg)
    count, *offsets = struct.unpack_from("<16I", frame)
    used = offsets[:count]
    if not 1 <= count <= 15 or used[0] != 64 or used != sorted(set(used)) or used[-1] >= len(frame):
        msg = "damaged RLE header"
        raise ValueError(msg)
    return int(count)
