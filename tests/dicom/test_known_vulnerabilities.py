"""Files of the kinds that Orthanc's advisories of 2026 describe: each is refused by name, whatever it claims.

CERT/CC numbers them CVE-2026-5437 to CVE-2026-5445; ``docs/explanation/security.md`` has the table of all nine.
"""

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.read import read_slice, read_slices
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import PixelCoding

PAM = b"P7\nWIDTH 65537\nHEIGHT 65537\nDEPTH 1\nMAXVAL 65535\nTUPLTYPE GRAYSCALE\nENDHDR\n" + bytes(64)
META_START, META_GROUP_LENGTH = 132, 12


class TestMetaHeaders:
    """CVE-2026-5437: lengths in the file meta information that lead out of the file."""

    def test_no_length_in_the_meta_header_reads_past_the_end(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        end = data.index(b"\x08\x00\x05\x00CS")
        place = META_START + META_GROUP_LENGTH
        while place < end:
            long = data[place + 4 : place + 6] == b"OB"
            start, form = (place + 8, "<I") if long else (place + 6, "<H")
            for length in (0xFFFFFFFE, 0x7FFFFFFF) if long else (0xFFFF, 0xFFFE):
                hostile = data[:start] + struct.pack(form, length) + data[start + struct.calcsize(form) :]
                with pytest.raises(DicomReadError, match=r"declares [0-9]+ bytes, but only"):
                    read_slices(hostile, source="x.dcm")
            (length,) = struct.unpack_from(form, data, start)
            place = start + struct.calcsize(form) + length

    def test_a_file_that_ends_in_its_meta_header_is_refused(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice())
        for end in range(META_START, data.index(b"\x08\x00\x05\x00CS")):
            with pytest.raises(DicomReadError):
                read_slices(data[:end], source="x.dcm")

    def test_the_length_of_the_group_is_believed_by_nobody(self, make_slice, as_bytes, slice_hu) -> None:
        data = as_bytes(make_slice())
        start = META_START + META_GROUP_LENGTH - 4
        for length in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
            hostile = data[:start] + struct.pack("<I", length) + data[start + 4 :]
            assert (read_slice(hostile).hounsfield == slice_hu).all()


class TestDimensions:
    """CVE-2026-5442: rows and columns of 32 bits, whose product wraps to a small number."""

    @pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGLosslessSV1, uid.JPEG2000Lossless])
    @pytest.mark.parametrize(("rows", "columns"), [(65536, 65536), (65537, 65537), (1 << 31, 2), (0xFFFFFFFF, 64)])
    def test_dimensions_of_32_bits_are_too_large_and_never_wrap(
        self, make_slice, as_bytes, refused, syntax: uid.UID, rows: int, columns: int
    ) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
        dataset.add_new("Rows", "UL", rows)
        dataset.add_new("Columns", "UL", columns)
        refused(as_bytes(dataset), "too_large", f"{rows} x {columns} x 1 frames")

    def test_frames_count_in_the_product(self, make_slice, as_bytes, refused) -> None:
        refused(as_bytes(make_slice(NumberOfFrames=(1 << 31) - 1)), "too_large", "x 2147483647 frames")

    def test_dimensions_of_32_bits_within_the_limits_need_their_pixels(self, make_slice, as_bytes, refused) -> None:
        dataset = make_slice()
        dataset.add_new("Rows", "UL", 65537)
        refused(as_bytes(dataset), "inconsistent_pixel_data", "declares 8388736 bytes of pixel data, the element has")


class TestTables:
    """CVE-2026-5443 and CVE-2026-5445: palettes whose size overflows, and pixels that point beyond a table."""

    @pytest.mark.parametrize("allocated", [8, 16])
    def test_palettes_are_refused_before_pixels_are_looked_at(
        self, make_slice, as_bytes, refused, allocated: int
    ) -> None:
        dataset = make_slice(PhotometricInterpretation="PALETTE COLOR", BitsAllocated=allocated, Rows=65535)
        dataset.add_new("RedPaletteColorLookupTableDescriptor", "US", [2, 0, 16])
        dataset.add_new("RedPaletteColorLookupTableData", "OW", bytes(4))
        refused(as_bytes(dataset), "colour", "a colour image")

    def test_pixels_beyond_a_lut_get_its_ends(self, make_slice, as_bytes) -> None:
        """The one table that is followed, the Modality LUT: no stored value reads outside it."""
        wide = np.array([[-32768, 0], [1, 32767]], dtype=np.int16).repeat(32, 0).repeat(32, 1)
        dataset = make_slice(PixelData=wide.tobytes(), PixelRepresentation=1, BitsStored=16, HighBit=15)
        table = type(dataset)()
        table.add_new("LUTDescriptor", "SS", [2, 0, 16])
        table.add_new("LUTData", "OW", struct.pack("<2H", 10, 50))
        table.ModalityLUTType = "HU"
        dataset.ModalityLUTSequence = [table]
        del dataset.RescaleSlope, dataset.RescaleIntercept
        found = read_slice(as_bytes(dataset)).hounsfield
        assert [found[row, column] for row, column in ((0, 0), (0, 63), (63, 0), (63, 63))] == [10, 10, 50, 50]


class TestOtherCodings:
    """CVE-2026-5441 and CVE-2026-5444: Philips' private compression, and pictures of Netpbm, in or as a file."""

    @pytest.mark.parametrize("end", [b"\xa5", b"\x5a\xa5", b"\xa5\x5a\xff", b"\xa5" * 9])
    def test_the_private_compression_of_philips_is_not_decoded(self, make_slice, as_bytes, refused, end: bytes) -> None:
        dataset = make_slice(PixelData=None)
        block = dataset.private_block(0x07A1, "ELSCINT1", create=True)
        block.add_new(0x11, "CS", "PMSCT_RLE1")
        block.add_new(0x0A, "OB", bytes(100) + end)
        refused(as_bytes(dataset), "no_pixels", "no pixel data")

    @pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless])
    def test_a_pam_picture_in_a_frame_is_not_decoded(self, make_slice, as_bytes, refused, syntax: uid.UID) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
        dataset.PixelData = encapsulate([PAM])
        refused(as_bytes(dataset), "inconsistent_pixel_data", "cannot be decoded")

    def test_a_pam_picture_is_no_input(self, tmp_path: Path) -> None:
        (tmp_path / "x.dcm").write_bytes(PAM)
        assert [one.code for one in open_archive([tmp_path]).rejected] == ["not_dicom"]


class TestArchives:
    """CVE-2026-5439: a ZIP that says of itself that it holds more than it does."""

    def test_a_directory_of_millions_is_refused_before_it_fills_the_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry = (
            struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
        )
        directory = entry * 3000
        ending = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3000, 3000, len(directory), 0, 0)
        (tmp_path / "many.zip").write_bytes(directory + ending)

        def never(*_arguments: object, **_options: object) -> None:
            pytest.fail("an entry became an object")

        monkeypatch.setattr("zipfile.ZipInfo.__init__", never)
        for limits in (ReadLimits(members=2999), ReadLimits(file_bytes=len(directory) - 1)):
            (refused,) = open_archive([tmp_path / "many.zip"], limits=limits).rejected
            assert refused.code == "too_large"
