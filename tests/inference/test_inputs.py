"""Paths in, predictions out: DICOM and NIfTI through one chain, with the same result, and nothing refused is lost."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import SeriesError
from hemoscope.inference.inputs import load_model, nifti_studies, predict, split_inputs
from hemoscope.inference.predictor import Predictor, StudyReading
from hemoscope.labels import Hemorrhage
from hemoscope.nifti import write_nifti
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import Phantom, make_phantom


@pytest.fixture(scope="module")
def head() -> Phantom:
    return make_phantom(seed=5, shape=(12, 96, 80), spacing_mm=(5.0, 2.4, 2.4), bleeds=frozenset({Hemorrhage.EPIDURAL}))


@pytest.fixture
def folder(head: Phantom, tmp_path: Path) -> Path:
    write_series(head, tmp_path / "dicom")
    return tmp_path / "dicom"


@pytest.fixture
def volume(head: Phantom, tmp_path: Path) -> Path:
    write_nifti(tmp_path / "head.nii.gz", head.hounsfield, head.volume.affine)
    return tmp_path / "head.nii.gz"


def converted(folder: Path, output: Path, tool: Path) -> list[Path]:
    """What dcm2niix makes of a folder."""
    output.mkdir()
    words = [str(tool), "-z", "y", "-b", "n", "-f", "head", "-o", str(output), str(folder)]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    return sorted(output.glob("*.nii.gz"))


def assert_same_probabilities(one: StudyReading, other: StudyReading) -> None:
    for name in ("slice_probabilities", "study_probabilities"):
        np.testing.assert_array_equal(getattr(one.probabilities, name), getattr(other.probabilities, name))


def test_one_path_or_several_of_dicom_and_nifti_are_read(predictor: Predictor, folder: Path, volume: Path) -> None:
    (dicom,) = predict(str(folder), model=predictor).studies
    both = predict([folder, str(volume)], model=predictor, maps=True)
    assert len(both.studies) == 2
    assert both.rejected == ()
    for reading in both.studies:
        assert_same_probabilities(reading, dicom)
        assert reading.maps is not None


def test_what_is_refused_stands_beside_what_was_read(predictor: Predictor, folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    (tmp_path / "bad.nii").write_bytes(b"no image")
    prediction = predict([folder, tmp_path / "bad.nii", tmp_path / "none"], model=predictor)
    assert len(prediction.studies) == 1
    assert {(one.source, one.code) for one in prediction.rejected} == {
        ("notes.txt", "not_dicom"),
        ("none", "unreadable"),
        ("bad.nii", "bad_nifti"),
    }
    assert all(str(tmp_path) not in one.message for one in prediction.rejected)


def test_progress_is_shown_from_the_first_file_to_the_last_slice(
    predictor: Predictor, folder: Path, volume: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    predict([folder, volume], model=predictor, progress=lambda *step: seen.append(step))
    assert seen[0] == ("indexing", 1, 12)
    assert seen.count(("scoring", 12, 12)) == 2


def test_a_series_is_asked_of_dicom_alone(predictor: Predictor, folder: Path, volume: Path) -> None:
    uid = open_archive(folder).studies[0].series[0].series_instance_uid
    assert len(predict(folder, model=predictor, series_instance_uid=uid).studies) == 1
    with pytest.raises(SeriesError, match=r"head\.nii\.gz has no DICOM series"):
        predict([folder, volume], model=predictor, series_instance_uid=uid)


def test_a_model_is_loaded_from_its_folder(tiny_bundle: Path) -> None:
    model = load_model(str(tiny_bundle), threads=1)
    assert (model.bundle.card.name, model.engine.threads) == ("tiny", 1)


def test_nifti_goes_by_its_name_and_folders_are_dicom(tmp_path: Path) -> None:
    (tmp_path / "odd.nii").mkdir()
    paths = [tmp_path / name for name in ("a.NII.GZ", "b.nii", "odd.nii", "c.dcm")]
    dicom, volumes = split_inputs(paths)
    assert [path.name for path in volumes] == ["a.NII.GZ", "b.nii"]
    assert [path.name for path in dicom] == ["odd.nii", "c.dcm"]


@pytest.mark.reference_tool("dcm2niix")
class TestConverted:
    def test_dcm2niix_gives_the_probabilities_of_its_dicom(
        self, predictor: Predictor, folder: Path, tmp_path: Path, reference_tool: Callable[[str], Path]
    ) -> None:
        (path,) = converted(folder, tmp_path / "nifti", reference_tool("dcm2niix"))
        (dicom,) = predict(folder, model=predictor).studies
        (nifti,) = predict(path, model=predictor).studies
        np.testing.assert_array_equal(nifti.volume.hounsfield, dicom.volume.hounsfield)
        np.testing.assert_allclose(nifti.affine, dicom.affine, atol=1e-3)
        assert_same_probabilities(nifti, dicom)

    @pytest.mark.parametrize("degrees", [-12.0, 18.0])
    def test_a_tilted_series_is_read_without_its_correction(
        self, predictor: Predictor, head: Phantom, degrees: float, tmp_path: Path, reference_tool: Callable[[str], Path]
    ) -> None:
        write_series(head, tmp_path / "dicom", acquisition=Acquisition(gantry_tilt_degrees=degrees))
        paths = converted(tmp_path / "dicom", tmp_path / "nifti", reference_tool("dcm2niix"))
        assert ["Tilt" in path.name for path in paths] == [False, True]
        (dicom,) = predict(tmp_path / "dicom", model=predictor).studies
        plain, corrected = predict(paths, model=predictor).studies
        np.testing.assert_array_equal(plain.volume.hounsfield, dicom.volume.hounsfield)
        np.testing.assert_array_equal(plain.probabilities.slice_probabilities, dicom.probabilities.slice_probabilities)
        assert "gantry_tilt" in {note.code for note in plain.findings.quality}
        np.testing.assert_allclose(
            corrected.probabilities.study_probabilities, dicom.probabilities.study_probabilities, atol=0.05
        )

    @pytest.mark.shared_data
    def test_a_whole_head_of_rsna_is_no_other_as_nifti(
        self, shared_data_dir: Path, tmp_path: Path, reference_tool: Callable[[str], Path]
    ) -> None:
        archive = open_archive(shared_data_dir / "rsna-dicom" / "images")
        whole = max(archive.studies, key=lambda study: len(study.series[0]))
        assert len(whole.series[0]) == 36
        for header in whole.series[0].headers:
            source = shared_data_dir / "rsna-dicom" / "images" / header.source
            (tmp_path / "dicom").mkdir(exist_ok=True)
            shutil.copy(source, tmp_path / "dicom")
        (path, *_) = converted(tmp_path / "dicom", tmp_path / "nifti", reference_tool("dcm2niix"))
        model = load_model(threads=1)
        (dicom,) = predict(tmp_path / "dicom", model=model).studies
        (nifti,) = nifti_studies(model, [path])
        assert nifti.reading is not None
        found, expected = nifti.reading.volume.hounsfield, dicom.volume.hounsfield
        np.testing.assert_array_equal(found.clip(min=-1000), expected.clip(min=-1000))
        # This series has padding of -2048 that no tag names: air in the NIfTI file, as stored in DICOM.
        for name in ("slice_probabilities", "study_probabilities"):
            one, other = (getattr(reading.probabilities, name) for reading in (nifti.reading, dicom))
            np.testing.assert_allclose(one, other, atol=0.005)
        assert nifti.reading.findings.triage == dicom.findings.triage


def test_the_limits_of_reading_can_be_lowered_and_raised(predictor: Predictor, folder: Path) -> None:
    few = predict(folder, model=predictor, limits=ReadLimits(members=3))
    assert (few.studies, [refused.code for refused in few.rejected]) == ((), ["too_large"])
    assert "more files than the limit members = 3" in few.rejected[0].message
    assert len(predict(folder, model=predictor, limits=ReadLimits(members=12)).studies) == 1
