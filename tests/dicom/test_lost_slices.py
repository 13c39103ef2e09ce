"""Refused files count as unread slices of their series, wherever in the head they lie."""

from pathlib import Path

import pytest

from hemoscope.dicom.archive import open_archive
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    return write_series(make_phantom(seed=3, shape=(24, 64, 64)), tmp_path / "series")


@pytest.mark.parametrize("damaged", [slice(20, 24), slice(8, 12)])
@pytest.mark.parametrize(("size", "code"), [(5000, "truncated_pixel_data"), (900, "malformed"), (0, "not_dicom")])
def test_they_are_counted_once(files: tuple[Path, ...], damaged: slice, size: int, code: str) -> None:
    for path in files[damaged]:
        path.write_bytes(path.read_bytes()[:size])
    (study,) = open_archive(files[0].parent).studies
    assert sum(one.count for one in study.series[0].unread) == 4
    assert code in {one.code for one in study.series[0].unread}


def test_other_files_beside_them_are_no_slices(files: tuple[Path, ...]) -> None:
    (files[0].parent / "readme.txt").write_text("nothing")
    archive = open_archive(files[0].parent)
    assert archive.studies[0].series[0].unread == ()
    assert len(archive.rejected) == 1
