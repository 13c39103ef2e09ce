"""Finished folds are scored again: as they were, read otherwise, or by the mean of several runs."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from hemoscope.data.cache import Cache
from hemoscope.training.data_splits import make_data_splits
from hemoscope.training.dataset import PlainSlices
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.scoring import score_slices

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """``experiments/rescore.py`` as a module."""
    spec = importlib.util.spec_from_file_location("rescore", EXPERIMENTS / "rescore.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_run(tmp_path: Path, phantom_cache: Cache, tiny_experiment: Callable[..., Experiment]) -> Callable[[int], Path]:
    """``make_run(seed)``: a run of two folds with random weights, as training leaves it."""

    def build(seed: int) -> Path:
        experiment = tiny_experiment(run={"seed": seed})
        run = tmp_path / f"run-{seed}"
        for split in make_data_splits(experiment, phantom_cache)[:2]:
            (run / split.name).mkdir(parents=True)
            torch.manual_seed(seed)
            network = HemorrhageNetwork(experiment.network, channels=3, size=32)
            save_weights(network, run / split.name / "weights.safetensors")
            slices = PlainSlices(phantom_cache, split.test, experiment.reading_preprocessing)
            score_slices(network, slices, run / split.name / "scores.csv", mirror=True)
        (run / "experiment.json").write_text(json.dumps(experiment.to_json()))
        return run

    return build


def logits(run: Path, fold: str = "fold-0") -> np.ndarray:
    return pd.read_csv(run / fold / "scores.csv").filter(like="logit_").to_numpy()


def test_a_run_scores_as_it_did(
    script: ModuleType, make_run: Callable[[int], Path], phantom_cache: Cache, tmp_path: Path
) -> None:
    run = make_run(1)
    assert script.rescore([run], tmp_path / "again", data=phantom_cache.folder) == ["fold-0", "fold-1"]
    for fold in ("fold-0", "fold-1"):
        assert (tmp_path / "again" / fold / "scores.csv").read_text() == (run / fold / "scores.csv").read_text()


def test_the_scores_of_two_runs_are_averaged_from_files_as_from_networks(
    script: ModuleType, make_run: Callable[[int], Path], phantom_cache: Cache, tmp_path: Path
) -> None:
    runs = [make_run(1), make_run(2)]
    expected = (logits(runs[0]) + logits(runs[1])) / 2
    assert abs(logits(runs[0]) - logits(runs[1])).max() > 0.01
    for name, data in (("files", None), ("networks", phantom_cache.folder)):
        script.rescore(runs, tmp_path / name, data=data)
        assert logits(tmp_path / name) == pytest.approx(expected, abs=1e-4)


def test_the_mean_of_weights_is_not_the_mean_of_scores(
    script: ModuleType, make_run: Callable[[int], Path], phantom_cache: Cache, tmp_path: Path
) -> None:
    first, second = make_run(1), make_run(2)
    script.rescore([first, first], tmp_path / "same", data=phantom_cache.folder, mean="weights")
    assert logits(tmp_path / "same") == pytest.approx(logits(first), abs=1e-4)
    script.rescore([first, second], tmp_path / "both", data=phantom_cache.folder, mean="weights")
    assert abs(logits(tmp_path / "both") - (logits(first) + logits(second)) / 2).max() > 1e-3


def test_a_run_can_be_read_at_another_size_and_the_record_says_so(
    script: ModuleType, make_run: Callable[[int], Path], phantom_cache: Cache, tmp_path: Path
) -> None:
    run, changes = make_run(1), ["reading.size=64", "reading.mirror=false"]
    script.rescore([run], tmp_path / "larger", data=phantom_cache.folder, changes=changes)
    assert abs(logits(tmp_path / "larger") - logits(run)).max() > 1e-3
    reading = json.loads((tmp_path / "larger" / "experiment.json").read_text())["reading"]
    assert (reading["size"], reading["mirror"]) == (64, False)


def test_what_needs_another_training_is_refused(
    script: ModuleType, make_run: Callable[[int], Path], phantom_cache: Cache, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="needs another training"):
        script.rescore([make_run(1)], tmp_path / "out", data=phantom_cache.folder, changes=["network.width=32"])
    with pytest.raises(SystemExit, match="--data CACHE"):
        script.rescore([make_run(2)], tmp_path / "out", data=None, changes=["reading.size=64"])
