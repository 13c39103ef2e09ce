"""Files that cost much to read are refused by name, alone and together; ordinary slices beside them are read."""

import gzip
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from hemoscope.dicom import read_budget
from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.dicom.deidentify import deidentified_file
from hemoscope.dicom.deidentify_folder import deidentify_folder
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read import read_headers
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import PixelCoding, enhanced_ct_dataset

KEY = bytes(range(16))
FLOOD_TAGS = 0x00090010


def flood(slice_bytes: bytes, elements: int, *, tags: bytes | None = None) -> bytes:
    """A slice whose header has this many private elements without value before the patient's name."""
    place = slice_bytes.index(b"\x10\x00\x10\x00PN")
    if tags is None:
        tags = b"".join(struct.pack("<HH2sH", 9, 16 + number, b"SH", 0) for number in range(elements))
    return slice_bytes[:place] + tags + slice_bytes[place:]


@pytest.fixture
def slice_bytes(make_slice, as_bytes) -> bytes:
    return as_bytes(make_slice())


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    def write(members: dict[str, bytes]) -> Path:
        path = tmp_path / "study.zip"
        with ZipFile(path, "w", ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path

    return write


def refusals(archive: Archive) -> dict[str, str]:
    return {one.source: one.message.partition(". ")[0] for one in archive.rejected}


def test_floods_share_one_limit_and_a_slice_after_them_is_read(slice_bytes: bytes, zipped) -> None:
    members = {f"{number}.dcm": flood(slice_bytes, 3000) for number in range(4)} | {"9.dcm": slice_bytes}
    archive = open_archive(zipped(members), limits=ReadLimits(archive_elements=5500))
    reason = "with the files before it, it exceeds the limit archive_elements = 5500"
    assert refusals(archive) == {"2.dcm": reason, "3.dcm": reason}
    (series,) = archive.studies[0].series
    assert "9.dcm" in {header.source for header in (*series.headers, *series.left_out)}


def test_a_flood_in_a_sequence_of_defined_length_counts(make_slice, as_bytes, refused) -> None:
    dataset = make_slice(DerivationCodeSequence=[Dataset() for _ in range(300)])
    refused(as_bytes(dataset), "too_large", "the limit elements = 1000", limits=ReadLimits(elements=1000))


def test_a_group_of_the_network_is_refused_at_once(slice_bytes: bytes, refused) -> None:
    command = struct.pack("<HHI", 0, 0x0110, 2) + b"\1\0"
    data = slice_bytes[:132] + command + slice_bytes[132:]
    refused(data, "malformed", r"\(0000,0110\)")
    refused(flood(slice_bytes, 1, tags=struct.pack("<HH2sH", 0, 2, b"UI", 0)), "malformed", r"\(0000,0002\)")


def test_fragments_count(make_slice, as_bytes, refused) -> None:
    dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless))
    empty = b"\xfe\xff\x00\xe0\0\0\0\0"
    dataset.PixelData = empty * 1500 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    dataset["PixelData"].VR = "OB"
    refused(as_bytes(dataset), "too_large", "the limit elements = 1000", limits=ReadLimits(elements=1000))


def test_a_sequence_that_all_frames_share_is_parsed_once(as_bytes) -> None:
    dataset = enhanced_ct_dataset(np.zeros((40, 8, 8), dtype=np.int16))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.ContrastBolusUsageSequence = [Dataset() for _ in range(100)]
    found = parse(as_bytes(dataset), source="x", limits=ReadLimits())
    for _ in range(40):
        assert len(found.elements.items(0x52009229)[0].items(0x00189341)) == 100
    before = found.budget.elements
    assert found.elements.items(0x52009229)[0].item(0x00189341) is not None
    assert found.budget.elements == before < 2000


