"""Splits pixel data into frames: native bytes, or the fragments of PS3.5 annex A.4.

Every length is checked against the available bytes before anything is decoded or allocated. What violates the standard
but leaves all frames whole is read, with the note ``nonstandard_encoding``.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hemoscope.dicom.part10 import UNDEFINED_LENGTH, PixelElement
from hemoscope.dicom.pixels import PixelFormat
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import QualityNote
from hemoscope.dicom.transfer_syntaxes import ENCAPSULATED, RLE
from hemoscope.errors import DicomReadError

_ITEM = 0xFFFEE000
_DELIMITER = 0xFFFEE0DD
# JPEG and JPEG-LS start with SOI, JPEG 2000 with SOC, a JP2 file with its signature box; all three end with the same
# two bytes: EOI (T.81 B.1.1.3, T.87 C.1.1) and EOC (T.800 A.4.4).
_IMAGE_STARTS = (b"\xff\xd8", b"\xff\x4f", b"\0\0\0\x0cjP  ")
_IMAGE_END = b"\xff\xd9"
# Padding after the end marker: zeros, of any number, or a few other bytes.
_TAIL = 256
_AFTER_END = 8

Fragments = tuple[memoryview, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBytes:
    """The fragments of each frame, without copying, and notes on what violates the standard."""

    frames: tuple[Fragments, ...]
    notes: tuple[QualityNote, ...] = ()


def native_frames(element: PixelElement, *, pixels: PixelFormat, frames: int, source: str) -> FrameBytes:
    """Return views of the frames of uncompressed pixel data.

    Bytes after the declared pixels are ignored (PS3.5 8.1.1); a note says so unless they are zero.

    Args:
        element: the pixel data element.
        pixels: format declared by the header.
        frames: number of frames declared by the header.
        source: the input's name, for errors.

    Raises:
        DicomReadError: ``truncated_pixel_data`` if bytes are missing, ``inconsistent_pixel_data`` if the element is
            shorter than the header declares, or holds further frames or columns.
    """
    if element.length is None:
        raise refusal(source, "inconsistent_pixel_data", "an uncompressed transfer syntax with encapsulated pixel data")
    expected = pixels.frame_bytes * frames
    present = min(element.length, len(element.data) - element.start)
    if present < min(expected, element.length):
        reason = f"pixel data should have {expected} bytes but has {present}"
        raise refusal(source, "truncated_pixel_data", reason)
    view = memoryview(element.data)[element.start : element.start + present]
    if element.length < expected or _is_other_image(view[expected:], pixels):
        reason = f"the header declares {expected} bytes of pixel data, the element has {element.length}"
        raise refusal(source, "inconsistent_pixel_data", reason)
    starts = range(0, expected, pixels.frame_bytes)
    return FrameBytes(
        frames=tuple((view[start : start + pixels.frame_bytes],) for start in starts),
        notes=_surplus_notes(view[expected:]),
    )


def _is_other_image(surplus: memoryview, pixels: PixelFormat) -> bool:
    """Whether bytes after the pixels show a wrong header: further frames, or columns, which shift each row."""
    if not _holds_data(surplus):
        return False
    column, row = (count * pixels.bits_allocated // 8 for count in (pixels.rows, pixels.columns))
    return len(surplus) >= pixels.frame_bytes or (len(surplus) % column == 0 and len(surplus) % row != 0)


def _surplus_notes(surplus: memoryview) -> tuple[QualityNote, ...]:
    return (_violation("bytes after the pixels were ignored"),) if len(surplus) > 1 and _holds_data(surplus) else ()


def _holds_data(surplus: memoryview) -> bool:
    return bool(bytes(surplus).strip(b"\0"))


def _violation(message: str) -> QualityNote:
    return QualityNote(code="nonstandard_encoding", message=f"the encoding violates the standard: {message}")


def encapsulated_frames(
    element: PixelElement,
    *,
    pixels: PixelFormat,
    frames: int,
    syntax: str,
    extended_offsets: Sequence[int] | None,
    source: str,
) -> FrameBytes:
    """Return the fragments of each frame of encapsulated pixel data.

    A single frame has all fragments; with as many fragments as frames, each is a frame; otherwise the basic or the
    extended offset table gives the start of each frame (PS3.5 A.4, PS3.3 C.7.6.3.1.8). If there is no valid table,
    frames are split after the end-of-image markers of JPEG, JPEG-LS and JPEG 2000, or, if uncompressed, by their bytes.

    Args:
        element: the pixel data element.
        pixels: format declared by the header.
        frames: number of frames declared by the header.
        syntax: transfer syntax UID.
        extended_offsets: the Extended Offset Table (7FE0,0001), or None.
        source: the input's name, for errors.

    Raises:
        DicomReadError: ``truncated_pixel_data`` or ``inconsistent_pixel_data``.
    """
    if element.length is not None and not _starts_with_item(element):
        raise refusal(source, "inconsistent_pixel_data", "a compressed transfer syntax with uncompressed pixel data")
    items, unmarked_end = _items(element, source)
    if not items:
        raise refusal(source, "truncated_pixel_data", "no basic offset table and no frame in the pixel data")
    view = memoryview(element.data)
    content = _Content(tuple(view[start : start + length] for start, length in items), pixels, syntax)
    notes = [] if element.length is None else [_violation("compressed pixel data have a length")]
    if content.starts_frame(content.parts[0]):
        notes.append(_violation("the pixel data have no basic offset table"))
        table, fragments = memoryview(b""), items
    else:
        table, fragments = content.parts[0], items[1:]
    content = replace(content, parts=tuple(view[start : start + length] for start, length in fragments if length))
    # Offsets count from the first fragment's item tag, 8 bytes before its value, and so do starts here.
    full = [start - fragments[0][0] for start, length in fragments if length]
    first = _first_fragments(full, frames, (extended_offsets or (), _offset_table(table, frames)))
    split = _split(content, frames, first, source)
    if unmarked_end is not None:
        if not content.ends_frame(split[-1], sum(map(len, split[-1]))):
            raise unmarked_end
        notes.append(_violation("the end of the pixel data is not marked; all frames are whole"))
    if syntax == ENCAPSULATED:
        notes += _check_uncompressed(split, pixels, source)
    return FrameBytes(frames=split, notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class _Content:
    """The fragments of encapsulated pixel data, and where frames start and end in them."""

    parts: Fragments
    pixels: PixelFormat
    syntax: str

    def starts_frame(self, part: memoryview) -> bool:
        """Whether a fragment is the first one of a frame; an offset table is not."""
        if self.syntax == ENCAPSULATED:
            return 0 <= len(part) - self.pixels.frame_bytes <= 1
        if self.syntax == RLE:  # PS3.5 G.5: the number of segments, and the first one's offset
            return len(part) >= 64 and 1 <= part[0] <= 15 and bytes(part[1:8]) == b"\0\0\0\x40\0\0\0"
        return bytes(part[:8]).startswith(_IMAGE_STARTS)

    def ends_frame(self, fragments: Sequence[memoryview], size: int) -> bool:
        """Whether fragments of ``size`` bytes in all can hold all of a frame; RLE has no end of its own."""
        if self.syntax == RLE:
            return True
        if self.syntax == ENCAPSULATED:
            return size >= self.pixels.frame_bytes
        tail = b"".join(bytes(part[-_TAIL:]) for part in fragments[-2:]).rstrip(b"\0")
        return _IMAGE_END in tail[-2 - _AFTER_END :]

    def split(self) -> Iterator[Fragments]:
        """Yield frames by their ends. A marker counts only before a frame: JPEG headers can hold a thumbnail."""
        frame: list[memoryview] = []
        size = 0
        for part, following in zip(self.parts, (*self.parts[1:], None), strict=True):
            frame.append(part)
            size += len(part)
            starts = following is None or self.syntax == ENCAPSULATED or self.starts_frame(following)
            if starts and self.ends_frame(frame, size):
                yield tuple(frame)
                frame, size = [], 0
        if frame:
            yield tuple(frame)


def _split(content: _Content, frames: int, first: Sequence[int] | None, source: str) -> tuple[Fragments, ...]:
    """Assign fragments to frames: ``first`` is the number of each frame's first fragment, None without valid table."""
    parts = content.parts
    if len(parts) < frames:
        reason = f"{frames} frames are declared, but there are {len(parts)} fragments"
        raise refusal(source, "truncated_pixel_data", reason)
    if len(parts) == frames:
        return tuple((part,) for part in parts)
    if first is not None and frames > 1:
        return tuple(parts[begin:end] for begin, end in zip(first, [*first[1:], len(parts)], strict=True))
    found = tuple(content.split())
    if len(found) != frames:
        reason = f"{frames} frames are declared, but the {len(parts)} fragments hold {len(found)}"
        code = "truncated_pixel_data" if len(found) < frames else "inconsistent_pixel_data"
        raise refusal(source, code, reason)
    return found


