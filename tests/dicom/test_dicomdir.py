"""A DICOMDIR names the files that are read, as discs and their copies hold them; nothing outside its folder is."""

import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from hemoscope.dicom.archive import Archive, DecodedSeries, open_archive, read_series
from hemoscope.dicom.series_choice import choose_series
from hemoscope.testing.dicom_writer import Acquisition, write_series
from hemoscope.testing.phantom import Phantom


def decoded(archive: Archive, **options: object) -> DecodedSeries:
    return read_series(archive, choose_series(archive.studies[0]).series, **options)


def codes(archive: Archive) -> dict[str, str]:
    return {one.source: one.code for one in archive.rejected}


@pytest.fixture
def disc(head: Phantom, tmp_path: Path) -> Path:
    folder = tmp_path / "disc"
    for number, path in enumerate(write_series(head, tmp_path / "plain", acquisition=Acquisition(patient_id="P1"))):
        (folder / "IMAGES").mkdir(parents=True, exist_ok=True)
        path.rename(folder / "IMAGES" / f"IM{number}")
    subprocess.run(
        ["dcmmkdir", "+r", "+id", folder, "-Nxc", "+D", folder / "DICOMDIR"], check=True, capture_output=True
    )
    return folder


@pytest.mark.reference_tool("dcmmkdir")
def test_a_dicomdir_names_the_files_that_are_read(disc: Path, head: Phantom) -> None:
    (disc / "IMAGES" / "OTHER").write_text("not named in the DICOMDIR")
    archive = open_archive([disc / "DICOMDIR"])
    assert archive.rejected == ()
    assert (decoded(archive).volume.hounsfield == head.hounsfield).all()
    assert "IMAGES/IM0" in archive.sources


@pytest.mark.reference_tool("dcmmkdir")
def test_a_dicomdir_in_a_folder_is_neither_slice_nor_refusal(disc: Path) -> None:
    archive = open_archive([disc])
    assert archive.rejected == ()
    assert len(archive.studies[0].series[0]) == 9


@pytest.mark.reference_tool("dcmmkdir")
def test_files_are_found_in_lower_case_and_missing_ones_are_named(disc: Path) -> None:
    (disc / "IMAGES").rename(disc / "images")
    (disc / "images" / "IM4").unlink()
    archive = open_archive([disc / "DICOMDIR"])
    assert codes(archive) == {"IMAGES/IM4": "unreadable"}
    assert len(archive.studies[0].series[0]) == 8


@pytest.mark.reference_tool("dcmmkdir")
@pytest.mark.parametrize("rename", ["{}.dcm", "{}.DCM", "{}.ima", "{}.", "{}.;1", "{};1"])
@pytest.mark.parametrize("folder", ["IMAGES", "images"])
def test_files_with_extensions_are_found(disc: Path, head: Phantom, rename: str, folder: str) -> None:
    (disc / "IMAGES").rename(disc / folder)
    for path in list((disc / folder).iterdir()):
        path.rename(path.with_name(rename.format(path.name)))
    archive = open_archive([disc / "DICOMDIR"])
    assert archive.rejected == ()
    assert (decoded(archive).volume.hounsfield == head.hounsfield).all()


@pytest.mark.reference_tool("dcmmkdir")
def test_a_picture_beside_an_image_is_not_taken_for_it(disc: Path, head: Phantom) -> None:
    for path in list((disc / "IMAGES").iterdir()):
        path.with_suffix(".jpg").write_bytes(b"a picture")
        path.rename(path.with_suffix(".dcm"))
    (disc / "IMAGES" / "IM4.dcm").rename(disc / "IMAGES" / "IM4.x")
    archive = open_archive([disc / "DICOMDIR"])
    assert codes(archive) == {"IMAGES/IM4": "unreadable"}  # IM4.jpg or IM4.x: unknown
    assert len(archive.studies[0].series[0]) == 8


@pytest.mark.reference_tool("dcmmkdir")
@pytest.mark.parametrize("written", [rb"IMAGES/IM\1", rb"\IMAGES/IM\1", rb"./IMAGES/IM\1", rb"IMAGES\IM\1.dcm"])
def test_slashes_and_extensions_in_the_names_are_understood(disc: Path, written: bytes) -> None:
    dataset = dcmread(disc / "DICOMDIR")
    for record in dataset.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            number = str(record.ReferencedFileID[-1]).removeprefix("IM").encode()
            value = written.replace(rb"\1", number)
            record[0x00041500] = RawDataElement(
                BaseTag(0x00041500), "CS", len(value), value.ljust(len(value) + len(value) % 2), 0, False, True
            )
    dataset.save_as(disc / "DICOMDIR")
    archive = open_archive([disc / "DICOMDIR"])
    assert archive.rejected == ()
    assert len(archive.studies[0].series[0]) == 9


@pytest.mark.reference_tool("dcmmkdir")
def test_references_that_lead_out_of_the_folder_are_not_followed(disc: Path) -> None:
    data = (disc / "DICOMDIR").read_bytes()
    (disc.parent / "IM0").write_bytes((disc / "IMAGES" / "IM0").read_bytes())
    (disc / "DICOMDIR").write_bytes(data.replace(b"IMAGES\\IM0", b"..\\..\\IM0\\"))
    assert "unreadable" in codes(open_archive([disc / "DICOMDIR"])).values()


def test_a_file_that_only_has_the_name_is_refused(head: Phantom, tmp_path: Path) -> None:
    write_series(head, tmp_path / "plain")[4].rename(tmp_path / "DICOMDIR")
    assert codes(open_archive([tmp_path / "DICOMDIR"])) == {"DICOMDIR": "malformed"}
