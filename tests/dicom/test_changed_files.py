"""A file that is replaced between indexing and decoding is refused by name, and the others are read."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from hemoscope.dicom.archive import Archive, open_archive, read_series
from hemoscope.dicom.kept_images import KeptImages
from hemoscope.dicom.readable_series import read_best_series
from hemoscope.dicom.series_choice import choose_series
from hemoscope.dicom.sources import FileSource
from hemoscope.inference.predictor import Predictor
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import Phantom

VICTIM = 3


@pytest.fixture
def files(head: Phantom, tmp_path: Path) -> list[Path]:
    return write_series(head, tmp_path / "given")


def rewrite(path: Path, change: Callable[[object], object]) -> None:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def other_pixels(dataset: object) -> None:
    dataset.PixelData = bytes(len(dataset.PixelData))


# What comes in place of the file; all but the last two have its size, as a slice of another series may.
REPLACEMENTS = {
    "another image": lambda path: rewrite(path, lambda one: setattr(one, "SOPInstanceUID", one.SOPInstanceUID[::-1])),
    "another series": lambda path: rewrite(path, lambda one: setattr(one, "SeriesInstanceUID", "1.2.3")),
    "another place": lambda path: rewrite(path, lambda one: setattr(one, "ImagePositionPatient", [0, 0, 999])),
    "another scale": lambda path: rewrite(path, lambda one: setattr(one, "RescaleIntercept", -24)),
    "other pixels": lambda path: rewrite(path, other_pixels),
    "another slice": lambda path: path.write_bytes((path.parent / sorted(path.parent.iterdir())[0].name).read_bytes()),
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-7] + bytes([path.read_bytes()[-7] ^ 4, *bytes(6)])),
    "another size": lambda path: rewrite(path, lambda one: (setattr(one, "Rows", one.Rows // 2), halve(one))),
    "no DICOM": lambda path: path.write_bytes(b"hello"),
}


def halve(dataset: object) -> None:
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]


def opened(files: list[Path]) -> Archive:
    archive = open_archive(files[0].parent)
    assert archive.rejected == ()
    return archive


@pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_replaced_file_is_a_named_refusal_and_the_rest_is_read(
    files: list[Path], replace: Callable[[Path], object]
) -> None:
    archive = opened(files)
    series = choose_series(archive.studies[0]).series
    whole = read_series(archive, series)
    victim = next(file for file in files if file.name == series.headers[VICTIM].source)
    replace(victim)
    decoded = read_series(archive, series)
    ((refused),) = decoded.rejected
    assert (refused.source, refused.code) == (victim.name, "changed_file")
    assert "replaced or written to while it was read. Give the files again" in refused.message
    assert [(one.code, one.count) for one in decoded.unread] == [("changed_file", 1)]
    kept = [place for place in range(len(series)) if place != VICTIM]
    assert np.array_equal(decoded.volume.hounsfield, whole.volume.hounsfield[kept])


def test_a_file_that_is_gone_is_a_refusal_too(files: list[Path]) -> None:
    archive = opened(files)
    files[VICTIM].unlink()
    decoded = read_series(archive, choose_series(archive.studies[0]).series)
    assert [(one.source, one.code) for one in decoded.rejected] == [(files[VICTIM].name, "unreadable")]


def test_files_that_did_not_fit_into_the_memory_for_them_are_read_again_and_compared(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = files[0].stat().st_size
    monkeypatch.setattr(KeptImages.__init__, "__defaults__", (VICTIM * one + one // 2,))
    archive = opened(files)
    loads: list[str] = []
    load = FileSource.load
    monkeypatch.setattr(FileSource, "load", lambda self, limits: (loads.append(self.name), load(self, limits))[1])
    stamp = files[-1].stat()
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"\x07")
    os.utime(files[-1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # size and time do not tell
    decoded = read_series(archive, choose_series(archive.studies[0]).series)
    assert sorted(loads) == [file.name for file in files[VICTIM:]]
    assert [(one.source, one.code) for one in decoded.rejected] == [(files[-1].name, "changed_file")]


def test_several_studies_that_do_not_fit_into_the_memory_are_all_read_again(
    head: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [path for seed in (1, 2) for path in write_series(head, tmp_path / str(seed), seed=seed)]
    sizes = [path.stat().st_size for path in files]
    monkeypatch.setattr(KeptImages.__init__, "__defaults__", (sum(sizes) - 1,))
    archive = open_archive(tmp_path)
    assert len(archive.studies) == 2
    assert [archive.kept.take(source) for source in archive.sources.values()] == [None] * len(files)
    decoded = [read_best_series(archive, study).decoded for study in archive.studies]
    assert [one and one.volume.hounsfield.shape for one in decoded] == [head.hounsfield.shape] * 2


def test_files_of_a_series_that_is_not_read_are_freed_when_the_other_one_is(head: Phantom, tmp_path: Path) -> None:
    for number in (1, 2):
        write_series(head, tmp_path / str(number), acquisition=Acquisition(series_number=number))
    untouched, archive = open_archive(tmp_path), open_archive(tmp_path)
    assert all(untouched.kept.take(source) is not None for source in untouched.sources.values())
    assert read_best_series(archive, archive.studies[0]).decoded is not None
    assert all(archive.kept.take(source) is None for source in archive.sources.values())


def test_a_study_with_a_replaced_file_is_incomplete(files: list[Path], predictor: Predictor) -> None:
    archive = opened(files)
    REPLACEMENTS["another image"](files[VICTIM])
    (reading,) = predictor.predict(archive).studies
    assert not reading.findings.complete
    uid = dcmread(files[VICTIM]).SOPInstanceUID
    assert uid not in {one.ref.sop_instance_uid for one in reading.findings.slices}