def _first_fragments(starts: Sequence[int], frames: int, tables: Sequence[Sequence[int]]) -> list[int] | None:
    """Return the number of each frame's first fragment by the first table that is valid, or None."""
    number_of = {start: number for number, start in enumerate(starts)}
    for offsets in tables:
        numbers = [number_of[offset] for offset in offsets if offset in number_of]
        if len(offsets) == len(numbers) == frames and numbers == sorted(set(numbers)) and numbers[0] == 0:
            return numbers
    return None


def _offset_table(value: memoryview, frames: int) -> tuple[int, ...]:
    """Return the offsets; none if there is not one for each frame."""
    return struct.unpack(f"<{frames}I", value[: 4 * frames]) if len(value) // 4 == frames else ()


def _check_uncompressed(frames: Sequence[Fragments], pixels: PixelFormat, source: str) -> tuple[QualityNote, ...]:
    """Compare the bytes of encapsulated uncompressed frames (PS3.5 A.4.11) with the header, as for native ones."""
    notes: tuple[QualityNote, ...] = ()
    for frame in frames:
        length = sum(map(len, frame))
        if length == pixels.frame_bytes:
            continue
        surplus = memoryview(b"".join(frame))[pixels.frame_bytes :]
        if length < pixels.frame_bytes or _is_other_image(surplus, pixels):
            reason = f"the header declares {pixels.frame_bytes} bytes for a frame, its fragments have {length}"
            raise refusal(source, "inconsistent_pixel_data", reason)
        notes = notes or _surplus_notes(surplus)
    return notes


