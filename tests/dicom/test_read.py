"""One file in any syntax becomes the HU that pydicom would give; whatever is no CT slice is refused by code."""

import io
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels import apply_modality_lut

from hemoscope.data import dicom_neighbours
from hemoscope.data.dicom_writer import PixelCoding, enhanced_ct_dataset, save, write_series
from hemoscope.data.phantom import Phantom
from hemoscope.dicom.read import ReadLimits, read_headers, read_slice, read_slices
from hemoscope.errors import DicomReadError

CODINGS = [
    pytest.param(
        PixelCoding(transfer_syntax=uid.UID(syntax), signed=signed, bits_stored=bits),
        id=f"{uid.UID(syntax).keyword}-{bits}{'s' * signed}",
    )
    for syntax in (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
    )
    for signed, bits in ((False, 12), (True, 13), (True, 16), (False, 16))
]


def pydicom_hounsfield(source: Path | bytes) -> np.ndarray:
    """The judge: pydicom's own pixels and Modality LUT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(source) if isinstance(source, bytes) else source)
        return apply_modality_lut(dataset.pixel_array, dataset)


def refused(data: bytes | Path, code: str, match: str, **options: object) -> DicomReadError:
    with pytest.raises(DicomReadError, match=match) as caught:
        read_slices(data, source="x.dcm", **options)
    assert caught.value.code == code
    assert str(caught.value).startswith("x.dcm: ")
    return caught.value


class TestSyntaxes:
    @pytest.mark.parametrize("coding", CODINGS)
    def test_hounsfield_units_equal_pydicoms(self, head: Phantom, tmp_path: Path, coding: PixelCoding) -> None:
        path = write_series(head.hounsfield[:1], tmp_path, coding=coding)[0]
        read = read_slice(path, source=path.name)
        assert (read.hounsfield == pydicom_hounsfield(path)).all()
        assert read.hounsfield.dtype == np.float32
        assert read.quality == ()

    def test_8_bit_jpeg_equals_pydicoms(self, head: Phantom, tmp_path: Path) -> None:
        for number, syntax in enumerate((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)):
            coding = PixelCoding(transfer_syntax=syntax, bits_stored=8, slope=16)
            path = write_series(head.hounsfield[:1], tmp_path / str(number), coding=coding)[0]
            assert np.abs(read_slice(path).hounsfield - pydicom_hounsfield(path)).max() <= 16

    @pytest.mark.parametrize("signed", [False, True])
    def test_htj2k_gives_what_was_written(self, head: Phantom, tmp_path: Path, signed: bool) -> None:
        coding = PixelCoding(transfer_syntax=uid.HTJ2KLossless, signed=signed, bits_stored=16)
        path = write_series(head.hounsfield[:1], tmp_path, coding=coding)[0]
        assert (read_slice(path).hounsfield == head.hounsfield[0]).all()

    @pytest.mark.judge("dcmcjpeg", "dcmdjpeg")
    @pytest.mark.parametrize("encoder", ["+ee", "+el", "+e1"])
    def test_dcmtks_jpegs_are_decoded_as_by_dcmdjpeg(self, head: Phantom, tmp_path: Path, encoder: str) -> None:
        plain = write_series(head.hounsfield[4:5], tmp_path)[0]
        coded, decoded = tmp_path / "coded.dcm", tmp_path / "decoded.dcm"
        subprocess.run(["dcmcjpeg", encoder, plain, coded], check=True, capture_output=True)
        subprocess.run(["dcmdjpeg", coded, decoded], check=True, capture_output=True)
        assert np.abs(read_slice(coded).hounsfield - pydicom_hounsfield(decoded)).max() <= 1

    @pytest.mark.judge("dcmcjpls")
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


class TestHeaders:
    def test_everything_known_is_in_the_header(self, make_slice, as_bytes) -> None:
        dataset = make_slice(ContrastBolusAgent="Iomeron", ImagePositionPatient=[1, 2, 3], PixelSpacing=[0.4, 0.6])
        (header,) = read_headers(as_bytes(dataset), source="a/b.dcm")
        assert (header.source, header.frame, header.rows, header.columns) == ("a/b.dcm", 0, 64, 64)
        assert header.sop_instance_uid == dataset.SOPInstanceUID
        assert header.position_mm == (1, 2, 3)
        assert header.pixel_spacing_mm == (0.4, 0.6)
        assert header.contrast_agent == "Iomeron"
        assert (header.kvp, header.convolution_kernel, header.body_part) == (120, "H30s", "HEAD")
        assert not header.geometry_assumed
        assert header.quality == ()

    def test_assumed_geometry_is_told_by_the_comment(self, make_slice, as_bytes) -> None:
        (header,) = read_headers(as_bytes(make_slice(ImageComments="Geometry assumed: none was published")), source="x")
        assert header.geometry_assumed

    def test_nonstandard_uids_are_used_and_noted(self, make_slice, as_bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = as_bytes(make_slice(SOPInstanceUID="ID_0a1b"))
        (header,) = read_headers(data, source="x")
        assert header.sop_instance_uid == "ID_0a1b"
        assert [note.code for note in header.quality] == ["nonstandard_uid"]

    def test_impossible_geometry_is_not_used_and_noted(self, make_slice, as_bytes) -> None:
        dataset = make_slice(ImageOrientationPatient=[1, 0, 0, 1, 0, 0], PixelSpacing=[0, 0])
        (header,) = read_headers(as_bytes(dataset), source="x")
        assert (header.orientation, header.pixel_spacing_mm) == (None, None)
        assert [note.code for note in header.quality] == ["invalid_geometry"]

    def test_multi_valued_windows_do_not_matter(self, make_slice, as_bytes, slice_hu) -> None:
        dataset = make_slice(WindowCenter=[40, 600], WindowWidth=[80, 2800])
        assert (read_slice(as_bytes(dataset)).hounsfield == slice_hu).all()

    def test_a_description_is_read_in_its_character_set(self, make_slice, as_bytes) -> None:
        dataset = make_slice(SpecificCharacterSet="ISO_IR 192", SeriesDescription="Schädel nativ")
        assert read_headers(as_bytes(dataset), source="x")[0].series_description == "Schädel nativ"

    def test_pixels_are_not_decoded_for_headers(self, make_slice, as_bytes) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless))
        dataset.PixelData = encapsulate([b"no codestream at all"])
        assert len(read_headers(as_bytes(dataset), source="x")) == 1

    def test_the_input_is_not_changed(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        copy = bytes(bytearray(data))
        read_slice(data)
        assert data == copy


class TestEnhanced:
    @pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGLosslessSV1, uid.ImplicitVRLittleEndian])
    def test_each_frame_has_its_own_place_and_rescale(self, head: Phantom, tmp_path: Path, syntax: uid.UID) -> None:
        intercepts = [-1024 - 2 * index for index in range(9)]
        coding = PixelCoding(transfer_syntax=syntax, bits_stored=16)
        dataset = enhanced_ct_dataset(head.hounsfield, coding=coding, frame_intercepts=intercepts)
        slices = read_slices(save(dataset, tmp_path / "e.dcm"), source="e.dcm")
        assert (np.stack([one.hounsfield for one in slices]) == head.hounsfield).all()
        assert [one.header.frame for one in slices] == list(range(9))
        heights = [one.header.position_mm[2] for one in slices]
        assert np.allclose(np.diff(heights), 5.0)
        assert all(one.header.pixel_spacing_mm and one.header.orientation for one in slices)

    def test_wanted_frames_alone_are_decoded(self, head: Phantom, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(head.hounsfield), tmp_path / "e.dcm")
        assert [one.header.frame for one in read_slices(path, source="e", frames={2, 5})] == [2, 5]

    def test_one_slice_is_not_asked_of_several_frames(self, head: Phantom, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(head.hounsfield), tmp_path / "e.dcm")
        with pytest.raises(DicomReadError, match="9 frames where one slice is wanted"):
            read_slice(path)

    def test_missing_functional_groups_are_refused(self, head: Phantom, as_bytes) -> None:
        dataset = enhanced_ct_dataset(head.hounsfield)
        del dataset.PerFrameFunctionalGroupsSequence[-1]
        refused(as_bytes(dataset), "malformed", "9 frames are declared, 8 have functional groups")

    def test_a_localizer_frame_type_is_refused(self, head: Phantom, as_bytes) -> None:
        dataset = enhanced_ct_dataset(head.hounsfield)
        groups = (dataset.SharedFunctionalGroupsSequence[0], *dataset.PerFrameFunctionalGroupsSequence)
        for group in groups:
            if "CTImageFrameTypeSequence" in group:
                group.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
        refused(as_bytes(dataset), "localizer", "scout")

    @pytest.mark.parametrize("extended", [False, True])
    def test_an_offset_table_tells_fragments_of_frames_apart(self, head: Phantom, as_bytes, extended: bool) -> None:
        dataset = enhanced_ct_dataset(head.hounsfield, coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless))
        frames = list(generate_frames(dataset.PixelData, number_of_frames=9))
        if extended:
            dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
                frames
            )
        else:
            dataset.PixelData = encapsulate(frames, fragments_per_frame=2)
        slices = read_slices(as_bytes(dataset), source="x")
        assert (np.stack([one.hounsfield for one in slices]) == head.hounsfield).all()

    def test_without_an_offset_table_uneven_fragments_are_refused(self, head: Phantom, as_bytes) -> None:
        dataset = enhanced_ct_dataset(head.hounsfield, coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless))
        frames = list(generate_frames(dataset.PixelData, number_of_frames=9))
        dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=False)
        refused(as_bytes(dataset), "inconsistent_pixel_data", "no offset table")


class TestRefusals:
    @pytest.mark.parametrize(
        ("write", "code", "match"),
        [
            (dicom_neighbours.write_localizer, "localizer", "scout"),
            (dicom_neighbours.write_monochrome1, "monochrome1", "MONOCHROME1"),
            (dicom_neighbours.write_without_rescale, "no_rescale", "Rescale Slope is absent"),
            (dicom_neighbours.write_secondary_capture, "secondary_capture", "secondary capture"),
            (dicom_neighbours.write_dose_report, "dose_report", "dose report"),
        ],
    )
    def test_neighbours_in_a_study_are_refused_by_name(self, tmp_path: Path, write, code: str, match: str) -> None:
        refused(write(tmp_path / "x.dcm"), code, match)

    @pytest.mark.parametrize(
        "data", [b"", b"hello, I am a text file", b"\x08\x00\x05\x00\xff\xff\xff\xff", b"PK\x03\x04" * 99]
    )
    def test_other_files_are_not_dicom(self, data: bytes) -> None:
        refused(data, "not_dicom", "no DICOM prefix")

    @pytest.mark.parametrize(
        ("changes", "code", "match"),
        [
            ({"SOPClassUID": uid.MRImageStorage}, "not_ct", "MR Image Storage"),
            ({"SOPClassUID": "1.2.3"}, "not_ct", "SOP class is unknown"),
            ({"Modality": "MR"}, "not_ct", "modality .* is MR"),
            ({"Modality": "JOHN SMITH"}, "not_ct", "is absent or unknown"),
            ({"Modality": None, "SOPClassUID": None}, "not_ct", "modality"),
            ({"PixelData": None}, "no_pixels", "no pixel data"),
            ({"SeriesDescription": "Dose Report"}, "dose_report", "dose"),
            ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary_capture", "capture"),
            ({"PhotometricInterpretation": "RGB"}, "colour", "colour"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour", "colour"),
            ({"SamplesPerPixel": 3}, "colour", "3 samples"),
            ({"PhotometricInterpretation": None}, "malformed", "photometric interpretation"),
            ({"Rows": None}, "malformed", "rows, columns"),
            ({"Rows": 65}, "inconsistent_pixel_data", "describes 8320 bytes of pixel data, the element has 8192"),
            ({"Rows": 63}, "inconsistent_pixel_data", "describes 8064"),
            ({"BitsAllocated": 12}, "inconsistent_pixel_data", "do not fit together"),
            ({"BitsStored": 17}, "inconsistent_pixel_data", "17 stored"),
            ({"RescaleIntercept": None}, "no_rescale", "Rescale Intercept"),
            ({"RescaleSlope": 0}, "no_rescale", "give no HU"),
            ({"RescaleType": "MGML"}, "no_rescale", "is not HU"),
            ({"NumberOfFrames": 0}, "malformed", "number of frames"),
            ({"NumberOfFrames": 2}, "inconsistent_pixel_data", "pixel data"),
            ({"StudyInstanceUID": None}, "malformed", "Study Instance UID"),
        ],
    )
    def test_a_header_that_says_otherwise_is_refused(self, make_slice, as_bytes, changes, code, match) -> None:
        refused(as_bytes(make_slice(**changes)), code, match)

    def test_a_truncated_copy_is_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        refused(data[:-100], "truncated_pixel_data", "should have 8192 bytes, 8092 are there")

    def test_a_truncated_compressed_copy_is_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)))
        refused(data[:-100], "truncated_pixel_data", "declares .* bytes, .* are left")
        refused(data[:-4], "truncated_pixel_data", "ends inside")

    def test_a_file_cut_in_its_header_is_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        refused(data[: data.index(b"\x08\x00\x05\x00CS")], "malformed", "no data elements")
        refused(data[: data.index(b"\x28\x00\x03\x01US")], "no_pixels", "no pixel data")
        for end in range(132, len(data) - 8192, 7):
            with pytest.raises(DicomReadError):
                read_slices(data[:end], source="x.dcm")

    def test_a_length_beyond_the_end_is_refused_by_its_element(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        place = data.index(b"\x08\x00\x60\x00CS") + 6
        refused(data[:place] + b"\xf0\xff" + data[place + 2 :], "malformed", r"\(0008,0060\) declares 65520 bytes")

    def test_a_damaged_frame_is_refused(self, make_slice, as_bytes) -> None:
        for syntax in (uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.RLELossless):
            dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
            dataset.PixelData = encapsulate([b"\x01\x00\x00\x00" * 20])
            refused(as_bytes(dataset), "inconsistent_pixel_data", "cannot be decoded")

    @pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.JPEGLSLossless])
    def test_a_frame_of_another_size_is_refused_before_it_is_decoded(self, make_slice, as_bytes, syntax) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
        dataset.Rows = 32
        refused(as_bytes(dataset), "inconsistent_pixel_data", "cannot be decoded .*it holds 64 x 64 x 1.*32 x 64 x 1")

    def test_a_jpeg_that_claims_more_than_16_bits_is_refused(self, make_slice, as_bytes) -> None:
        coding = PixelCoding(transfer_syntax=uid.JPEGLSLossless)
        data = as_bytes(make_slice(coding=coding, BitsAllocated=32))
        place = data.rindex(b"\xff\xf7\x00\x0b") + 4
        refused(data[:place] + b"\x18" + data[place + 1 :], "inconsistent_pixel_data", "24 bits")

    def test_a_jpeg_of_another_coding_than_its_syntax_is_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)))
        data = data.replace(b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.80")
        refused(data, "inconsistent_pixel_data", "marker C3")

    @pytest.mark.parametrize(
        ("frame", "match"),
        [
            (b"\xff\xd8\xff\xc3\x00\x0b", "no JPEG scan"),
            (b"\xff\xd8\xff\xff\xc3\x00\x0b", "no JPEG scan"),
            (b"\xff\xd8\x00\x00\x00\x00", "damaged JPEG segments"),
            (b"\xff\xd8\xff\xda\x00\x00", "0 JPEG frame headers"),
            (b"\xff\xd8\xff\xc3\x00\x04\x00\x00", "no JPEG scan|0 JPEG frame"),
        ],
    )
    def test_jpegs_without_a_whole_header_are_refused(self, make_slice, as_bytes, frame: bytes, match: str) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1))
        dataset.PixelData = encapsulate([frame])
        refused(as_bytes(dataset), "inconsistent_pixel_data", match)

    def test_a_jpeg_with_a_damaged_application_segment_is_read(self, make_slice, as_bytes, slice_hu) -> None:
        """GDCM ends the process over a JFIF version of 0.0, which says nothing about the pixels."""
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1))
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        jfif = b"\xff\xe0\x00\x10JFIF\0\0\0\0\0\0\0\0\0\0"
        dataset.PixelData = encapsulate([frame[:2] + jfif + frame[2:]])
        assert (read_slice(as_bytes(dataset)).hounsfield == slice_hu).all()

    @pytest.mark.parametrize(("offset", "value", "match"), [(16, 0, "absurd"), (24, 1, "tiles")])
    def test_hostile_jpeg_2000_sizes_are_refused(
        self, make_slice, as_bytes, offset: int, value: int, match: str
    ) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless))
        frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
        if match == "tiles":
            frame[24:32] = (1).to_bytes(4, "big") * 2
            frame[8:16] = (200).to_bytes(4, "big") * 2
        else:
            frame[24:28] = bytes(4)
        dataset.PixelData = encapsulate([bytes(frame)])
        refused(as_bytes(dataset), "inconsistent_pixel_data", match)

    def test_more_bits_than_allocated_are_refused(self, make_slice, as_bytes) -> None:
        dataset = make_slice(
            coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1), BitsAllocated=8, BitsStored=8, HighBit=7
        )
        refused(as_bytes(dataset), "inconsistent_pixel_data", "bits a sample, the header allocates 8")

    def test_rle_of_other_bytes_is_refused(self, make_slice, as_bytes) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.RLELossless), BitsAllocated=32)
        refused(as_bytes(dataset), "inconsistent_pixel_data", "2 RLE segments, the header allocates 4 bytes")

    def test_an_rle_segment_beyond_the_frame_is_refused(self, make_slice, as_bytes) -> None:
        frame = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (66).to_bytes(4, "little")
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.RLELossless))
        dataset.PixelData = encapsulate([frame.ljust(64, b"\0") + b"\x7f\x01\x7f\x01"])
        refused(as_bytes(dataset), "inconsistent_pixel_data", "cannot be decoded")

    def test_compression_where_none_is_declared_is_refused_and_the_other_way_round(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)))
        data = data.replace(b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.1\0\0\0")
        refused(data, "inconsistent_pixel_data", "an uncompressed transfer syntax with encapsulated")
        data = as_bytes(make_slice()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
        refused(data, "inconsistent_pixel_data", "a compressed transfer syntax with uncompressed")

    def test_fragments_that_are_no_items_are_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)))
        start = data.rindex(b"\xe0\x7f\x10\x00OB") + 12
        refused(data[:start] + b"\1\2\3\4" + data[start + 4 :], "inconsistent_pixel_data", "are not DICOM items")
        delimiter = b"\xfe\xff\xdd\xe0\0\0\0\0"
        refused(data[:start] + delimiter, "truncated_pixel_data", "no basic offset table")
        refused(data[:start] + b"\xfe\xff\x00\xe0\0\0\0\0" + delimiter, "truncated_pixel_data", "0 fragments are there")

    def test_an_unknown_syntax_is_refused_by_name(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
        refused(data, "unsupported_syntax", r"1\.2\.840\.10008\.9\.9\.9")

    def test_8_bit_big_endian_is_refused(self, make_slice, as_bytes) -> None:
        coding = PixelCoding(transfer_syntax=uid.ExplicitVRBigEndian, bits_stored=8, slope=16)
        refused(as_bytes(make_slice(coding=coding)), "unsupported_syntax", "8-bit")

    def test_no_patient_is_named_in_a_refusal(self, make_slice, as_bytes) -> None:
        dataset = make_slice(PatientName="Secret^Name", PatientID="SECRET", Modality="SECRET NAME", BitsStored=17)
        error = refused(as_bytes(dataset), "not_ct", "modality")
        assert "secret" not in str(error).lower()


class TestInputs:
    def test_a_missing_file_is_unreadable(self, tmp_path: Path) -> None:
        error = refused(tmp_path / "none.dcm", "unreadable", "No such file")
        assert str(tmp_path) not in str(error)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", "unreadable", "not an ordinary file")

    def test_a_stream_that_breaks_is_unreadable(self) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise ConnectionError

        refused(Broken(), "unreadable", "reading fails")

    def test_large_files_are_refused(self, make_slice, as_bytes, tmp_path: Path) -> None:
        data = as_bytes(make_slice())
        (tmp_path / "x.dcm").write_bytes(data)
        limits = ReadLimits(file_bytes=1000)
        refused(tmp_path / "x.dcm", "too_large", "limit file_bytes is 1000", limits=limits)
        refused(data, "too_large", "limit file_bytes = 1000", limits=limits)
        refused(io.BytesIO(data), "too_large", "limit file_bytes = 1000", limits=limits)

    def test_large_images_are_refused_before_pixels_are_looked_at(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(Rows=60000, Columns=60000))
        refused(data, "too_large", "60000 x 60000 x 1 frames")
        refused(as_bytes(make_slice(NumberOfFrames=2**30)), "too_large", "frames")

    def test_a_deflate_bomb_is_refused_before_it_is_inflated(self, make_slice, as_bytes) -> None:
        coding = PixelCoding(transfer_syntax=uid.DeflatedExplicitVRLittleEndian)
        dataset = make_slice(coding=coding)
        dataset.add_new(0x00091001, "OB", bytes(50_000_000))
        data = as_bytes(dataset)
        assert len(data) < 100_000
        refused(data, "too_large", "inflates to more than 1000000 bytes", limits=ReadLimits(inflated_bytes=1_000_000))

    def test_damaged_deflate_is_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.DeflatedExplicitVRLittleEndian)))
        refused(data[:-2000], "malformed", "ends early")
        refused(data[:400] + b"\xff" * 500 + data[900:], "malformed", "deflated data set is damaged|declares|parsed")

    def test_millions_of_empty_elements_are_refused(self, make_slice, as_bytes) -> None:
        dataset = make_slice()
        dataset.add_new(0x00091001, "SQ", [Dataset() for _ in range(500)])
        dataset[0x00091001].is_undefined_length = True
        refused(as_bytes(dataset), "too_large", "more than 100 data elements", limits=ReadLimits(elements=100))

    def test_deep_nesting_is_refused_without_a_crash(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        nest = (b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
        refused(data[: data.index(b"\x10\x00\x10\x00PN")] + nest, "malformed", "cannot be parsed")

    def test_a_damaged_sequence_is_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        place = data.rindex(b"\xe0\x7f\x10\x00OW")
        cut_item = b"\x28\x00\x00\x30SQ\0\0\x04\0\0\0" + b"\xfe\xff\x00\xe0"
        refused(data[:place] + cut_item + data[place:], "malformed", "a sequence cannot be parsed")

    def test_a_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="limit pixels must be at least 1"):
            ReadLimits(pixels=0)


@pytest.mark.shared_data
class TestRealFiles:
    def test_rsna_slices_equal_pydicom(self, shared_data_dir: Path) -> None:
        for path in sorted((shared_data_dir / "rsna-dicom" / "images").glob("*.dcm"))[::4]:
            read = read_slice(path, source=path.name)
            assert (read.hounsfield == pydicom_hounsfield(path)).all()
            assert {note.code for note in read.header.quality} == {"nonstandard_uid"}

    def test_padding_of_a_real_lossless_series_is_air(self, shared_data_dir: Path) -> None:
        path = sorted((shared_data_dir / "cq500-series").glob("*.dcm"))[100]
        read, judged = read_slice(path).hounsfield, pydicom_hounsfield(path)
        padded = judged == -2000 - 1024
        assert padded.any()
        assert (read[padded] == -1000).all()
        assert (read[~padded] == judged[~padded]).all()
