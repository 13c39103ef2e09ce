"""Anything but a CT slice is refused with a code, the reason and the remedy."""

from pathlib import Path

import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from hemoscope.dicom.read import read_slice, read_slices
from hemoscope.errors import DicomReadError
from hemoscope.testing import non_ct_objects
from hemoscope.testing.dicom_writer import PixelCoding


class TestRefusals:
    @pytest.mark.parametrize(
        ("write", "code", "match"),
        [
            (non_ct_objects.write_localizer, "localizer", "scout"),
            (non_ct_objects.write_monochrome1, "monochrome1", "MONOCHROME1"),
            (non_ct_objects.write_without_rescale, "no_rescale", "Rescale Slope is missing"),
            (non_ct_objects.write_secondary_capture, "secondary_capture", "secondary capture"),
            (non_ct_objects.write_dose_report, "dose_report", "dose report"),
        ],
    )
    def test_non_ct_objects_are_refused_and_named(self, tmp_path: Path, write, code: str, match: str, refused) -> None:
        refused(write(tmp_path / "x.dcm"), code, match)

    @pytest.mark.parametrize(
        "data", [b"", b"hello, I am a text file", b"\x08\x00\x05\x00\xff\xff\xff\xff", b"PK\x03\x04" * 99]
    )
    def test_other_files_are_not_dicom(self, data: bytes, refused) -> None:
        refused(data, "not_dicom", "no DICOM prefix")

    @pytest.mark.parametrize(
        ("body", "match"),
        [
            (bytes(8 << 10), r"\(0000,0000\)"),
            (b"\x08\x00\x08\x00\x00\x00\x00\x00" * 2000, "repeated or in no order"),
        ],
    )
    def test_many_elements_that_name_nothing_are_not_parsed(self, body: bytes, match: str, refused) -> None:
        refused(bytes(128) + b"DICM" + body, "malformed", match)

    @pytest.mark.parametrize(
        ("data", "advice"),
        [
            (b"PK\x03\x04" * 99, "a ZIP file without the extension .zip: give its path or rename it"),
            (b"\x1f\x8b\x08" * 99, "a gzip file without the extension .gz"),
            (b"7z\xbc\xaf\x27\x1c" * 99, "a 7-Zip archive: unpack it first, or make a ZIP"),
            (bytes(344) + b"n+1\0", "a NIfTI file: give its path"),
        ],
    )
    def test_a_file_that_can_hold_slices_is_refused_with_what_to_do(self, data: bytes, advice: str, refused) -> None:
        refused(data, "not_dicom", f"it is {advice}")

    @pytest.mark.parametrize(
        ("changes", "code", "match"),
        [
            ({"SOPClassUID": uid.MRImageStorage}, "not_ct", "MR Image Storage"),
            ({"SOPClassUID": "1.2.3"}, "not_ct", "SOP class is unknown"),
            ({"Modality": "MR"}, "not_ct", "modality .* is MR"),
            ({"Modality": "JOHN SMITH"}, "not_ct", "is missing or unknown"),
            ({"Modality": None, "SOPClassUID": None}, "not_ct", "modality"),
            ({"PixelData": None}, "no_pixels", "no pixel data"),
            ({"SeriesDescription": "Dose Report"}, "dose_report", "dose"),
            ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary_capture", "capture"),
            ({"PhotometricInterpretation": "RGB"}, "colour", "colour"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour", "colour"),
            ({"SamplesPerPixel": 3}, "colour", "3 samples"),
            ({"PhotometricInterpretation": None}, "malformed", "photometric interpretation"),
            ({"Rows": None}, "malformed", "rows, columns"),
            ({"Rows": 65}, "inconsistent_pixel_data", "declares 8320 bytes of pixel data, the element has 8192"),
            ({"Columns": 63}, "inconsistent_pixel_data", "declares 8064"),
            ({"Rows": 32}, "inconsistent_pixel_data", "declares 4096"),
            ({"BitsAllocated": 12}, "inconsistent_pixel_data", "contradict each other"),
            ({"BitsStored": 17}, "inconsistent_pixel_data", "17 stored"),
            ({"RescaleIntercept": None}, "no_rescale", "Rescale Intercept"),
            ({"RescaleSlope": 0}, "no_rescale", "give no HU"),
            ({"RescaleType": "MGML"}, "no_rescale", "is not HU"),
            ({"NumberOfFrames": -1}, "malformed", "number of frames"),
            ({"NumberOfFrames": 2}, "inconsistent_pixel_data", "pixel data"),
            ({"StudyInstanceUID": None}, "malformed", "Study Instance UID"),
        ],
    )
    def test_a_header_that_contradicts_the_pixels_is_refused(
        self, make_slice, as_bytes, changes, code, match, refused
    ) -> None:
        refused(as_bytes(make_slice(**changes)), code, match)

    def test_a_truncated_copy_is_refused(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice())
        refused(data[:-100], "truncated_pixel_data", "should have 8192 bytes but has 8092")

    def test_a_truncated_compressed_copy_is_refused(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)))
        refused(data[:-100], "truncated_pixel_data", "declares .* bytes, .* are left")

    def test_a_file_cut_in_its_header_is_refused(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice())
        refused(data[: data.index(b"\x08\x00\x05\x00CS")], "malformed", "no data elements")
        refused(data[: data.index(b"\x28\x00\x03\x01US")], "no_pixels", "no pixel data")
        for end in range(132, len(data) - 8192, 7):
            with pytest.raises(DicomReadError):
                read_slices(data[:end], source="x.dcm")

    def test_a_length_beyond_the_end_is_refused_by_its_element(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice())
        place = data.index(b"\x08\x00\x60\x00CS") + 6
        refused(data[:place] + b"\xf0\xff" + data[place + 2 :], "malformed", r"\(0008,0060\) declares 65520 bytes")

    def test_a_damaged_frame_is_refused(self, make_slice, as_bytes, refused) -> None:
        for syntax in (uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.RLELossless):
            dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
            dataset.PixelData = encapsulate([b"\x01\x00\x00\x00" * 20])
            refused(as_bytes(dataset), "inconsistent_pixel_data", "cannot be decoded")

    @pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.JPEGLSLossless])
    def test_a_frame_of_another_size_is_refused_before_it_is_decoded(
        self, make_slice, as_bytes, syntax, refused
    ) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
        dataset.Rows = 32
        refused(as_bytes(dataset), "inconsistent_pixel_data", "cannot be decoded .*it holds 64 x 64 x 1.*32 x 64 x 1")

    def test_a_jpeg_that_claims_more_than_16_bits_is_refused(self, make_slice, as_bytes, refused) -> None:
        coding = PixelCoding(transfer_syntax=uid.JPEGLSLossless)
        data = as_bytes(make_slice(coding=coding, BitsAllocated=32))
        place = data.rindex(b"\xff\xf7\x00\x0b") + 4
        refused(data[:place] + b"\x18" + data[place + 1 :], "inconsistent_pixel_data", "24 bits")

    def test_a_jpeg_of_another_coding_than_its_syntax_is_refused(self, make_slice, as_bytes, refused) -> None:
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
    def test_jpegs_without_a_whole_header_are_refused(
        self, make_slice, as_bytes, frame: bytes, match: str, refused
    ) -> None:
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

    @pytest.mark.parametrize(("offset", "value", "match"), [(16, 0, "implausible"), (24, 1, "tiles")])
    def test_hostile_jpeg_2000_sizes_are_refused(
        self, make_slice, as_bytes, offset: int, value: int, match: str, refused
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

    def test_more_bits_than_allocated_are_refused(self, make_slice, as_bytes, refused) -> None:
        dataset = make_slice(
            coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1),
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            RescaleSlope=16,
        )
        refused(as_bytes(dataset), "inconsistent_pixel_data", "bits per sample, the header allocates 8")

    def test_rle_of_other_bytes_is_refused(self, make_slice, as_bytes, refused) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.RLELossless), BitsAllocated=32)
        refused(as_bytes(dataset), "inconsistent_pixel_data", "2 RLE segments, the header allocates 4 bytes")

    def test_an_rle_segment_beyond_the_frame_is_refused(self, make_slice, as_bytes, refused) -> None:
        frame = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (66).to_bytes(4, "little")
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.RLELossless))
        dataset.PixelData = encapsulate([frame.ljust(64, b"\0") + b"\x7f\x01\x7f\x01"])
        refused(as_bytes(dataset), "inconsistent_pixel_data", "cannot be decoded")

    def test_compression_where_none_is_declared_is_refused_and_the_other_way_round(
        self, make_slice, as_bytes, refused
    ) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)))
        data = data.replace(b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.1\0\0\0")
        refused(data, "inconsistent_pixel_data", "an uncompressed transfer syntax with encapsulated")
        data = as_bytes(make_slice()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
        refused(data, "inconsistent_pixel_data", "a compressed transfer syntax with uncompressed")

    def test_fragments_that_are_no_items_are_refused(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)))
        start = data.rindex(b"\xe0\x7f\x10\x00OB") + 12
        refused(data[:start] + b"\1\2\3\4" + data[start + 4 :], "inconsistent_pixel_data", "are not DICOM items")
        delimiter = b"\xfe\xff\xdd\xe0\0\0\0\0"
        refused(data[:start] + delimiter, "truncated_pixel_data", "no basic offset table")
        refused(data[:start] + b"\xfe\xff\x00\xe0\0\0\0\0" + delimiter, "truncated_pixel_data", "there are 0 fragments")

    def test_an_unknown_syntax_is_refused_and_named(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
        refused(data, "unsupported_syntax", r"1\.2\.840\.10008\.9\.9\.9")

    def test_8_bit_big_endian_is_refused(self, make_slice, as_bytes, refused) -> None:
        coding = PixelCoding(transfer_syntax=uid.ExplicitVRBigEndian, bits_stored=8, slope=16)
        refused(as_bytes(make_slice(coding=coding)), "unsupported_syntax", "8-bit")

    def test_no_patient_is_named_in_a_refusal(self, make_slice, as_bytes, refused) -> None:
        dataset = make_slice(PatientName="Secret^Name", PatientID="SECRET", Modality="SECRET NAME", BitsStored=17)
        error = refused(as_bytes(dataset), "not_ct", "modality")
        assert "secret" not in str(error).lower()
