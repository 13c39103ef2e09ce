"""What a reading gives to its reader: heat maps on the slice, tables, and NIfTI files that lie over each other."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hemoscope.errors import GeometryError, MissingExtraError
from hemoscope.inference import data_frames
from hemoscope.inference.predictor import Prediction, Predictor, StudyReading
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.nifti import read_nifti
from hemoscope.testing.phantom import make_phantom

SHAPE = (6, 80, 64)


@pytest.fixture(scope="module")
def reading(predictor: Predictor) -> StudyReading:
    head = make_phantom(seed=6, shape=SHAPE, spacing_mm=(5.0, 2.6, 2.6), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    return predictor.read(head.volume, maps=True)


class TestHeatMap:
    def test_it_has_the_slices_size_and_is_hot_inside_the_box_alone(self, reading: StudyReading) -> None:
        laid = reading.heat_map("subdural", 3)
        assert (laid.shape, laid.dtype) == (SHAPE[1:], np.float32)
        assert 0.0 <= laid.min() <= laid.max() <= 1.0
        box = reading.box(3)
        outside = np.ones(laid.shape, dtype=bool)
        outside[max(box.top, 0) : box.top + box.side, max(box.left, 0) : box.left + box.side] = False
        assert laid[~outside].min() > 0.0
        assert (laid[outside] == 0.0).all()

    @pytest.mark.parametrize("label", LABELS)
    def test_labels_go_by_name_or_member(self, reading: StudyReading, label: Hemorrhage) -> None:
        np.testing.assert_array_equal(reading.heat_map(label.value, 0), reading.heat_map(label, 0))

    def test_without_maps_the_error_says_how_to_keep_them(self, reading: StudyReading) -> None:
        with pytest.raises(ValueError, match="read it with maps=True"):
            replace(reading, maps=None).heat_map("any", 0)

    def test_an_unknown_label_or_slice_is_an_error(self, reading: StudyReading) -> None:
        with pytest.raises(ValueError, match="bruise"):
            reading.heat_map("bruise", 0)
        for index in (-1, SHAPE[0]):
            with pytest.raises(IndexError, match=f"slice {index} of a volume of 6"):
                reading.heat_map("any", index)


class TestTables:
    def test_a_study_has_a_row_a_slice(self, reading: StudyReading) -> None:
        table = reading.to_pandas()
        assert list(table.index) == list(range(SHAPE[0]))
        assert list(table["frame"]) == list(range(SHAPE[0]))
        assert list(table["position_mm"]) == list(reading.volume.positions_mm)
        columns = [label.value for label in LABELS]
        np.testing.assert_array_equal(table[columns].to_numpy(), reading.probabilities.slice_probabilities)

    def test_a_prediction_has_a_row_a_study(self, reading: StudyReading) -> None:
        table = Prediction(studies=(reading, reading), rejected=()).to_pandas()
        assert len(table) == 2
        first = table.iloc[0]
        assert first["study_instance_uid"] == reading.findings.study_instance_uid
        assert first["triage"] == reading.findings.triage.value
        assert first["state"] == "incomplete", "a few slices are not a head"
        for finding in reading.findings.findings:
            assert first[finding.label.value] == finding.probability
            assert first[f"{finding.label.value}_present"] == finding.present

    def test_nothing_read_is_an_empty_table_with_its_columns(self) -> None:
        table = Prediction(studies=(), rejected=()).to_pandas()
        assert len(table) == 0
        assert "any_present" in table.columns

    def test_without_pandas_the_extra_is_named(self, reading: StudyReading, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(data_frames, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"pip install 'hemoscope\[study\]'"):
            reading.to_pandas()


class TestNifti:
    def test_the_volume_comes_back(self, reading: StudyReading, tmp_path: Path) -> None:
        reading.to_nifti(tmp_path / "head.nii.gz")
        found = read_nifti(tmp_path / "head.nii.gz")
        np.testing.assert_array_equal(found.hounsfield, reading.volume.hounsfield)
        np.testing.assert_allclose(found.affine, reading.affine, atol=1e-4)

    def test_a_heat_map_lies_over_it(self, reading: StudyReading, tmp_path: Path) -> None:
        reading.to_nifti(tmp_path / "head.nii")
        reading.to_nifti(tmp_path / "heat.nii", heat_map="subdural")
        head, heat = nib.load(tmp_path / "head.nii"), nib.load(tmp_path / "heat.nii")
        np.testing.assert_array_equal(heat.affine, head.affine)
        assert heat.shape == head.shape == SHAPE[::-1]
        np.testing.assert_array_equal(np.asarray(heat.dataobj)[:, :, 2].T, reading.heat_map("subdural", 2))

    def test_without_an_affine_nothing_is_written(self, reading: StudyReading, tmp_path: Path) -> None:
        unknown = replace(reading, volume=replace(reading.volume, origins_mm=None))
        with pytest.raises(GeometryError):
            unknown.to_nifti(tmp_path / "head.nii")
        assert not list(tmp_path.iterdir())
