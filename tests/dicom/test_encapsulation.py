"""Fragments become whole frames, with or without offset tables; what violates the standard is read with a note."""

import io
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, encapsulate_extended, fragment_frame, generate_frames

from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.read import read_slice, read_slices
from hemoscope.testing.dicom_writer import PixelCoding, enhanced_ct_dataset, save, write_series
from hemoscope.testing.phantom import Phantom
from hemoscope.testing.pixel_coding import ENCAPSULATED

MARKED = [uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless]
SPLITTABLE = [*MARKED, uid.RLELossless, ENCAPSULATED]
DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
Item = Callable[[bytes], bytes]


def item(value: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


@pytest.fixture
def enhanced(head: Phantom) -> Callable[..., tuple[pydicom.Dataset, list[bytes]]]:
    """``enhanced(syntax)``: an Enhanced CT of three frames, and the bytes of each frame."""

    def build(syntax: uid.UID, **coding: int) -> tuple[pydicom.Dataset, list[bytes]]:
        pixels = PixelCoding(transfer_syntax=syntax, bits_stored=16, **coding)
        dataset = enhanced_ct_dataset(head.hounsfield[:3], coding=pixels)
        return dataset, list(generate_frames(dataset.PixelData, number_of_frames=3))

    return build


def hounsfield(data: bytes) -> np.ndarray:
    return np.stack([one.hounsfield for one in read_slices(data, source="x")])


def notes(data: bytes) -> list[str]:
    return [note.message for note in read_slices(data, source="x")[0].header.quality]


class TestFragments:
    @pytest.mark.parametrize("syntax", SPLITTABLE)
    @pytest.mark.parametrize("count", [2, 5])
    def test_an_empty_offset_table_leaves_the_frames_to_their_ends(
        self, head: Phantom, as_bytes, enhanced, syntax: uid.UID, count: int
    ) -> None:
        dataset, frames = enhanced(syntax)
        dataset.PixelData = encapsulate(frames, fragments_per_frame=count, has_bot=False)
        data = as_bytes(dataset)
        assert (hounsfield(data) == head.hounsfield[:3]).all()
        assert notes(data) == []

    @pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless])
    def test_pydicom_finds_the_same_frames(self, head: Phantom, as_bytes, enhanced, syntax: uid.UID) -> None:
        dataset, frames = enhanced(syntax)
        dataset.PixelData = encapsulate(frames, fragments_per_frame=4, has_bot=False)
        reference = pydicom.dcmread(io.BytesIO(as_bytes(dataset))).pixel_array.astype(float) - 1024
        assert (hounsfield(as_bytes(dataset)) == reference).all()

    @pytest.mark.reference_tool("dcmcjpeg", "dcmdjpeg")
    @pytest.mark.parametrize("encoder", ["+el", "+e1", "+ee"])
    def test_dcmtks_fragments_without_a_table_are_those_of_dcmdjpeg(
        self, head: Phantom, tmp_path: Path, encoder: str
    ) -> None:
        plain = save(enhanced_ct_dataset(head.hounsfield[:3], coding=PixelCoding()), tmp_path / "plain.dcm")
        coded, decoded = tmp_path / "coded.dcm", tmp_path / "decoded.dcm"
        # 1 kbyte fragments, empty offset table, a new SOP Instance UID never.
        subprocess.run(["dcmcjpeg", encoder, "+fs", "1", "-ot", "+un", plain, coded], check=True, capture_output=True)
        subprocess.run(["dcmdjpeg", coded, decoded], check=True, capture_output=True)
        parts = pydicom.dcmread(coded).PixelData.count(struct.pack("<HHI", 0xFFFE, 0xE000, 1024))
        assert parts > 3
        difference = np.abs(hounsfield(coded.read_bytes()) - hounsfield(decoded.read_bytes()))
        assert difference.max() <= (1 if encoder == "+ee" else 0)

    def test_a_marker_across_two_fragments_and_padding_after_it_end_a_frame(
        self, head: Phantom, as_bytes, enhanced
    ) -> None:
        dataset, frames = enhanced(uid.JPEGLosslessSV1)
        parts = b""
        for frame in frames:
            end = frame.rindex(b"\xff\xd9") + 1
            parts += item(frame[:end]) + item(frame[end : end + 1] + bytes(31))
        dataset.PixelData = item(b"") + parts
        assert (hounsfield(as_bytes(dataset)) == head.hounsfield[:3]).all()

    def test_a_marker_in_a_header_does_not_end_a_frame(self, head: Phantom, as_bytes, enhanced) -> None:
        """An application segment can hold a thumbnail, a whole JPEG of its own."""
        dataset, frames = enhanced(uid.JPEGLosslessSV1)
        thumbnail = b"\xff\xe1\x00\x08\xff\xd8\xff\xd9\x00\x00"
        pieces = [(frame[:2] + thumbnail[:8], thumbnail[8:] + frame[2:]) for frame in frames]
        dataset.PixelData = item(b"") + b"".join(item(part) for pair in pieces for part in pair)
        assert (hounsfield(as_bytes(dataset)) == head.hounsfield[:3]).all()

    @pytest.mark.parametrize("syntax", SPLITTABLE)
    def test_a_missing_table_is_not_taken_from_the_first_frame(
        self, head: Phantom, as_bytes, enhanced, syntax: uid.UID
    ) -> None:
        dataset, frames = enhanced(syntax)
        dataset.PixelData = b"".join(map(item, frames))
        data = as_bytes(dataset)
        assert (hounsfield(data) == head.hounsfield[:3]).all()
        assert "no basic offset table" in notes(data)[0]

    @pytest.mark.parametrize("table", [b"\0\0\0\0\x07\0\0\0\x09\0\0\0", b"\0\0\0\0", b"\xff" * 12])
    def test_a_wrong_table_is_not_followed(self, head: Phantom, as_bytes, enhanced, table: bytes) -> None:
        dataset, frames = enhanced(uid.JPEG2000Lossless)
        parts = [part for frame in frames for part in fragment_frame(frame, 3)]
        dataset.PixelData = item(table) + b"".join(map(item, parts))
        assert (hounsfield(as_bytes(dataset)) == head.hounsfield[:3]).all()

    def test_a_wrong_extended_table_gives_way_to_the_basic_one(self, head: Phantom, as_bytes, enhanced) -> None:
        dataset, frames = enhanced(uid.RLELossless)
        _, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(frames)
        dataset.ExtendedOffsetTable = struct.pack("<3Q", 0, 1, 2)
        dataset.PixelData = encapsulate(frames, fragments_per_frame=2)
        assert (hounsfield(as_bytes(dataset)) == head.hounsfield[:3]).all()

    @pytest.mark.parametrize("syntax", SPLITTABLE)
    def test_another_number_of_frames_than_declared_is_refused(
        self, as_bytes, enhanced, syntax: uid.UID, refused
    ) -> None:
        dataset, frames = enhanced(syntax)
        dataset.PixelData = encapsulate(frames[:2], fragments_per_frame=2, has_bot=False)
        refused(as_bytes(dataset), "truncated_pixel_data", "3 frames are declared, but the 4 fragments hold 2")
        dataset.PixelData = encapsulate([*frames, frames[0]], fragments_per_frame=2, has_bot=False)
        refused(as_bytes(dataset), "inconsistent_pixel_data", "3 frames are declared, but the 8 fragments hold 4")

    @pytest.mark.parametrize("syntax", SPLITTABLE)
    def test_further_frames_are_not_dropped_in_silence(self, make_slice, as_bytes, syntax: uid.UID, refused) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax, bits_stored=16))
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame, frame])
        refused(as_bytes(dataset), "inconsistent_pixel_data", "1 frames are declared, but the 2 fragments hold 2")


