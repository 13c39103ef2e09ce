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


class TestTheNextSeries:
    """The chosen series has wrong values, another one of the study does not."""

    def write(self, head: Phantom, folder: Path, *, wrong: str, other: Acquisition) -> None:
        changed(write_series(head, folder / "a"), RescaleIntercept=wrong)
        write_series(head, folder / "b", acquisition=other)

    def test_is_read_with_a_note_and_the_refusal(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        self.write(head, tmp_path, wrong="0", other=Acquisition(series_number=2, convolution_kernel="H60s"))
        found = outcome(predictor, tmp_path)
        assert [one.code for one in found.rejected] == ["implausible_hounsfield"]
        assert found.reading is not None
        findings = found.reading.findings
        assert {note.code for note in findings.quality} == {"series_refused", "bone_kernel"}
        assert "of 24 slices was refused (implausible_hounsfield)" in findings.quality[0].message
        assert [(one.reason, one.instances) for one in findings.skipped_series] == [("refused: see the refusals", 24)]
        assert findings.complete

    def test_is_tried_until_one_is_plausible(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        self.write(head, tmp_path, wrong="0", other=Acquisition(series_number=2, contrast_agent="IOMERON"))
        changed(
            write_series(head, tmp_path / "c", acquisition=Acquisition(series_number=3, convolution_kernel="H60s")),
            RescaleIntercept="-2048",
        )
        found = outcome(predictor, tmp_path)
        assert found.reading is not None
        assert {note.code for note in found.reading.findings.quality} == {"contrast_agent"} | {"series_refused"}
        assert len(found.rejected) == 2  # the bone kernel ranks before contrast

    def test_the_study_is_refused_if_none_is(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        self.write(head, tmp_path, wrong="0", other=Acquisition(series_number=2, convolution_kernel="H60s"))
        changed(tuple((tmp_path / "b").iterdir()), RescaleIntercept="-2048")
        found = outcome(predictor, tmp_path)
        assert found.reading is None
        assert [one.code for one in found.rejected] == ["implausible_hounsfield"] * 2

    def test_is_not_read_in_place_of_one_that_was_asked_for(
        self, predictor: Predictor, head: Phantom, tmp_path: Path
    ) -> None:
        self.write(head, tmp_path, wrong="0", other=Acquisition(series_number=2))
        archive = open_archive(tmp_path)
        (wrong,) = {one.series_instance_uid for one in archive.studies[0].series if one.headers[0].source[0] == "a"}
        (found,) = predictor.studies(archive, series_instance_uid=wrong)
        assert found.reading is None


class TestStrangeSlices:
    """Pages of text and noise between good slices of one series."""

    def write(self, head: Phantom, folder: Path, strange: np.ndarray, *, count: int) -> None:
        mixed = head.hounsfield.copy()
        mixed[5 : 5 + count] = strange
        write_series(mixed, folder, spacing_mm=(5.0, 2.4, 2.4))

    @pytest.mark.parametrize(("count", "state"), [(1, "complete"), (3, "incomplete")])
    @pytest.mark.parametrize("kind", ["noise", "text"])
    def test_are_refused_and_the_rest_is_read(
        self, predictor: Predictor, head: Phantom, tmp_path: Path, kind: str, count: int, state: str
    ) -> None:
        random = np.random.default_rng(0)
        noise = random.normal(0, 400, (96, 96))
        text = np.where(random.random((96, 96)) < 0.1, 1000.0, -1000.0)
        strange = noise if kind == "noise" else text
        self.write(head, tmp_path, np.rint(strange).clip(-1024).astype(np.int16), count=count)
        found = outcome(predictor, tmp_path)
        assert found.reading is not None
        findings = found.reading.findings
        assert [one.source for one in found.rejected] == [f"IM{index:04d}.dcm" for index in range(6, 6 + count)]
        assert {one.code for one in found.rejected} == {"implausible_hounsfield" if kind == "noise" else "sheet"}
        assert (len(findings.slices), findings.state) == (24 - count, state)
        assert "slices_refused" in {note.code for note in findings.quality}
        assert [one.count for one in findings.unread] == [count]

    def test_a_series_of_mostly_noise_is_refused(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).normal(0, 400, (96, 96)).clip(-1024).astype(np.int16)
        self.write(head, tmp_path, noise, count=16)
        found = outcome(predictor, tmp_path)
        assert found.reading is None
        assert [one.code for one in found.rejected] == ["implausible_hounsfield"]
        assert "16 of 24 slices" in found.rejected[0].message


class TestFewWrongSlices:
    """Pictures of a display window between good slices of one series."""

    def write(self, head: Phantom, folder: Path, *, count: int) -> None:
        mixed = head.hounsfield.copy()
        mixed[12 : 12 + count] = mixed[12 : 12 + count].clip(-20, 60)
        write_series(mixed, folder, spacing_mm=(5.0, 2.4, 2.4))

    @pytest.mark.parametrize(("count", "state"), [(1, "complete"), (2, "incomplete")])
    def test_are_refused_by_name_and_the_rest_is_read(
        self, predictor: Predictor, head: Phantom, tmp_path: Path, count: int, state: str
    ) -> None:
        self.write(head, tmp_path, count=count)
        found = outcome(predictor, tmp_path)
        assert found.reading is not None
        findings = found.reading.findings
        assert [one.source for one in found.rejected] == [f"IM{index:04d}.dcm" for index in range(13, 13 + count)]
        assert all("display window" in one.message for one in found.rejected)
        assert (len(findings.slices), findings.state) == (24 - count, state)
        (note,) = [note.message for note in findings.quality if note.code == "slices_refused"]
        assert note.startswith(f"{count} of 24 slices have values that are not Hounsfield units")

    def test_are_too_many_beyond_a_tenth(self, predictor: Predictor, head: Phantom, tmp_path: Path) -> None:
        self.write(head, tmp_path, count=3)
        found = outcome(predictor, tmp_path)
        assert found.reading is None
        assert [one.code for one in found.rejected] == ["implausible_hounsfield"]


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