def with_delimiter(element: PixelElement, *, source: str) -> bytes:
    """Return the data set's bytes; if encapsulated pixel data have no delimiter, they end with one after the last item.

    Raises:
        DicomReadError: as ``encapsulated_frames``, for damaged items.
    """
    if element.length is not None:
        return element.data
    items, unmarked_end = _items(element, source)
    if unmarked_end is None or not items:
        return element.data
    return element.data[: sum(items[-1])] + struct.pack("<HHI", _DELIMITER >> 16, _DELIMITER & 0xFFFF, 0)


def _starts_with_item(element: PixelElement) -> bool:
    return element.data[element.start : element.start + 4] == struct.pack("<HH", _ITEM >> 16, _ITEM & 0xFFFF)


def _items(element: PixelElement, source: str) -> tuple[list[tuple[int, int]], DicomReadError | None]:
    """Return (start, length) of each item's value, and what to raise if no delimiter ends them and frames lack."""
    found: list[tuple[int, int]] = []
    position, end = element.start, len(element.data)
    if element.length is not None:  # against the standard; a length that is too large ends with the file
        end = min(end, position + element.length)
    while position + 8 <= end:
        group, number, length = struct.unpack_from("<HHI", element.data, position)
        position += 8
        tag = group << 16 | number
        if tag == _DELIMITER:
            return found, None
        if tag != _ITEM or length == UNDEFINED_LENGTH:
            other = refusal(source, "inconsistent_pixel_data", "the fragments of the pixel data are not DICOM items")
            if len(found) < 2:
                raise other
            return found, other
        if length > end - position:
            reason = f"a fragment of the pixel data declares {length} bytes, but only {end - position} are left"
            raise refusal(source, "truncated_pixel_data", reason)
        element.budget.count()
        found.append((position, length))
        position += length
    if element.length is not None and position == element.start + element.length:
        return found, None
    return found, refusal(source, "truncated_pixel_data", "the file ends inside the compressed pixel data")
