"""Pixels in every transfer syntax become the HU that pydicom would give."""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from hemoscope.dicom.read import read_slice
from hemoscope.testing.dicom_writer import PixelCoding, write_series
from hemoscope.testing.phantom import Phantom
from hemoscope.testing.pixel_coding import FEWER_BITS, LOSSLESS, LOSSY, NATIVE, NEED_IMAGECODECS

# What pydicom decodes by itself and what holds the bits below; the others have tests of their own.
SYNTAXES = [
    syntax for syntax in (*NATIVE, *LOSSLESS, *LOSSY) if syntax not in NEED_IMAGECODECS and syntax not in FEWER_BITS
]
CODINGS = [
    pytest.param(
        PixelCoding(transfer_syntax=syntax, signed=signed, bits_stored=bits),
        id=f"{syntax.keyword}-{bits}{'s' * signed}",
    )
    for syntax in SYNTAXES
    for signed, bits in ((False, 12), (True, 13), (True, 16), (False, 16))
]


class TestSyntaxes:
    @pytest.mark.parametrize("coding", CODINGS)
    def test_hounsfield_units_equal_pydicoms(
        self, head: Phantom, tmp_path: Path, coding: PixelCoding, pydicom_hounsfield
    ) -> None:
        path = write_series(head.hounsfield[:1], tmp_path, coding=coding)[0]
        read = read_slice(path, source=path.name)
        assert (read.hounsfield == pydicom_hounsfield(path)).all()
        assert read.hounsfield.dtype == np.float32
        assert read.quality == ()

    def test_8_bit_jpeg_equals_pydicoms(self, head: Phantom, tmp_path: Path, pydicom_hounsfield) -> None:
        for number, syntax in enumerate((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)):
            coding = PixelCoding(transfer_syntax=syntax, bits_stored=8, slope=16)
            path = write_series(head.hounsfield[:1], tmp_path / str(number), coding=coding)[0]
            assert np.abs(read_slice(path).hounsfield - pydicom_hounsfield(path)).max() <= 16

    @pytest.mark.parametrize("signed", [False, True])
    def test_htj2k_gives_what_was_written(self, head: Phantom, tmp_path: Path, signed: bool) -> None:
        coding = PixelCoding(transfer_syntax=uid.HTJ2KLossless, signed=signed, bits_stored=16)
        path = write_series(head.hounsfield[:1], tmp_path, coding=coding)[0]
        assert (read_slice(path).hounsfield == head.hounsfield[0]).all()

    @pytest.mark.reference_tool("dcmcjpeg", "dcmdjpeg")
    @pytest.mark.parametrize("encoder", ["+ee", "+el", "+e1"])
    def test_dcmtks_jpegs_are_decoded_as_by_dcmdjpeg(
        self, head: Phantom, tmp_path: Path, encoder: str, pydicom_hounsfield
    ) -> None:
        plain = write_series(head.hounsfield[4:5], tmp_path)[0]
        coded, decoded = tmp_path / "coded.dcm", tmp_path / "decoded.dcm"
        subprocess.run(["dcmcjpeg", encoder, plain, coded], check=True, capture_output=True)
        subprocess.run(["dcmdjpeg", coded, decoded], check=True, capture_output=True)
        assert np.abs(read_slice(coded).hounsfield - pydicom_hounsfield(decoded)).max() <= 1

    @pytest.mark.reference_tool("dcmcjpls")
    @pytest.mark.parametrize("encoder", [["dcmcjpls"], ["dcmcrle"], ["dcmconv", "+td"], ["dcmconv", "+tb"]])
    def test_dcmtks_other_encodings_are_read_exactly(self, head: Phantom, tmp_path: Path, encoder: list[str]) -> None:
        plain = write_series(head.hounsfield[4:5], tmp_path)[0]
        coded = tmp_path / "coded.dcm"
        subprocess.run([*encoder, plain, coded], check=True, capture_output=True)
        assert (read_slice(coded).hounsfield == head.hounsfield[4]).all()

    @pytest.mark.parametrize(
        "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
    )
    def test_a_bare_data_set_without_preamble_and_meta_is_read(
        self, make_slice: Callable[..., Dataset], slice_hu: np.ndarray, syntax: uid.UID
    ) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
        del dataset.file_meta
        stream = io.BytesIO()
        implicit, little = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
        dataset.save_as(stream, implicit_vr=implicit, little_endian=little)
        assert (read_slice(stream.getvalue()).hounsfield == slice_hu).all()

    def test_a_file_without_preamble_but_with_meta_is_read(self, make_slice, as_bytes, slice_hu) -> None:
        assert (read_slice(as_bytes(make_slice())[132:]).hounsfield == slice_hu).all()

    def test_a_stream_that_returns_little_at_a_time_is_read(self, make_slice, as_bytes, slice_hu) -> None:
        class Slow(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(min(size or 0, 1000))

        assert (read_slice(Slow(as_bytes(make_slice()))).hounsfield == slice_hu).all()

    def test_bits_above_those_stored_are_ignored(self, make_slice, as_bytes, slice_hu) -> None:
        dataset = make_slice()
        dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") | 0xA000).tobytes()
        assert (read_slice(as_bytes(dataset)).hounsfield == slice_hu).all()

    def test_a_shifted_high_bit_is_honoured(self, make_slice, as_bytes, slice_hu) -> None:
        dataset = make_slice(HighBit=15)
        dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") << 4).tobytes()
        assert (read_slice(as_bytes(dataset)).hounsfield == slice_hu).all()

    def test_32_bit_pixels_are_read(self, make_slice, as_bytes, slice_hu) -> None:
        dataset = make_slice(BitsAllocated=32, BitsStored=32, HighBit=31)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype("<u4").tobytes()
        assert (read_slice(as_bytes(dataset)).hounsfield == slice_hu).all()

    def test_the_fragments_of_one_frame_are_put_together(self, make_slice, as_bytes, slice_hu) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless))
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame], fragments_per_frame=4)
        assert (read_slice(as_bytes(dataset)).hounsfield == slice_hu).all()
