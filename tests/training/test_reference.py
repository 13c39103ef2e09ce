"""The reference experiment, slice and sequence network together, overfits 32 slices and exports them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hemoscope.data.cache import Cache, open_cache, write_manifest, write_series
from hemoscope.inference.card import TrainingData
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.experiment import read_experiment
from hemoscope.training.export import export_run
from hemoscope.training.train import train

REFERENCE = Path(__file__).resolve().parents[2] / "src/hemoscope/experiments/reference.toml"
STILL = ("flip", "rotation", "scale", "shift", "gain", "offset", "noise", "blur")
BY_HEART = (
    'run.init="none"',
    "run.held_out=[]",
    "run.folds=0",
    "network.head=pooled",
    "network.backbone=test_efficientnet",
    "run.batch_size=16",
    "run.epochs=20",
    "preprocessing.size=64",
    "reading.size=64",
    'sampling={kind="all", pasted=0.0, made=0.0}',
    "loss.map=0.0",
    "loss.dice=0.0",
    "optimizer.learning_rate=0.01",
    "optimizer.ema=0.0",
    "sequence.epochs=60",
    "sequence.batch_series=4",
    "sequence.learning_rate=0.01",
    "sequence.dropout=0.0",
    "sequence.views=0",
    *(f"augment.{name}=0.0" for name in STILL),
)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Eight patients, four slices each; every second bleeds with two types."""
    folder = tmp_path_factory.mktemp("heads")
    rows: list[dict[str, Any]] = []
    for number in range(8):
        bleeds = frozenset({SUBTYPES[number // 2], SUBTYPES[(number // 2 + 1) % 5]}) if number % 2 else frozenset()
        phantom = make_phantom(seed=number, shape=(4, 64, 64), bleeds=bleeds)
        write_series(folder, f"h{number}", hounsfield=np.array(phantom.hounsfield), spacing_mm=(5.0, 1.0, 1.0))
        for index, labels in enumerate(phantom.slice_labels):
            ids = dict.fromkeys(("patient_id", "study_id", "series_id"), f"h{number}")
            known = {label.value: int(shown) for label, shown in zip(LABELS, labels, strict=True)}
            rows.append({"image_id": f"h{number}_{index}", **ids, "index": index, "masked": False, **known})
    data = TrainingData(name="heads", version="1", doi="none", license="none", attribution="made", changes="none")
    write_manifest(folder, rows, data)
    return open_cache(folder)


def losses(path: Path) -> list[dict[str, float]]:
    """What was measured, one row an epoch."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def learned(heads: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "by-heart"
    train(read_experiment(REFERENCE, BY_HEART), heads, run)
    return run


def test_it_overfits_32_slices_end_to_end(learned: Path) -> None:
    slices = losses(learned / "final/metrics.jsonl")
    series = losses(learned / "final/sequence/metrics.jsonl")
    assert slices[-1]["train/loss"] < 0.2
    assert series[-1]["train/slices"] < 0.02
    assert series[-1]["train/studies"] < 0.02
    assert series[-1]["train/slices"] < 0.2 * series[0]["train/slices"]  # it goes on where the slice network ended


@pytest.mark.slow
def test_its_own_network_overfits_them_too(heads: Cache, tmp_path: Path) -> None:
    swapped = ("network.", "run.init", "run.epochs", "optimizer.learning_rate")
    changes = [change for change in BY_HEART if not change.startswith(swapped)]
    train(read_experiment(REFERENCE, [*changes, "run.epochs=40"]), heads, tmp_path / "run")
    series = losses(tmp_path / "run/final/sequence/metrics.jsonl")
    assert losses(tmp_path / "run/final/metrics.jsonl")[-1]["train/loss"] < 0.1
    assert series[-1]["train/slices"] < 0.02
    assert series[-1]["train/studies"] < 0.02


def test_a_run_on_one_split_ships_what_it_scored(heads: Cache, tmp_path: Path) -> None:
    changes = ['run.split="patient"', "run.validation=0.25", "run.test=0.25", "run.epochs=2", "sequence.epochs=2"]
    train(read_experiment(REFERENCE, [*BY_HEART, *changes]), heads, tmp_path / "run")
    bundle = export_run(tmp_path / "run", tmp_path / "bundle", version="1")
    assert bundle.card.sequence is not None
    assert bundle.read_sequence()
    predictor = Predictor(bundle, threads=1)
    slices, studies = (pd.read_csv(tmp_path / f"run/split/{name}-test.csv") for name in ("scores", "studies"))
    columns = [f"logit_{label}" for label in LABELS]
    assert len(studies) == 2
    for _, study in studies.iterrows():
        served, _ = predictor.probabilities(heads.read_series(study["series_id"]).volume)
        expected = slices[slices["patient_id"] == study["patient_id"]][columns].to_numpy()
        assert np.abs(served.slice_logits - expected).max() < 1e-3
        assert np.abs(served.study_logits - study[columns].to_numpy(dtype=float)).max() < 1e-3
