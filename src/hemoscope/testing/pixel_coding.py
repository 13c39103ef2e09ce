"""Encodes Hounsfield units as DICOM pixel data: rescale, bits, padding and transfer syntax.

Encoders are those of the base install: pydicom (RLE), OpenJPEG (JPEG 2000) and GDCM (8-bit JPEG, JPEG Lossless,
JPEG-LS). High-Throughput JPEG 2000 and 12-bit JPEG, which GDCM 3.2 writes with a wrong precision, need one of the
``dev`` extra (imagecodecs).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from hemoscope.errors import MissingExtraError

# Uncompressed frames in fragments (PS3.5 A.4.11); pydicom 3 does not name it.
ENCAPSULATED = UID("1.2.840.10008.1.2.1.98")
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless)
# Lossy syntaxes with the term of Lossy Image Compression Method (0028,2114) that names them.
LOSSY = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
NEAR_LOSSLESS_ERROR = 2  # largest change of a stored value by JPEG-LS near-lossless here
# Maximum bits of syntaxes with fewer than 16; both support only unsigned values.
FEWER_BITS = {JPEGBaseline8Bit: 8, JPEGExtended12Bit: 12}
NEED_IMAGECODECS = (HTJ2KLossless, HTJ2K, JPEGExtended12Bit)
Hounsfield = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
Stored = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelCoding:
    """Encoding of HU as stored values. The default is that of most scanners.

    Attributes:
        transfer_syntax: a UID of ``NATIVE``, ``LOSSLESS`` or ``LOSSY``, or ``ENCAPSULATED``.
        signed: Pixel Representation (0028,0103).
        bits_stored: Bits Stored (0028,0101); up to 8 are allocated 8 bits, more are allocated 16.
        intercept: HU of stored value 0, Rescale Intercept (0028,1052).
        slope: HU for each step of the stored value, Rescale Slope (0028,1053).
        padding: stored value outside the scanner's circular field of view, Pixel Padding Value (0028,0120), or None.
        padding_limit: Pixel Padding Range Limit (0028,0121), or None.
    """

    transfer_syntax: UID = ExplicitVRLittleEndian
    signed: bool = False
    bits_stored: int = 12
    intercept: float = -1024.0
    slope: float = 1.0
    padding: int | None = None
    padding_limit: int | None = None

    def __post_init__(self) -> None:
        """Reject a syntax without an encoder and more bits than it supports."""
        if self.transfer_syntax not in (*NATIVE, ENCAPSULATED, *LOSSLESS, *LOSSY):
            msg = f"no encoder for transfer syntax {self.transfer_syntax}"
            raise ValueError(msg)
        most = FEWER_BITS.get(self.transfer_syntax, 16)
        if not 1 < self.bits_stored <= most:
            msg = f"bits stored must lie between 2 and {most}, got {self.bits_stored}"
            raise ValueError(msg)
        if self.signed and most < 16:
            msg = f"transfer syntax {self.transfer_syntax} holds unsigned values only"
            raise ValueError(msg)
        if self.slope == 0:
            msg = "a rescale slope of 0 maps every stored value to one HU"
            raise ValueError(msg)

    @property
    def bits_allocated(self) -> int:
        """Bits Allocated (0028,0100)."""
        return 8 if self.bits_stored <= 8 else 16

    @property
    def stored_range(self) -> tuple[int, int]:
        """Lowest and highest stored value that the bits can hold."""
        if self.signed:
            return -(1 << self.bits_stored - 1), (1 << self.bits_stored - 1) - 1
        return 0, (1 << self.bits_stored) - 1

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """NumPy type of one stored value, in the byte order of this machine."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


def stored_values(hounsfield: Hounsfield, coding: PixelCoding) -> Stored:
    """Return stored values of HU of any shape, with padding. Raises ValueError if a value exceeds the bits."""
    exact = (np.asarray(hounsfield, dtype=np.float64) - coding.intercept) / coding.slope
    values = np.rint(exact)
    if coding.padding is not None:
        values[..., _outside_field(values.shape[-2:])] = coding.padding
    low, high = coding.stored_range
    if values.min() < low or values.max() > high:
        msg = f"stored {values.min():.0f} to {values.max():.0f} do not fit into {low} to {high}: change the intercept"
        raise ValueError(msg)
    return values.astype(coding.dtype)