class TestUncompressedFragments:
    @pytest.mark.parametrize("bits", [8, 12, 16])
    @pytest.mark.parametrize("signed", [False, True])
    def test_encapsulated_uncompressed_pixels_equal_native_ones(
        self, head: Phantom, as_bytes, make_slice, bits: int, signed: bool
    ) -> None:
        coding = {"bits_stored": bits, "signed": signed, "slope": 16 if bits == 8 else 1, "intercept": 0}
        if not signed:
            coding["intercept"] = -1024
        image = head.hounsfield[4, :63, :61]  # an odd number of bytes in 8 bits
        fragments = make_slice(hounsfield=image, coding=PixelCoding(transfer_syntax=ENCAPSULATED, **coding))
        native = read_slice(as_bytes(make_slice(hounsfield=image, coding=PixelCoding(**coding))))
        read = read_slice(as_bytes(fragments))
        assert (read.hounsfield == native.hounsfield).all()
        assert read.header.quality == ()

    def test_a_frame_that_is_too_short_or_too_long_is_refused(self, as_bytes, make_slice, refused) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=ENCAPSULATED))
        dataset.PixelData = encapsulate([bytes(8190)])
        refused(as_bytes(dataset), "inconsistent_pixel_data", "8192 bytes for a frame, its fragments have 8190")
        dataset.PixelData = encapsulate([b"\1" * 16384])
        refused(as_bytes(dataset), "inconsistent_pixel_data", "8192 bytes for a frame, its fragments have 16384")

    def test_surplus_bytes_are_noted(self, as_bytes, make_slice, slice_hu) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=ENCAPSULATED))
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame + b"\1\2\3\4"])
        assert (hounsfield(as_bytes(dataset)) == slice_hu).all()
        assert "bytes after the pixels were ignored" in notes(as_bytes(dataset))[0]


