"""Decodes one frame to stored pixel values with permissively licensed decoders.

GDCM (BSD) decodes JPEG, JPEG Lossless and JPEG-LS, OpenJPEG (BSD) JPEG 2000 and HTJ2K, pylibjpeg-rle (MIT) RLE. Each
is imported when first needed: uncompressed slices need none of them. ``decode_frame`` returns words, ``stored_values``
the stored values in them, with the sign and bits given by the header (PS3.5 section 8), before any rescaling.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.codestream import FrameFormat, bare_jpeg, jpeg2000_format, rle_segments
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.transfer_syntaxes import BIG_ENDIAN, CODINGS, ENCAPSULATED, NATIVE, OPENJPEG, RLE

Words = NDArray[np.integer[Any]]
Stored = NDArray[np.int32] | NDArray[np.int64]

# Errors of the decoders on damaged frames: GDCM's wrapper SystemError, TypeError and RuntimeError (a C++ exception),
# OpenJPEG's RuntimeError and ValueError, RLE's ValueError; UnicodeError is a ValueError.
_DECODER_ERRORS = (RuntimeError, ValueError, TypeError, SystemError, MemoryError, OverflowError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """Format of the stored values: the Image Pixel module (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


def decode_frame(fragments: tuple[memoryview, ...], *, pixels: PixelFormat, syntax: str, source: str) -> Words:
    """Decode one frame to unsigned words with all bits that the file holds, shape (rows, columns).

    Args:
        fragments: the bytes of the frame.
        pixels: the format given by the header.
        syntax: transfer syntax UID, one of SYNTAXES.
        source: the input's name, for errors.

    Raises:
        DicomReadError: ``inconsistent_pixel_data`` if the frame contradicts the header or cannot be decoded.
    """
    if syntax in NATIVE:
        return _native(fragments[0], pixels, syntax)
    frame = b"".join(fragments)
    if syntax == ENCAPSULATED:
        return _native(memoryview(frame)[: pixels.frame_bytes], pixels, syntax)
    decode: Callable[[bytes, PixelFormat, str], Words] = _openjpeg if syntax in OPENJPEG else _gdcm
    if syntax == RLE:
        decode = _rle
    try:
        return decode(frame, pixels, syntax)
    except _DECODER_ERRORS as error:
        reason = f"a compressed frame cannot be decoded ({_cause(error)})"
        raise refusal(source, "inconsistent_pixel_data", reason) from error


def _cause(error: Exception) -> str:
    """Describe a damaged frame: our own message, or only the type of a decoder's exception."""
    return str(error) if isinstance(error, _FrameError) else type(error).__name__


class _FrameError(ValueError):
    """A compressed frame that contradicts its header."""


def _native(frame: memoryview, pixels: PixelFormat, syntax: str) -> Words:
    order = ">" if syntax == BIG_ENDIAN else "<"
    words: Words = np.frombuffer(frame, dtype=f"{order}u{pixels.bits_allocated // 8}")
    shift = pixels.high_bit + 1 - pixels.bits_stored
    return (words >> shift if shift else words).reshape(pixels.rows, pixels.columns)


def stored_values(words: Words, pixels: PixelFormat) -> Stored:
    """Return only the stored bits (the others are undefined, PS3.5 8.1.1), with their sign, as a new array."""
    stored: Stored = words.astype(np.int32) if pixels.bits_stored < 32 else words.astype(np.int64)
    np.bitwise_and(stored, (1 << pixels.bits_stored) - 1, out=stored)
    if pixels.signed:
        sign = 1 << (pixels.bits_stored - 1)
        np.bitwise_xor(stored, sign, out=stored)
        np.subtract(stored, sign, out=stored)
    return stored


def _agree(found: FrameFormat, pixels: PixelFormat) -> None:
    """Compare a frame's own header with the file's, so that no decoder allocates for another size."""
    if (found.rows, found.columns, found.samples) != (pixels.rows, pixels.columns, 1):
        msg = (
            f"it holds {found.rows} x {found.columns} x {found.samples} samples, "
            f"the header says {pixels.rows} x {pixels.columns} x 1"
        )
        raise _FrameError(msg)
    if not 1 < found.precision <= pixels.bits_allocated:
        msg = f"it holds {found.precision} bits per sample, the header allocates {pixels.bits_allocated}"
        raise _FrameError(msg)


def _reshape(buffer: bytes | bytearray, width: int, pixels: PixelFormat) -> Words:
    expected = pixels.rows * pixels.columns * width
    if len(buffer) != expected:
        msg = f"it decodes to {len(buffer)} bytes instead of {expected}"
        raise _FrameError(msg)
    return np.frombuffer(buffer, dtype=f"<u{width}").reshape(pixels.rows, pixels.columns)


def _gdcm(frame: bytes, pixels: PixelFormat, syntax: str) -> Words:
    """Decode JPEG, JPEG Lossless and JPEG-LS. ``stored_values`` adds the sign, which these codings lack."""
    import gdcm

    try:
        found, kind, frame = bare_jpeg(frame)
    except ValueError as error:
        raise _FrameError(str(error)) from error
    _agree(found, pixels)
    if found.precision > 16:
        # No JPEG has more (T.81 table B.2), and GDCM aborts the process over one.
        msg = f"it declares {found.precision} bits per sample"
        raise _FrameError(msg)
    if kind not in CODINGS[syntax]:
        msg = f"its JPEG coding (marker {kind:02X}) is not that of its transfer syntax"
        raise _FrameError(msg)
    width = 1 if found.precision <= 8 else 2
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    sequence = gdcm.SequenceOfFragments.New()
    sequence.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(sequence.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((pixels.columns, pixels.rows, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 * width, found.precision, found.precision - 1, 0))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetDataElement(element)
    # GDCM's wrapper returns bytes as text with surrogates for what is not UTF-8.
    return _reshape(image.GetBuffer().encode("utf-8", "surrogateescape"), width, pixels)


def _openjpeg(frame: bytes, pixels: PixelFormat, syntax: str) -> Words:  # noqa: ARG001 - one decoder for all five
    """Decode JPEG 2000 and HTJ2K; signed codestreams decode to two's complement, like stored bits."""
    from openjpeg.utils import decode_pixel_data

    try:
        found = jpeg2000_format(frame)
    except ValueError as error:
        raise _FrameError(str(error)) from error
    _agree(found, pixels)
    width = 1 if found.precision <= 8 else 2 if found.precision <= 16 else 4
    return _reshape(bytes(decode_pixel_data(frame, version=2)), width, pixels)


def _rle(frame: bytes, pixels: PixelFormat, syntax: str) -> Words:  # noqa: ARG001 - one decoder for one syntax
    from rle.utils import decode_pixel_data

    width = pixels.bits_allocated // 8
    try:
        segments = rle_segments(frame)
    except ValueError as error:
        raise _FrameError(str(error)) from error
    if segments != width:
        msg = f"it holds {segments} RLE segments, the header allocates {width} bytes"
        raise _FrameError(msg)
    allocated = pixels.bits_allocated
    try:
        decoded = decode_pixel_data(
            frame, version=2, rows=pixels.rows, columns=pixels.columns, bits_allocated=allocated
        )
    except BaseException as error:
        # The decoder is written in Rust: a segment that exceeds the frame causes a panic, which unwinds safely and is
        # raised as a BaseException whose class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        msg = "an RLE segment is longer than the frame"
        raise _FrameError(msg) from error
    return _reshape(bytes(decoded), width, pixels)