def _outside_field(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mask of the corners outside the largest ellipse in a slice, which scanners fill with padding."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    outside: NDArray[np.bool_] = y[:, None] ** 2 + x[None, :] ** 2 > 1
    return outside


def pixel_data(frames: Sequence[Stored], coding: PixelCoding) -> bytes:
    """Return Pixel Data (7FE0,0010) of frames of shape (rows, columns), encapsulated if the syntax asks for it."""
    if coding.transfer_syntax in NATIVE:
        dtype = coding.dtype.newbyteorder(">" if coding.transfer_syntax == ExplicitVRBigEndian else "<")
        data = b"".join(frame.astype(dtype).tobytes() for frame in frames)
        return data + b"\0" * (len(data) % 2)
    return encapsulate([_compress(np.ascontiguousarray(frame), coding) for frame in frames])


def _compress(frame: Stored, coding: PixelCoding) -> bytes:
    if coding.transfer_syntax == ENCAPSULATED:
        return frame.astype(coding.dtype.newbyteorder("<")).tobytes()
    if coding.transfer_syntax == RLELossless:
        return _rle(frame, coding)
    if coding.transfer_syntax in (JPEG2000Lossless, JPEG2000):
        return _jpeg2000(frame, coding)
    if coding.transfer_syntax in NEED_IMAGECODECS:
        return _imagecodecs(frame, coding)
    return _gdcm(frame, coding)


def _rle(frame: Stored, coding: PixelCoding) -> bytes:
    from pydicom.pixels.encoders.base import get_encoder

    return get_encoder(RLELossless).encode(
        frame.astype(coding.dtype.newbyteorder("<")).tobytes(),
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=coding.bits_allocated,
        bits_stored=coding.bits_stored,
        pixel_representation=int(coding.signed),
        photometric_interpretation="MONOCHROME2",
        encoding_plugin="pydicom",
    )


def _jpeg2000(frame: Stored, coding: PixelCoding) -> bytes:
    """Encode JPEG 2000; lossy at a fifth of the size."""
    from openjpeg.utils import encode_array

    ratios = [5.0] if coding.transfer_syntax == JPEG2000 else None
    stream = encode_array(
        frame, bits_stored=coding.bits_stored, photometric_interpretation=2, use_mct=False, compression_ratios=ratios
    )
    return bytes(stream)


def _imagecodecs(frame: Stored, coding: PixelCoding) -> bytes:
    """Encode High-Throughput JPEG 2000 with the bits allocated, or JPEG Extended with 12 (or 8) bits."""
    try:
        import imagecodecs
    except ModuleNotFoundError as error:
        raise MissingExtraError(package="imagecodecs", extra="dev") from error
    if coding.transfer_syntax == JPEGExtended12Bit:
        precision = 8 if coding.bits_allocated == 8 else 12
        return bytes(imagecodecs.jpeg8_encode(frame, level=95, bitspersample=precision))
    return bytes(imagecodecs.htj2k_encode(frame, reversible=coding.transfer_syntax == HTJ2KLossless))


def _gdcm(frame: Stored, coding: PixelCoding) -> bytes:
    """Encode one frame with GDCM's JPEG and JPEG-LS encoders."""
    import gdcm

    change = gdcm.ImageChangeTransferSyntax()
    writer = gdcm.ImageWriter()  # owns the image: GDCM aborts when it frees one that Python created
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frame.shape[1], frame.shape[0], 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, coding.bits_allocated, coding.bits_stored, coding.bits_stored - 1, int(coding.signed))
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(frame.tobytes())
    image.SetDataElement(element)
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(coding.transfer_syntax))))
    change.SetInput(image)
    if coding.transfer_syntax == JPEGLSNearLossless:
        codec = gdcm.JPEGLSCodec()
        codec.SetLossless(False)
        codec.SetLossyError(NEAR_LOSSLESS_ERROR)
        change.SetUserCodec(codec)
    if not change.Change():
        msg = f"GDCM cannot write {coding.bits_stored}-bit {frame.shape} pixels as {coding.transfer_syntax}"
        raise ValueError(msg)
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    parts = (fragments.GetFragment(i).GetByteValue().GetBuffer() for i in range(fragments.GetNumberOfFragments()))
    # GDCM's wrapper returns bytes as text.
    return b"".join(part.encode("utf-8", "surrogateescape") for part in parts)
