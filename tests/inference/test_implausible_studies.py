"""Inputs that are no head slices, from files to the answer: refused or noted, never a plain result."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from hemoscope.dicom.archive import open_archive
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.study_reading import StudyOutcome
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import PixelCoding, write_series
from hemoscope.testing.phantom import Phantom, make_phantom


@pytest.fixture(scope="module")
def head() -> Phantom:
    return make_phantom(seed=5, shape=(24, 96, 96))


def outcome(predictor: Predictor, folder: Path) -> StudyOutcome:
    (found,) = predictor.studies(open_archive(folder))
    return found


def changed(files: tuple[Path, ...], **attributes: object) -> None:
    for file in files:
        dataset = dcmread(file)
        for name, value in attributes.items():
            setattr(dataset, name, value)
        dataset.save_as(file)


class TestWrongValues:
    @pytest.mark.parametrize("bits", [12, 16])
    def test_an_offset_of_1024_is_refused_with_what_to_check(
        self, predictor: Predictor, head: Phantom, tmp_path: Path, bits: int
    ) -> None:
        files = write_series(head, tmp_path, coding=PixelCoding(bits_stored=bits, intercept=-1024))
        changed(files, RescaleIntercept="0")
        found = outcome(predictor, tmp_path)
        assert found.reading is None
        (refusal,) = found.rejected
        assert refusal.code == "implausible_hounsfield"
        assert "offset of +1000 to +1024" in refusal.message
        assert "Rescale Intercept" in refusal.remedy

    def test_signed_values_that_are_declared_unsigned_are_refused(
        self, predictor: Predictor, head: Phantom, tmp_path: Path
    ) -> None:
        files = write_series(head, tmp_path, coding=PixelCoding(bits_stored=16, signed=True, intercept=0))
        changed(files, PixelRepresentation=0)
        assert [refusal.code for refusal in outcome(predictor, tmp_path).rejected] == ["implausible_hounsfield"]

    def test_a_wrong_study_does_not_stop_the_others(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        changed(write_series(head, tmp_path / "a", seed=1), RescaleIntercept="0")
        write_series(head, tmp_path / "b", seed=2)
        found = list(predictor.studies(open_archive(tmp_path)))
        assert sorted(one.reading is None for one in found) == [False, True]


class TestNotes:
    def test_a_plain_head_has_none(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        write_series(head, tmp_path)
        reading = outcome(predictor, tmp_path).reading
        assert reading is not None
        assert reading.findings.quality == ()

    def test_a_cylinder_carries_one(self, predictor: Predictor, tmp_path: Path) -> None:
        y, x = np.mgrid[:96, :96] * 2.4 - 114.0
        disc = np.where(np.hypot(x, y) < 90, 40.0, -1000.0)
        noise = np.random.default_rng(0).normal(0, 6, (24, 96, 96))
        write_series(np.maximum(np.rint(disc + noise), -1024).astype(np.int16), tmp_path, spacing_mm=(5.0, 2.4, 2.4))
        reading = outcome(predictor, tmp_path).reading
        assert reading is not None
        assert [note.code for note in reading.findings.quality] == ["unlike_head"]

    def test_a_projection_alone_carries_one(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        changed(write_series(head, tmp_path), ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
        reading = outcome(predictor, tmp_path).reading
        assert reading is not None
        assert [note.code for note in reading.findings.quality] == ["projection"]


class TestContrastThatWasNotGiven:
    @pytest.mark.parametrize("agent", ["W/O CONTRAST", "NONE GIVEN", "N/A", "-"])
    def test_the_soft_series_is_read_rather_than_the_bone_series(
        self, predictor: Predictor, head: Phantom, tmp_path: Path, agent: str
    ) -> None:
        soft = Acquisition(series_number=1, contrast_agent=agent, series_description="BRAIN")
        bone = Acquisition(series_number=2, convolution_kernel="H70h", series_description="BONE")
        write_series(head, tmp_path / "soft", acquisition=soft)
        write_series(head, tmp_path / "bone", acquisition=bone)
        reading = outcome(predictor, tmp_path).reading
        assert reading is not None
        assert reading.findings.quality == ()
        assert [series.reason for series in reading.findings.skipped_series] == ["bone kernel"]
