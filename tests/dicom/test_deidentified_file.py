"""A de-identified file reads like the original."""

import io
import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless

from hemoscope.dicom.deidentify import deidentified_file
from hemoscope.dicom.read import read_slice
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import PixelCoding, write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.testing.pixel_coding import ENCAPSULATED

KEY = bytes(range(16))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    phantom = make_phantom(seed=1, shape=(1, 64, 64), bleeds=frozenset())
    return write_series(phantom, tmp_path_factory.mktemp("one"), seed=1)[0].read_bytes()


def test_pixels_are_as_they_were_and_uids_are_not(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(deidentified_file(content, key=KEY, source="a"))
    before, after = read_slice(tmp_path / "a"), read_slice(tmp_path / "b")
    assert (before.hounsfield == after.hounsfield).all()
    assert before.header.position_mm == after.header.position_mm
    assert before.header.sop_instance_uid != after.header.sop_instance_uid


def test_a_file_without_preamble_is_still_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(deidentified_file(content[132:], key=KEY, source="a"))
    assert read_slice(tmp_path / "b").hounsfield.shape == (64, 64)


def test_an_element_that_cannot_be_decoded_is_dropped_and_the_rest_is_read(content: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.add_new(0x00189306, "FD", 1.5)  # Single Collimation Width
    dataset.add_new(0x00181041, "DS", "77.77")  # Contrast/Bolus Volume
    dataset.StudyDate = "20250607"
    stream = io.BytesIO()
    dataset.save_as(stream)
    short = stream.getvalue().replace(b"FD\x08\0" + struct.pack("<d", 1.5), b"FD\x04\0LEAK")
    odd = short.replace(b"77.77 ", b"LEAK  ").replace(b"20250607", b"LEAKLEAK")
    assert odd.count(b"LEAK") == 4
    clean = deidentified_file(odd, key=KEY, source="a")
    assert b"LEAK" not in clean
    assert (read_slice(clean).hounsfield == read_slice(content).hounsfield).all()


def test_an_empty_contrast_agent_stays_empty_and_none_stays_none(content: bytes) -> None:
    for given, expected in (
        ("", None),
        ("NONE", "NONE"),
        ("W/O CONTRAST", "W/O CONTRAST"),
        ("Iomeron Dr. Leak", "CONTRAST AGENT"),
    ):
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.ContrastBolusAgent = given
        stream = io.BytesIO()
        dataset.save_as(stream)
        clean = pydicom.dcmread(io.BytesIO(deidentified_file(stream.getvalue(), key=KEY, source="a")))
        assert (clean.ContrastBolusAgent or None) == expected


def test_a_description_keeps_what_says_how_the_image_was_made(content: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.SeriesDescription, dataset.ProtocolName = "Schmidt BONE thin 1.0mm", "Head_Schmidt"
    stream = io.BytesIO()
    dataset.save_as(stream)
    clean = pydicom.dcmread(io.BytesIO(deidentified_file(stream.getvalue(), key=KEY, source="a")))
    assert (clean.SeriesDescription, clean.ProtocolName) == ("BONE thin 1.0mm", "Head")


def test_bytes_after_the_pixels_are_removed(content: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.PixelData += b"LEAK" * 20
    stream = io.BytesIO()
    dataset.save_as(stream)
    clean = deidentified_file(stream.getvalue(), key=KEY, source="a")
    assert b"LEAK" not in clean
    assert (read_slice(clean).hounsfield == read_slice(content).hounsfield).all()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEGLSLossless])
def test_items_after_the_pixels_count_too(tmp_path: Path, content: bytes, syntax: UID) -> None:
    """Each item of 8 bytes becomes an object of 2,500."""
    image = read_slice(content).hounsfield
    (path,) = write_series(image[None], tmp_path, coding=PixelCoding(transfer_syntax=syntax))
    dataset = pydicom.dcmread(path)
    dataset.DigitalSignaturesSequence = [pydicom.Dataset() for _ in range(2000)]
    dataset["DigitalSignaturesSequence"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(DicomReadError, match="more data elements than the limit elements = 1000"):
        deidentified_file(path.read_bytes(), key=KEY, source="a", limits=ReadLimits(elements=1000))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, ENCAPSULATED])
def test_pixels_without_a_delimiter_are_kept(tmp_path: Path, content: bytes, syntax: UID) -> None:
    image = read_slice(content).hounsfield
    coded = write_series(image[None], tmp_path, coding=PixelCoding(transfer_syntax=syntax))[0].read_bytes()
    start = coded.rindex(b"\xe0\x7f\x10\x00OB") + 12
    explicit = coded[: start - 4] + struct.pack("<I", len(coded) - start) + coded[start:]
    assert (read_slice(deidentified_file(explicit, key=KEY, source="a")).hounsfield == image).all()
    for end in (b"", bytes(8)):
        clean = deidentified_file(coded[:-8] + end, key=KEY, source="a")
        assert (read_slice(clean).hounsfield == image).all()
