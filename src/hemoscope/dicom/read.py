"""Reads one DICOM file (path, bytes or stream) into CT slices in Hounsfield units, or refuses it with a reason.

``admit`` does not decode; ``read_slices`` decodes, ``decode_image`` what was admitted; ``read_slice`` is for the usual
file of one frame.
"""

import errno
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom import tags
from hemoscope.dicom.ct_objects import check_is_ct_slice
from hemoscope.dicom.decoder_pool import decode_apart
from hemoscope.dicom.elements import PARSE_ERRORS, Elements, quiet
from hemoscope.dicom.encapsulation import FrameBytes, encapsulated_frames, native_frames
from hemoscope.dicom.frames import FrameElements, count_frames, read_header, split_frames
from hemoscope.dicom.hounsfield import HounsfieldRule, check_is_no_picture, read_rule, to_hounsfield, to_rounded
from hemoscope.dicom.image_kind import ImageKind
from hemoscope.dicom.part10 import DicomObject, parse
from hemoscope.dicom.pixels import PixelFormat, Words, decode_frame
from hemoscope.dicom.read_budget import ReadBudget
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import CTSlice, QualityNote, RoundedSlice, SliceHeader
from hemoscope.dicom.transfer_syntaxes import BIG_ENDIAN, COMPRESSED, NATIVE, SYNTAXES
from hemoscope.errors import DicomReadError

__all__ = [
    "Admission",
    "OpenedImage",
    "ReadLimits",
    "admission",
    "admit",
    "decode_image",
    "decode_rounded",
    "load_bytes",
    "open_image",
    "read_headers",
    "read_slice",
    "read_slices",
]