class TestNativePixels:
    @pytest.mark.parametrize(("surplus", "noted"), [(bytes(1), False), (bytes(512), False), (b"\1\2\3\4", True)])
    def test_bytes_after_the_pixels_are_ignored(self, as_bytes, make_slice, slice_hu, surplus, noted: bool) -> None:
        dataset = make_slice()
        dataset.PixelData += surplus + bytes(len(surplus) % 2)
        assert (hounsfield(as_bytes(dataset)) == slice_hu).all()
        assert any("bytes after the pixels" in message for message in notes(as_bytes(dataset))) == noted

    def test_a_row_too_many_is_surplus_and_a_column_too_many_is_not(
        self, as_bytes, make_slice, slice_hu, refused
    ) -> None:
        assert (hounsfield(as_bytes(make_slice(Rows=63))) == slice_hu[:63]).all()
        assert len(notes(as_bytes(make_slice(Rows=63)))) == 1
        refused(as_bytes(make_slice(Columns=63)), "inconsistent_pixel_data", "declares 8064")

    def test_a_further_frame_is_not_dropped_in_silence(self, as_bytes, make_slice, refused) -> None:
        dataset = make_slice()
        dataset.PixelData *= 2
        refused(
            as_bytes(dataset), "inconsistent_pixel_data", "declares 8192 bytes of pixel data, the element has 16384"
        )

    @pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGLSLossless])
    def test_no_frames_are_one_frame_with_a_note(self, as_bytes, make_slice, slice_hu, syntax: uid.UID) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=syntax), NumberOfFrames=0))
        assert (hounsfield(data) == slice_hu).all()
        assert "number of frames (0028,0008) is 0" in notes(data)[0]

    def test_notes_on_encodings_are_counted_for_the_series(self, head: Phantom, tmp_path: Path) -> None:
        for path in write_series(head, tmp_path)[:4]:
            dataset = pydicom.dcmread(path)
            dataset.NumberOfFrames = 0
            save(dataset, path)
        archive = open_archive([tmp_path])
        series = read_series(archive, archive.studies[0].series[0])
        assert (series.volume.hounsfield == head.hounsfield).all()
        (message,) = [note.message for note in series.quality if note.code == "nonstandard_encoding"]
        assert "(4 of 9 slices)" in message


class TestMissingDelimiters:
    @pytest.mark.parametrize("syntax", SPLITTABLE)
    @pytest.mark.parametrize(
        "end", [b"", DELIMITER[:4], bytes(8), bytes(300), struct.pack("<HHI", 0xFFFC, 0xFFFC, 20) + bytes(20)]
    )
    def test_frames_that_are_whole_are_read(self, as_bytes, make_slice, slice_hu, syntax: uid.UID, end: bytes) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=syntax)))
        assert data.endswith(DELIMITER)
        cut = data[: -len(DELIMITER)] + end
        assert (hounsfield(cut) == slice_hu).all()
        assert "the end of the pixel data is not marked" in notes(cut)[0]

    @pytest.mark.parametrize("syntax", [*MARKED, ENCAPSULATED])
    def test_a_frame_that_lacks_a_fragment_is_refused(self, as_bytes, make_slice, syntax: uid.UID, refused) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=syntax))
        parts = list(fragment_frame(next(generate_frames(dataset.PixelData, number_of_frames=1)), 4))
        dataset.PixelData = item(b"") + b"".join(map(item, parts[:3]))
        data = as_bytes(dataset)
        refused(data[: -len(DELIMITER)], "truncated_pixel_data", "ends inside")
        refused(data[: -len(DELIMITER)] + bytes(8), "inconsistent_pixel_data", "are not DICOM items")

    @pytest.mark.parametrize("delimited", [False, True])
    def test_compressed_pixels_with_a_length_are_read(self, as_bytes, make_slice, slice_hu, delimited: bool) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEGLSLossless)))
        start = data.rindex(b"\xe0\x7f\x10\x00OB") + 12
        value = data[start : None if delimited else -len(DELIMITER)]
        changed = data[: start - 4] + struct.pack("<I", len(value)) + value + struct.pack("<HHI", 0xFFFC, 0xFFFC, 0)
        assert (hounsfield(changed) == slice_hu).all()
        (message,) = notes(changed)
        assert "compressed pixel data have a length" in message

    def test_a_delimiter_with_a_length_ends_the_pixels(self, as_bytes, make_slice, slice_hu) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless)))
        data = data[:-4] + b"\xff\xff\xff\xff"
        assert (hounsfield(data) == slice_hu).all()
        assert notes(data) == []


@pytest.mark.shared_data
class TestFieldCases:
    @pytest.mark.parametrize("syntax", ["jpeg_lossless.57", "jpeg_lossless.70"])
    def test_fragments_without_a_table_equal_pydicoms(self, shared_data_dir: Path, syntax: str) -> None:
        path = shared_data_dir / "field-cases" / f"CT0012.fragmented_no_bot_{syntax}.dcm"
        dataset = pydicom.dcmread(path)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        rescale = shared.PixelValueTransformationSequence[0]
        reference = dataset.pixel_array * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
        assert (hounsfield(path.read_bytes()) == reference).all()

    @pytest.mark.reference_tool("dcmdjpeg")
    def test_12_bit_fragments_without_a_table_equal_dcmdjpegs(self, shared_data_dir: Path, tmp_path: Path) -> None:
        path = shared_data_dir / "field-cases" / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"
        subprocess.run(["dcmdjpeg", path, tmp_path / "decoded.dcm"], check=True, capture_output=True)
        decoded = hounsfield((tmp_path / "decoded.dcm").read_bytes())
        assert np.abs(hounsfield(path.read_bytes()) - decoded).max() <= 1