@pytest.mark.parametrize("limit", ["file_seconds", "archive_seconds"])
def test_a_file_that_takes_too_long_is_refused(
    slice_bytes: bytes, zipped, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    clock = count()
    monkeypatch.setattr(read_budget, "thread_time", lambda: float(next(clock)))
    members = {"1.dcm": flood(slice_bytes, 5000), "2.dcm": slice_bytes}
    archive = open_archive(zipped(members), limits=ReadLimits(**{limit: 3}))
    assert list(refusals(archive)) == ["1.dcm"]
    assert f"the limit {limit} = 3" in refusals(archive)["1.dcm"]


def test_what_gzip_files_and_deflated_data_sets_inflate_to_counts_together(
    make_slice, as_bytes, tmp_path: Path
) -> None:
    deflated = make_slice(coding=PixelCoding(transfer_syntax=uid.DeflatedExplicitVRLittleEndian))
    deflated.add_new(0x00091001, "OB", bytes(6 << 20))
    plain = make_slice()
    plain.add_new(0x00091001, "OB", bytes(6 << 20))
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.dcm").write_bytes(as_bytes(deflated))
        (folder / f"{number}.gz").write_bytes(gzip.compress(as_bytes(plain)))
    archive = open_archive(folder, limits=ReadLimits(archive_bytes=5 << 20))
    assert list(refusals(archive)) == ["1.dcm", "1.gz"]
    assert "the limit archive_bytes = 5242880" in refusals(archive)["1.gz"]


class TestDeidentification:
    def test_elements_in_items_of_defined_length_count(self, make_slice, as_bytes) -> None:
        item = Dataset()
        for number in range(500):
            item.add_new(0x00111000 + number, "SH", "")
        dataset = make_slice(ReferencedImageSequence=[item] * 4)
        limits = ReadLimits(elements=1000)
        with pytest.raises(DicomReadError, match="a: more data elements than the limit elements = 1000"):
            deidentified_file(as_bytes(dataset), key=KEY, source="a", limits=limits)

    def test_elements_after_deflated_pixels_count(self, make_slice, as_bytes) -> None:
        dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.DeflatedExplicitVRLittleEndian))
        for number in range(1500):
            dataset.add_new(0x7FE10010 + number, "LO", "")
        with pytest.raises(DicomReadError, match="the limit elements = 1000"):
            deidentified_file(as_bytes(dataset), key=KEY, source="a", limits=ReadLimits(elements=1000))

    def test_floods_of_a_folder_share_one_limit(self, slice_bytes: bytes, zipped, tmp_path: Path) -> None:
        members = {"1.dcm": flood(slice_bytes, 3000), "2.dcm": flood(slice_bytes, 3000), "3.dcm": slice_bytes}
        limits = ReadLimits(archive_elements=6000)
        done = deidentify_folder(zipped(members), tmp_path / "out", key=KEY, limits=limits)
        assert {one.source: one.code for one in done.rejected} == {"2.dcm": "too_large"}
        assert done.written == 2


class TestLongValues:
    def test_of_a_text_no_more_is_read_than_the_standard_allows(self, make_slice, as_bytes) -> None:
        dataset = make_slice()
        dataset.add_new(0x00204000, "UT", "geometry" * 100_000)
        elements = parse(as_bytes(dataset), source="x", limits=ReadLimits()).elements
        assert len(elements.text(0x00204000)) == 1 << 16

    def test_a_list_of_numbers_that_no_table_has_is_none(self, make_slice, as_bytes, refused) -> None:
        dataset = make_slice()
        dataset.add_new(0x00280010, "OW", bytes(1 << 20))
        refused(as_bytes(dataset), "malformed", "rows, columns")
        dataset.add_new(0x00281053, "UT", "1\\" * 500_000)
        elements = parse(as_bytes(dataset), source="x", limits=ReadLimits()).elements
        assert elements.decimals(0x00281053) is None


def test_a_large_enhanced_file_uses_a_tenth_of_what_is_allowed(as_bytes) -> None:
    data = as_bytes(enhanced_ct_dataset(np.zeros((600, 8, 8), dtype=np.int16)))
    limits = ReadLimits()
    few = ReadLimits(elements=limits.elements // 10, archive_elements=limits.archive_elements // 10)
    assert len(read_headers(data, source="x", limits=few)) == 600


@pytest.mark.shared_data
def test_no_file_of_real_data_comes_near_a_limit(shared_data_dir: Path) -> None:
    limits = ReadLimits()
    few = ReadLimits(elements=limits.elements // 100, archive_elements=limits.archive_elements // 100)
    for name in ("cq500-series", "field-cases", "public-dicom", "rsna-dicom"):
        archive = open_archive(shared_data_dir / name, limits=few)
        assert "too_large" not in {one.code for one in archive.rejected}
