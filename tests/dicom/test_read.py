"""One file becomes a header and its Hounsfield units, from wherever it comes."""

import io
import os
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from hemoscope.dicom.read import read_headers, read_slice, read_slices
from hemoscope.dicom.read_limits import ReadLimits, limits_from_options
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import PixelCoding, enhanced_ct_dataset, save
from hemoscope.testing.phantom import Phantom


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

    def test_assumed_geometry_is_marked_by_the_comment(self, make_slice, as_bytes) -> None:
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

    def test_one_slice_is_not_read_from_several_frames(self, head: Phantom, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(head.hounsfield), tmp_path / "e.dcm")
        with pytest.raises(DicomReadError, match="9 frames, but one slice is expected"):
            read_slice(path)

    def test_missing_functional_groups_are_refused(self, head: Phantom, as_bytes, refused) -> None:
        dataset = enhanced_ct_dataset(head.hounsfield)
        del dataset.PerFrameFunctionalGroupsSequence[-1]
        refused(as_bytes(dataset), "malformed", "9 frames are declared, but 8 have functional groups")

    def test_a_localizer_frame_type_is_refused(self, head: Phantom, as_bytes, refused) -> None:
        dataset = enhanced_ct_dataset(head.hounsfield)
        groups = (dataset.SharedFunctionalGroupsSequence[0], *dataset.PerFrameFunctionalGroupsSequence)
        for group in groups:
            if "CTImageFrameTypeSequence" in group:
                group.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
        refused(as_bytes(dataset), "localizer", "scout")

    @pytest.mark.parametrize("extended", [False, True])
    def test_an_offset_table_assigns_fragments_to_frames(self, head: Phantom, as_bytes, extended: bool) -> None:
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


class TestInputs:
    def test_a_missing_file_is_unreadable(self, tmp_path: Path, refused) -> None:
        error = refused(tmp_path / "none.dcm", "unreadable", "No such file")
        assert str(tmp_path) not in str(error)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path, refused) -> None:
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", "unreadable", "not an ordinary file")

    def test_a_stream_that_breaks_is_unreadable(self, refused) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise ConnectionError

        refused(Broken(), "unreadable", "reading fails")

    def test_large_files_are_refused(self, make_slice, as_bytes, tmp_path: Path, refused) -> None:
        data = as_bytes(make_slice())
        (tmp_path / "x.dcm").write_bytes(data)
        limits = ReadLimits(file_bytes=1000)
        refused(tmp_path / "x.dcm", "too_large", "limit file_bytes is 1000", limits=limits)
        refused(data, "too_large", "limit file_bytes = 1000", limits=limits)
        refused(io.BytesIO(data), "too_large", "limit file_bytes = 1000", limits=limits)

    def test_large_images_are_refused_before_pixels_are_looked_at(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice(Rows=60000, Columns=60000))
        refused(data, "too_large", "60000 x 60000 x 1 frames")
        refused(as_bytes(make_slice(NumberOfFrames=2**30)), "too_large", "frames")

    def test_a_deflate_bomb_is_refused_before_it_is_inflated(self, make_slice, as_bytes, refused) -> None:
        coding = PixelCoding(transfer_syntax=uid.DeflatedExplicitVRLittleEndian)
        dataset = make_slice(coding=coding)
        dataset.add_new(0x00091001, "OB", bytes(50_000_000))
        data = as_bytes(dataset)
        assert len(data) < 100_000
        refused(data, "too_large", "the limit inflated_bytes = 1000000", limits=ReadLimits(inflated_bytes=1_000_000))

    def test_damaged_deflate_is_refused(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice(coding=PixelCoding(transfer_syntax=uid.DeflatedExplicitVRLittleEndian)))
        refused(data[:-2000], "malformed", "ends early")
        refused(data[:400] + b"\xff" * 500 + data[900:], "malformed", "deflated data set is damaged|declares|parsed")

    def test_millions_of_empty_elements_are_refused(self, make_slice, as_bytes, refused) -> None:
        dataset = make_slice()
        dataset.add_new(0x00091001, "SQ", [Dataset() for _ in range(500)])
        dataset[0x00091001].is_undefined_length = True
        refused(as_bytes(dataset), "too_large", "the limit elements = 100", limits=ReadLimits(elements=100))

    def test_deep_nesting_is_refused_without_a_crash(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice())
        nest = (b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
        refused(data[: data.index(b"\x10\x00\x10\x00PN")] + nest, "malformed", "cannot be parsed")

    def test_a_damaged_sequence_is_refused(self, make_slice, as_bytes, refused) -> None:
        data = as_bytes(make_slice())
        place = data.rindex(b"\xe0\x7f\x10\x00OW")
        cut_item = b"\x28\x00\x00\x30SQ\0\0\x04\0\0\0" + b"\xfe\xff\x00\xe0"
        refused(data[:place] + cut_item + data[place:], "malformed", "a sequence cannot be parsed")

    @pytest.mark.parametrize("field", [field.name for field in fields(ReadLimits)])
    def test_every_limit_has_an_option(self, field: str) -> None:
        base = 1024 if field.endswith("_bytes") else 1000
        for option, value in ((f"{field}=7", 7), (f"{field}=2k", 2 * base), (f"{field}=3M", 3 * base**2)):
            assert getattr(limits_from_options([f"{field}=1", option]), field) == value
        assert limits_from_options([]) == ReadLimits()

    def test_a_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="limit pixels must be at least 1"):
            ReadLimits(pixels=0)


@pytest.mark.shared_data
class TestRealFiles:
    def test_rsna_slices_equal_pydicom(self, shared_data_dir: Path, pydicom_hounsfield) -> None:
        for path in sorted((shared_data_dir / "rsna-dicom" / "images").glob("*.dcm"))[::4]:
            read = read_slice(path, source=path.name)
            assert (read.hounsfield == pydicom_hounsfield(path)).all()
            assert {note.code for note in read.header.quality} == {"nonstandard_uid"}

    def test_padding_of_a_real_lossless_series_is_air(self, shared_data_dir: Path, pydicom_hounsfield) -> None:
        path = sorted((shared_data_dir / "cq500-series").glob("*.dcm"))[100]
        read, judged = read_slice(path).hounsfield, pydicom_hounsfield(path)
        padded = judged == -2000 - 1024
        assert padded.any()
        assert (read[padded] == -1000).all()
        assert (read[~padded] == judged[~padded]).all()
