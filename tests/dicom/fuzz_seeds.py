"""The files that fuzzing begins with: one small file of every transfer syntax, and Enhanced ones."""

from pathlib import Path

from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from hemoscope.testing.dicom_writer import PixelCoding, save, write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.testing.pixel_coding import ENCAPSULATED

CODINGS = {
    "implicit": PixelCoding(transfer_syntax=uid.ImplicitVRLittleEndian),
    "explicit": PixelCoding(padding=0),
    "big": PixelCoding(transfer_syntax=uid.ExplicitVRBigEndian, signed=True, bits_stored=16),
    "deflated": PixelCoding(transfer_syntax=uid.DeflatedExplicitVRLittleEndian),
    "encapsulated": PixelCoding(transfer_syntax=ENCAPSULATED, padding=3000),
    "rle": PixelCoding(transfer_syntax=uid.RLELossless),
    "jpeg": PixelCoding(transfer_syntax=uid.JPEGBaseline8Bit, bits_stored=8, intercept=-1024, slope=16),
    "extended": PixelCoding(transfer_syntax=uid.JPEGExtended12Bit),
    "lossless": PixelCoding(transfer_syntax=uid.JPEGLosslessSV1),
    "lossless57": PixelCoding(transfer_syntax=uid.JPEGLossless),
    "jpegls": PixelCoding(transfer_syntax=uid.JPEGLSLossless),
    "near": PixelCoding(transfer_syntax=uid.JPEGLSNearLossless),
    "j2k": PixelCoding(transfer_syntax=uid.JPEG2000Lossless),
    "j2klossy": PixelCoding(transfer_syntax=uid.JPEG2000),
    "htj2k": PixelCoding(transfer_syntax=uid.HTJ2KLossless),
}


def write_fuzz_seeds(folder: Path) -> None:
    """Write all into one folder."""
    head = make_phantom(seed=5, shape=(3, 64, 64))
    for name, coding in CODINGS.items():
        path = write_series(head.hounsfield[1:2], folder / name, coding=coding)[0]
        path.rename(folder / f"{name}.dcm")
    for name in ("explicit", "lossless"):
        path = write_series(head, folder / f"enhanced-{name}", coding=CODINGS[name], enhanced=True)[0]
        path.rename(folder / f"enhanced-{name}.dcm")
    dataset = dcmread(folder / "enhanced-lossless.dcm")
    frames = list(generate_frames(dataset.PixelData, number_of_frames=3))
    dataset.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=False)
    save(dataset, folder / "fragments.dcm")
