"""A de-identified file reads like the original."""

from pathlib import Path

import pytest

from hemoscope.dicom.deidentify import deidentified_file
from hemoscope.dicom.read import read_slice
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

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


def test_what_cannot_be_written_again_is_refused(content: bytes) -> None:
    with pytest.raises(DicomReadError, match="cannot be de-identified"):
        deidentified_file(content[: len(content) // 2].replace(b"DS", b"XX"), key=KEY, source="a")
