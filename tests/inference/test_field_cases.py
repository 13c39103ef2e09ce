"""Inputs that were once read wrongly, each standing for a kind of fault: what is read of them now.

The files (``field-cases`` in the folder of real data) are phantoms; ``tests/dicom/test_stacks.py`` builds their kinds.
"""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hemoscope.dicom.archive import Archive, open_archive, read_series
from hemoscope.dicom.series import Series
from hemoscope.dicom.series_choice import choose_series
from hemoscope.inference.findings import Triage
from hemoscope.inference.inputs import load_model
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.study_reading import StudyReading

pytestmark = pytest.mark.shared_data


@pytest.fixture
def opened(shared_data_dir: Path, tmp_path: Path) -> Callable[[str], Archive]:
    def open_case(name: str) -> Archive:
        source = shared_data_dir / "field-cases" / f"{name}.zip"
        if not source.is_file():
            pytest.skip("no field-cases folder in the shared data")
        with zipfile.ZipFile(source) as zipped:
            zipped.extractall(tmp_path / name)
        return open_archive(tmp_path / name)

    return open_case


def read_of(archive: Archive) -> Series:
    (study,) = archive.studies
    return choose_series(study).series


def codes(series: Series) -> set[str]:
    return {note.code for note in series.quality}


@pytest.mark.parametrize(
    ("name", "slices", "noted"),
    [
        ("one_sop_uid", 24, {"repeated_uid"}),
        ("bone_and_soft_one_series", 24, set()),
        ("two_passes_interleaved", 24, {"overlapping_stacks"}),
        ("sequential_acquisitions", 24, set()),
        ("orientation_jitter", 24, {"gantry_tilt"}),
        ("orientation_at_rounding_edge", 28, {"gantry_tilt"}),
        ("thin_then_thick", 92, {"uneven_spacing"}),
        ("two_thickness_5_10", 20, {"uneven_spacing"}),
        ("slice_location_only", 24, {"positions_unknown"}),
        ("perfusion_4d_8x10", 16, {"dynamic_series", "few_slices"}),
        ("prone", 24, set()),
    ],
)
def test_the_right_slices_are_read_in_order(
    opened: Callable[[str], Archive], name: str, slices: int, noted: set[str]
) -> None:
    series = read_of(opened(name))
    assert len(series) == slices
    assert codes(series) == noted
    assert series.unread == ()
    places = [
        header.slice_location_mm if header.position_mm is None else header.position_mm[2] for header in series.headers
    ]
    assert all(after > before for before, after in pairwise(places))


def test_each_patient_is_a_study(opened: Callable[[str], Archive]) -> None:
    studies = opened("two_patients_one_series").studies
    assert [{header.patient_id for header in study.series[0].headers} for study in studies] == [{"A"}, {"B"}]
    assert [len(study.series[0]) for study in studies] == [24, 24]


def test_the_soft_kernel_is_read_alone(opened: Callable[[str], Archive]) -> None:
    series = read_of(opened("bone_and_soft_one_series"))
    assert {header.convolution_kernel for header in series.headers} == {"H31s"}


def test_one_pass_is_read(opened: Callable[[str], Archive]) -> None:
    assert len({header.acquisition[0] for header in read_of(opened("two_passes_interleaved")).headers}) == 1


@pytest.mark.parametrize(("name", "slices"), [("mip_preferred", 110), ("mip_beside_plain", 28)])
def test_a_projection_ranks_last(opened: Callable[[str], Archive], name: str, slices: int) -> None:
    (study,) = opened(name).studies
    choice = choose_series(study)
    assert len(choice.series) == slices
    assert [reason for _, reason, _ in choice.skipped] == ["a projection or a computed image"]


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load_model(threads=1, precision="float32")


def reading(model: Predictor, archive: Archive, study: int = 0) -> StudyReading:
    series = choose_series(archive.studies[study]).series
    return model.read(read_series(archive, series))


@pytest.mark.slow
class TestAnswers:
    @pytest.mark.parametrize("name", ["one_sop_uid", "bone_and_soft_one_series", "slice_location_only"])
    def test_the_bleed_is_found(self, model: Predictor, opened: Callable[[str], Archive], name: str) -> None:
        found = reading(model, opened(name)).findings
        assert found.probabilities["any"] >= 0.9
        assert (found.triage, found.complete) == (Triage.IMMEDIATE, True)

    def test_the_bleed_of_the_second_patient_is_found(self, model: Predictor, opened: Callable[[str], Archive]) -> None:
        found = reading(model, opened("two_patients_one_series"), study=1).findings
        assert found.probabilities["any"] > 0.85
        assert found.triage is Triage.IMMEDIATE

    def test_sequential_slices_stay_one_head(self, model: Predictor, opened: Callable[[str], Archive]) -> None:
        assert reading(model, opened("sequential_acquisitions")).findings.probabilities["any"] >= 0.5

    def test_a_prone_head_has_the_answer_of_a_supine_one(
        self, model: Predictor, opened: Callable[[str], Archive]
    ) -> None:
        prone = reading(model, opened("prone"))
        supine = model.read(
            replace(
                prone.volume,
                hounsfield=np.ascontiguousarray(prone.volume.hounsfield[:, ::-1, ::-1]),
                orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                origins_mm=None,
            )
        )
        found, expected = prone.probabilities, supine.probabilities
        np.testing.assert_allclose(found.slice_probabilities, expected.slice_probabilities, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.study_probabilities, expected.study_probabilities, rtol=0, atol=1e-6)

    def test_thick_slices_above_thin_ones_score_as_alone(
        self, model: Predictor, opened: Callable[[str], Archive]
    ) -> None:
        whole = reading(model, opened("thin_then_thick"))
        volume = whole.volume
        thick = [index for index, mm in enumerate(volume.thickness_mm or ()) if mm == 5.0]
        alone = model.read(
            replace(
                volume,
                hounsfield=np.ascontiguousarray(volume.hounsfield[thick]),
                spacing_mm=(5.0, *volume.spacing_mm[1:]),
                positions_mm=tuple(volume.positions_mm[index] for index in thick),
                origins_mm=None,
                thickness_mm=None,
            )
        )
        assert alone.probabilities.study_probabilities[0] == pytest.approx(0.26, abs=0.02)
        logits = whole.probabilities.slice_logits
        np.testing.assert_allclose(logits[thick], alone.probabilities.slice_logits, rtol=0, atol=1e-6)
        # The study of both scores higher because thin slices below show blood too: its score is the mean of the five
        # highest bins, each a thick slice or five thin ones.
        thin = logits[[index for index in range(len(volume)) if index not in thick]].reshape(-1, 5, 6).mean(axis=1)
        bins = np.sort(np.concatenate([thin, logits[thick]]), axis=0)[-5:]
        np.testing.assert_allclose(whole.probabilities.study_logits, bins.mean(axis=0), rtol=0, atol=1e-6)
        assert 0.26 < whole.findings.probabilities["any"] < 0.4
        assert whole.findings.triage is not Triage.ROUTINE
