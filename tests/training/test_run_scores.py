"""Study scores of a run: the rule is applied to one series at a time, as in serving."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hemoscope.data.cache import Cache, open_cache, write_manifest, write_series
from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.probabilities import study_logits
from hemoscope.labels import LABELS
from hemoscope.training.experiment import Experiment
from hemoscope.training.export import export_run
from hemoscope.training.run_scores import SliceAndStudyScores, split_scores
from hemoscope.training.train import train

Build = Callable[..., Experiment]
RULE = StudyRule(extent_mm=10.0)
SPLIT = {"split": "patient", "validation": 0.0, "test": 0.3, "epochs": 1, "max_steps": 1}


@pytest.fixture(scope="session")
def thin_cache(phantom_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """The phantoms, each patient scanned twice, in slices of 2 mm: the second scan shows no bleed."""
    folder = tmp_path_factory.mktemp("thin")
    rows = []
    for patient, members in phantom_cache.manifest.groupby("patient_id"):
        volume = phantom_cache.read_series(str(patient)).volume.hounsfield
        for scan in ("a", "b"):
            series = f"{patient}{scan}"
            write_series(folder, series, hounsfield=np.array(volume), positions_mm=(-31.5, -29.5, -27.5))
            for row in members.to_dict("records"):
                labels = {label.value: row[label.value] if scan == "a" else 0 for label in LABELS}
                ids = {"image_id": f"{row['image_id']}{scan}", "series_id": series, "study_id": series}
                rows.append({**row, **ids, "masked": False, **labels})
    write_manifest(folder, rows, phantom_cache.dataset)
    return open_cache(folder)


@pytest.fixture(scope="session")
def run(thin_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "thin"


@pytest.fixture
def experiment(tiny_experiment: Build, thin_cache: Cache, run: Path) -> Experiment:
    found = tiny_experiment(run=SPLIT)
    if not run.exists():
        train(found, thin_cache, run)
    return replace(found, reading=replace(found.reading, extent_mm=10.0))


def of_test(run: Path, experiment: Experiment) -> SliceAndStudyScores:
    scored = split_scores(run, experiment, "test", RULE)
    assert scored is not None
    return scored


def test_two_scans_of_a_patient_are_two_studies_and_thin_slices_are_averaged_as_served(
    run: Path, experiment: Experiment
) -> None:
    scores = pd.read_csv(run / "split" / "scores-test.csv")
    assert sorted(set(scores["position_mm"])) == [-31.5, -29.5, -27.5]
    studies = of_test(run, experiment).studies
    patients = sorted(set(scores["patient_id"]))
    assert studies.patients == tuple(patient for patient in patients for _ in range(2))
    for row, series in enumerate(sorted(set(scores["series_id"]))):
        one = scores[scores["series_id"] == series]
        served = study_logits(one[[f"logit_{label}" for label in LABELS]], one["position_mm"].tolist(), RULE)
        assert np.allclose(studies.logits[row], served, rtol=1e-9)
    assert not studies.truth[1::2].any()


def test_the_card_names_studies_where_patients_have_several(run: Path, experiment: Experiment, tmp_path: Path) -> None:
    del experiment
    card = export_run(run, tmp_path / "bundle", version="1").card
    assert [table.name.rpartition("by ")[2] for table in card.scores] == ["slice", "study"]
    patients, images = (card.scores[1].n_patients, card.scores[1].n_images)
    assert images == 2 * patients


def test_a_run_scored_before_series_were_named_is_scored_by_patient(
    run: Path, experiment: Experiment, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(run, tmp_path / "old"))
    path = old / "split" / "scores-test.csv"
    pd.read_csv(path).drop(columns=["series_id", "position_mm"]).to_csv(path, index=False)
    studies = of_test(old, experiment).studies
    assert len(set(studies.patients)) == len(studies.patients)


def test_a_series_without_a_position_is_taken_as_nominally_spaced_and_the_others_keep_theirs(
    run: Path, experiment: Experiment, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    path = copy / "split" / "scores-test.csv"
    scores = pd.read_csv(path)
    one = scores["series_id"] == scores["series_id"].iloc[0]
    scores.loc[scores.index[one][0], "position_mm"] = np.nan
    scores.to_csv(path, index=False)
    places = of_test(copy, experiment).places
    assert places is not None
    assert places.assumed.tolist() == one.tolist()
    assert sorted(places.positions_mm[one]) == [0.0, RULE.nominal_spacing_mm, 2 * RULE.nominal_spacing_mm]
    assert set(places.positions_mm[~one]) == {-31.5, -29.5, -27.5}