DicomInput = Path | bytes | BinaryIO
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_OF_THE_DISK = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
# Refusals of frames that show no slice; the other frames of their file are read.
_NO_SLICES = frozenset({"localizer", "sheet", "parameter_map"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """One frame that passed all checks, ready to decode."""

    header: SliceHeader
    rule: HounsfieldRule
    fragments: tuple[memoryview, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage:
    """A file that was parsed and passed all checks, with its encoded pixels; ``decode_image`` parses nothing again."""

    source: str
    syntax: str
    pixels: PixelFormat
    frames: tuple[_Frame, ...]
    refused: Mapping[int, DicomReadError]  # localizers and the like among the frames

    @property
    def headers(self) -> tuple[SliceHeader, ...]:
        """The header of each frame."""
        return tuple(frame.header for frame in self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Headers of the frames to read, the refusals of the file's other frames, and what ``decode_image`` needs."""

    headers: tuple[SliceHeader, ...]
    refused: tuple[DicomReadError, ...] = ()
    image: OpenedImage | None = None


def admit(
    data: DicomInput,
    *,
    source: str,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    together: ReadBudget | None = None,
) -> Admission:
    """Check one DICOM file without decoding: which of its frames belong to a study, and which are refused, and why.

    A computed map (perfusion, iodine) is refused here, while ``read_slices`` decodes it and names its kind.

    Args:
        data: path, bytes or binary stream.
        source: the name of the file as the user gave it, for headers and errors; never an absolute path.
        limits: what the file may ask for.
        together: what all files that are opened together may still cost.

    Raises:
        DicomReadError: one of the codes of ``refusals.REMEDIES``; there is no frame to read.
    """
    return admission(open_image(data, source=source, limits=limits, together=together))


def admission(image: OpenedImage) -> Admission:
    """Return what ``admit`` says of an opened file; the same errors."""
    refused = dict(image.refused)
    for frame in image.frames:
        if not frame.header.kind.is_read:
            refused[frame.header.frame] = _no_slice(image.source)
    headers = tuple(frame.header for frame in image.frames if frame.header.frame not in refused)
    if not headers:
        raise refused[min(refused)]
    why = _by_reason(refused, len(image.frames) + len(image.refused))
    return Admission(headers=headers, refused=why, image=image)


def read_headers(data: DicomInput, *, source: str, limits: ReadLimits = ReadLimits()) -> tuple[SliceHeader, ...]:  # noqa: B008 - frozen
    """Return a header for each frame that ``admit`` accepts.

    Raises:
        DicomReadError: as ``admit``.
    """
    return admit(data, source=source, limits=limits).headers


def read_slices(
    data: DicomInput,
    *,
    source: str,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    frames: Collection[int] | None = None,
    together: ReadBudget | None = None,
) -> tuple[CTSlice, ...]:
    """Read one DICOM file into slices, HU as float32 (rows, columns).

    Args:
        data: path, bytes or binary stream.
        source: the name of the file as the user gave it.
        limits: what the file may ask for.
        frames: indices of the frames to decode, all by default.
        together: what all files that are opened together may still cost.

    Raises:
        DicomReadError: as ``read_headers``, and ``inconsistent_pixel_data`` or ``decoder_died`` if a frame cannot be
            decoded.
    """
    return decode_image(open_image(data, source=source, limits=limits, together=together), frames)


def decode_image(image: OpenedImage, frames: Collection[int] | None = None) -> tuple[CTSlice, ...]:
    """Decode frames of a file that was checked before: what ``read_slices`` does after checking.

    Raises:
        DicomReadError: ``inconsistent_pixel_data`` or ``decoder_died`` if a frame cannot be decoded.
    """
    return tuple(_decode(frame, image) for frame in image.frames if frames is None or frame.header.frame in frames)


def decode_rounded(
    image: OpenedImage, frames: Collection[int], *, into: Mapping[int, NDArray[np.int16]] = MappingProxyType({})
) -> tuple[RoundedSlice, ...]:
    """Decode frames as ``decode_image`` does, to rounded HU; the same errors.

    ``into`` has arrays, by frame, that HU may be written to at once; a slice that was not has an array of its own.
    """
    found = []
    for frame in image.frames:
        if frame.header.frame in frames:
            words, damage = _words(frame, image)
            hounsfield, notes = to_rounded(words, frame.rule, image.pixels, into=into.get(frame.header.frame))
            found.append(RoundedSlice(header=frame.header, hounsfield=hounsfield, quality=(*notes, *damage)))
    return tuple(found)


def read_slice(data: DicomInput, *, source: str = "input", limits: ReadLimits = ReadLimits()) -> CTSlice:  # noqa: B008
    """Read a DICOM file of exactly one frame.

    Raises:
        DicomReadError: as ``read_slices``, and ``inconsistent_pixel_data`` for a file of several frames.
    """
    image = open_image(data, source=source, limits=limits)
    if len(image.frames) != 1:
        reason = f"{len(image.frames)} frames, but one slice is expected"
        raise refusal(source, "inconsistent_pixel_data", reason)
    return _decode(image.frames[0], image)


def load_bytes(data: DicomInput, *, source: str, limits: ReadLimits) -> bytes:
    """Return the bytes of an input, up to ``limits.file_bytes``.

    Raises:
        DicomReadError: ``unreadable`` or ``too_large``.
    """
    if isinstance(data, bytes):
        loaded = data
    elif isinstance(data, Path):
        loaded = _load_file(data, source, limits)
    else:
        loaded = _load_stream(data, source, limits)
    if len(loaded) > limits.file_bytes:
        raise refusal(source, "too_large", f"more than the limit file_bytes = {limits.file_bytes}")
    return loaded


def _load_file(path: Path, source: str, limits: ReadLimits) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refusal(source, "unreadable", "not an ordinary file")
        if status.st_size > limits.file_bytes:
            reason = f"{status.st_size} bytes, the limit file_bytes is {limits.file_bytes}"
            raise refusal(source, "too_large", reason)
        with path.open("rb") as stream:
            return _load_stream(stream, source, limits)
    except OSError as error:
        raise_if_machine_failed(error, source)
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise refusal(source, "unreadable", f"cannot be opened: {reason}") from error


def raise_if_machine_failed(error: Exception, source: str) -> None:
    """Raise an error that says nothing about the content of an input.

    Raises:
        OSError: ``error``, if this process has no file descriptor or memory left.
        DicomReadError: ``unreadable``, if the disk or the file server did not deliver the bytes.
    """
    if isinstance(error, OSError) and error.errno in _OF_THE_PROCESS:
        raise error
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        raise refusal(source, "unreadable", f"reading fails ({os.strerror(error.errno)})") from error


def _load_stream(stream: BinaryIO, source: str, limits: ReadLimits) -> bytes:
    """Read to the end in steps: a stream may return less than requested, and may never end."""
    parts: list[bytes] = []
    left = limits.file_bytes + 1
    try:
        while left > 0 and (part := stream.read(min(left, 1 << 24))):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise_if_machine_failed(error, source)
        raise refusal(source, "unreadable", f"reading fails ({type(error).__name__})") from error
    return b"".join(parts)


def open_image(data: DicomInput, *, source: str, limits: ReadLimits, together: ReadBudget | None = None) -> OpenedImage:
    """Parse and check one DICOM file, and keep its encoded pixels; arguments and errors as for ``read_slices``."""
    content = load_bytes(data, source=source, limits=limits)
    found = parse(content, source=source, limits=limits, together=together)
    with quiet(), found.budget:
        try:
            return _check(found, source, limits)
        except PARSE_ERRORS as error:
            # Sequences are parsed on access, so damage inside them appears here.
            raise refusal(source, "malformed", f"a sequence cannot be parsed ({type(error).__name__})") from error


def _check(found: DicomObject, source: str, limits: ReadLimits) -> OpenedImage:
    check_is_ct_slice(found, source)
    if found.syntax not in SYNTAXES:
        shown = found.syntax if len(found.syntax) <= 64 else "unknown"
        raise refusal(source, "unsupported_syntax", f"transfer syntax {shown} is not supported")
    elements = found.elements
    pixels = _read_format(elements, found.syntax, source)
    count, notes = count_frames(elements, source)
    _check_size(pixels, count, source, limits)
    views = split_frames(elements, frames=count, source=source)
    pieces = _cut(found, pixels, count, source)
    frames: list[_Frame] = []
    refused: dict[int, DicomReadError] = {}
    for index, view in enumerate(views):
        try:
            header = read_header(
                view,
                index=index,
                rows=pixels.rows,
                columns=pixels.columns,
                source=source,
                notes=(*notes, *pieces.notes),
            )
            rule = _read_rule(view, pixels, source, header.kind)
            frames.append(_Frame(header=header, rule=rule, fragments=pieces.frames[index]))
        except DicomReadError as error:
            if error.code not in _NO_SLICES:
                raise
            refused[index] = error
    if not frames:
        raise refused[0]
    return OpenedImage(source=source, syntax=found.syntax, pixels=pixels, frames=tuple(frames), refused=refused)


def _no_slice(source: str) -> DicomReadError:
    reason = "a computed map by its Image Type (0008,0008), derivation or series description"
    return refusal(source, "parameter_map", reason)


def _by_reason(refused: Mapping[int, DicomReadError], count: int) -> tuple[DicomReadError, ...]:
    """Return one refusal for each reason, which counts its frames."""
    found: dict[tuple[str, str], list[DicomReadError]] = {}
    for index in sorted(refused):
        found.setdefault((refused[index].code, refused[index].reason), []).append(refused[index])
    return tuple(
        refusal(errors[0].source, code, f"{len(errors)} of {count} frames: {reason}")
        for (code, reason), errors in found.items()
    )


def _read_rule(view: FrameElements, pixels: PixelFormat, source: str, kind: ImageKind) -> HounsfieldRule:
    try:
        rule = read_rule(view.group(tags.PIXEL_VALUE_TRANSFORMATION_SEQUENCE), view.whole, pixels, source)
        check_is_no_picture(rule, pixels, source)
    except DicomReadError as error:
        if kind.is_read:
            raise
        raise _no_slice(source) from error
    return rule


def _read_format(elements: Elements, syntax: str, source: str) -> PixelFormat:
    rows, columns = elements.word(tags.ROWS), elements.word(tags.COLUMNS)
    allocated, representation = elements.word(tags.BITS_ALLOCATED), elements.word(tags.PIXEL_REPRESENTATION)
    if not rows or not columns or allocated is None or representation not in (0, 1):
        raise refusal(source, "malformed", "rows, columns, bits allocated or pixel representation (0028) is invalid")
    stored = elements.word(tags.BITS_STORED) or allocated
    high = elements.word(tags.HIGH_BIT)
    high = stored - 1 if high is None else high
    if allocated not in (8, 16, 32) or not 2 <= stored <= allocated or not stored - 1 <= high < allocated:
        reason = f"{allocated} bits allocated, {stored} stored, high bit {high} contradict each other"
        raise refusal(source, "inconsistent_pixel_data", reason)
    if syntax == BIG_ENDIAN and allocated == 8:
        # Big endian swaps bytes of 8-bit pixels depending on the VR, which files often get wrong (PS3.5 8.1.2).
        raise refusal(source, "unsupported_syntax", "8-bit pixels in the retired big endian syntax are not supported")
    return PixelFormat(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=representation == 1,
    )


def _check_size(pixels: PixelFormat, count: int, source: str, limits: ReadLimits) -> None:
    one = pixels.rows * pixels.columns
    if one > limits.slice_pixels or one * count > limits.pixels:
        reason = (
            f"{pixels.rows} x {pixels.columns} x {count} frames, the limits are "
            f"slice_pixels = {limits.slice_pixels} and pixels = {limits.pixels}"
        )
        raise refusal(source, "too_large", reason)


def _cut(found: DicomObject, pixels: PixelFormat, count: int, source: str) -> FrameBytes:
    if found.pixels is None:  # check_is_ct_slice refuses this
        raise refusal(source, "no_pixels", "no pixel data (7FE0,0010)")
    if found.syntax in NATIVE:
        return native_frames(found.pixels, pixels=pixels, frames=count, source=source)
    table = found.elements.raw(tags.EXTENDED_OFFSET_TABLE) or b""
    offsets = np.frombuffer(table[: 8 * count], dtype="<u8").tolist() if len(table) // 8 == count else None
    return encapsulated_frames(
        found.pixels, pixels=pixels, frames=count, syntax=found.syntax, extended_offsets=offsets, source=source
    )


def _words(frame: _Frame, image: OpenedImage) -> tuple[Words, tuple[QualityNote, ...]]:
    """Decode one frame; return it with notes on its damage."""
    source = image.source
    if image.syntax in COMPRESSED:
        return decode_apart(frame.fragments, pixels=image.pixels, syntax=image.syntax, source=source)
    return decode_frame(frame.fragments, pixels=image.pixels, syntax=image.syntax, source=source), ()


def _decode(frame: _Frame, image: OpenedImage) -> CTSlice:
    words, damage = _words(frame, image)
    hounsfield, notes = to_hounsfield(words, frame.rule, image.pixels)
    return CTSlice(header=frame.header, hounsfield=hounsfield, quality=(*notes, *damage))
