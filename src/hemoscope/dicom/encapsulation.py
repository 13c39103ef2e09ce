"""Splits pixel data into frames: native bytes, or the fragments of PS3.5 annex A.4.

Every length is checked against the available bytes before anything is decoded or allocated.
"""

import struct
from collections.abc import Sequence

from hemoscope.dicom.part10 import UNDEFINED_LENGTH, PixelElement
from hemoscope.dicom.refusals import refusal

_ITEM = 0xFFFEE000
_DELIMITER = 0xFFFEE0DD


def native_frames(pixels: PixelElement, *, frame_bytes: int, frames: int, source: str) -> tuple[memoryview, ...]:
    """Return views of the frames of uncompressed pixel data.

    Args:
        pixels: the pixel data element; ``frame_bytes`` and ``frames`` are declared by the header.
        frame_bytes: bytes of one frame.
        frames: number of frames.
        source: the input's name, for errors.

    Raises:
        DicomReadError: ``truncated_pixel_data`` if bytes are missing, ``inconsistent_pixel_data`` if the length differs
            from the header's (except for one byte of padding, PS3.5 8.1.1).
    """
    if pixels.length is None:
        raise refusal(source, "inconsistent_pixel_data", "an uncompressed transfer syntax with encapsulated pixel data")
    expected = frame_bytes * frames
    present = min(pixels.length, len(pixels.data) - pixels.start)
    if present < min(expected, pixels.length):
        reason = f"pixel data should have {expected} bytes but has {present}"
        raise refusal(source, "truncated_pixel_data", reason)
    if not expected <= pixels.length <= expected + (expected % 2):
        reason = f"the header declares {expected} bytes of pixel data, the element has {pixels.length}"
        raise refusal(source, "inconsistent_pixel_data", reason)
    view = memoryview(pixels.data)[pixels.start : pixels.start + expected]
    return tuple(view[index * frame_bytes : (index + 1) * frame_bytes] for index in range(frames))


def encapsulated_frames(
    pixels: PixelElement, *, frames: int, extended_offsets: Sequence[int] | None, source: str
) -> tuple[tuple[memoryview, ...], ...]:
    """Return the fragments of each frame of compressed pixel data, without copying.

    A single frame has all fragments; with as many fragments as frames, each is a frame; otherwise the basic or the
    extended offset table gives the start of each frame (PS3.5 A.4, PS3.3 C.7.6.3.1.8).

    Raises:
        DicomReadError: ``truncated_pixel_data`` or ``inconsistent_pixel_data``.
    """
    if pixels.length is not None:
        raise refusal(source, "inconsistent_pixel_data", "a compressed transfer syntax with uncompressed pixel data")
    items = _items(pixels, source)
    if not items:
        raise refusal(source, "truncated_pixel_data", "no basic offset table and no frame in the pixel data")
    view = memoryview(pixels.data)
    table, fragments = items[0], items[1:]
    # Offsets count from the first fragment's item tag, 8 bytes before its value.
    starts = {start - 8 - (table[0] + table[1]): number for number, (start, _) in enumerate(fragments)}
    parts = [view[start : start + length] for start, length in fragments]
    if len(parts) < frames:
        reason = f"{frames} frames are declared, but there are {len(parts)} fragments"
        raise refusal(source, "truncated_pixel_data", reason)
    if frames == 1:
        return (tuple(parts),)
    if len(parts) == frames:
        return tuple((part,) for part in parts)
    offsets = extended_offsets or _offset_table(view[table[0] : table[0] + table[1]])
    first = [starts.get(offset) for offset in offsets]
    numbers = [number for number in first if number is not None]
    if len(offsets) != frames or len(numbers) != frames or numbers != sorted(set(numbers)):
        reason = f"no offset table assigns the {len(parts)} fragments to the {frames} frames"
        raise refusal(source, "inconsistent_pixel_data", reason)
    ends = [*numbers[1:], len(parts)]
    return tuple(tuple(parts[begin:end]) for begin, end in zip(numbers, ends, strict=True))


def _offset_table(value: memoryview) -> tuple[int, ...]:
    return struct.unpack(f"<{len(value) // 4}I", value[: len(value) // 4 * 4])


def _items(pixels: PixelElement, source: str) -> list[tuple[int, int]]:
    """Yield (start, length) of the value of each item up to the sequence delimiter."""
    found: list[tuple[int, int]] = []
    position, end = pixels.start, len(pixels.data)
    while position + 8 <= end:
        group, element, length = struct.unpack_from("<HHI", pixels.data, position)
        position += 8
        tag = group << 16 | element
        if tag == _DELIMITER:
            return found
        if tag != _ITEM or length == UNDEFINED_LENGTH:
            raise refusal(source, "inconsistent_pixel_data", "the fragments of the pixel data are not DICOM items")
        if length > end - position:
            reason = f"a fragment of the pixel data declares {length} bytes, but only {end - position} are left"
            raise refusal(source, "truncated_pixel_data", reason)
        found.append((position, length))
        position += length
    raise refusal(source, "truncated_pixel_data", "the file ends inside the compressed pixel data")
