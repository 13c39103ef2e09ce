"""Runs on one split: validated each epoch, scored on held-out images, and recorded with their split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hemoscope.data.cache import Cache
from hemoscope.errors import TrainingError
from hemoscope.inference.card import images_sha256
from hemoscope.training.data_splits import make_data_splits, split_record
from hemoscope.training.experiment import Experiment
from hemoscope.training.lightning_module import TrainingModule
from hemoscope.training.run_folder import read_split
from hemoscope.training.train import train

Build = Callable[..., Experiment]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny sums go slower on two."""
    torch.set_num_threads(1)


def patients_of(images: tuple[str, ...]) -> set[str]:
    return {image.split("_")[0] for image in images}


def split_experiment(build: Build, **run: Any) -> Experiment:
    return build(
        run={"split": "patient", "validation": 0.34, "test": 0.17, "batch_size": 2, **run}, sampling={"kind": "all"}
    )


def test_a_run_on_one_split_validates_each_epoch_and_scores_held_out_images(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    experiment = split_experiment(tiny_experiment)
    (split,) = make_data_splits(experiment, phantom_cache)
    (record,) = train(experiment, phantom_cache, runs / "split")
    folder = runs / "split" / "split"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["validation/loss"]) for row in rows)
    for name, images in (("scores-validation.csv", split.validation), ("scores-test.csv", split.test)):
        assert sorted(pd.read_csv(folder / name)["image_id"]) == sorted(images)
        assert not patients_of(images) & patients_of(split.train)
    assert (record.learned, record.validated, record.scored) == (9, 6, 3)
    assert record.best_epoch is None
    assert not (folder / "best.safetensors").exists()


def test_the_papers_split_is_scikit_learns_and_has_no_validation(phantom_cache: Cache, tiny_experiment: Build) -> None:
    from sklearn.model_selection import train_test_split

    experiment = tiny_experiment(run={"split": "slice"})
    (split,) = make_data_splits(experiment, phantom_cache)
    images = sorted(phantom_cache.manifest["image_id"])
    learn, score = train_test_split(images, test_size=0.1, random_state=257)
    assert (split.train, split.validation, split.test) == (tuple(learn), (), tuple(score))


def test_a_split_run_reads_back_how_it_was_split(runs: Path, phantom_cache: Cache, tiny_experiment: Build) -> None:
    for by in ("patient", "slice"):
        experiment = split_experiment(tiny_experiment, split=by, epochs=1)
        warnings: list[str] = []
        train(experiment, phantom_cache, runs / by, warn=warnings.append)
        record = read_split(runs / by)
        assert record == split_record(experiment, phantom_cache)
        assert record is not None
        assert record.images_sha256 == images_sha256(phantom_cache.manifest["image_id"].tolist())
        written = json.loads((runs / by / "split.json").read_text())
        assert ([written["warning"]] if written["warning"] else []) == warnings
        assert len(warnings) == (by == "slice")
        assert sum(written["images"].values()) == 18
    (runs / "slice" / "split.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"slice/split\.json does not describe the split"):
        read_split(runs / "slice")


def test_weights_of_the_best_epoch_are_kept_where_training_can_stop_early(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5])

    def measured(self: TrainingModule) -> None:
        self._seen.clear()
        self.log("validation/loss", next(losses))

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", measured)
    experiment = split_experiment(tiny_experiment, epochs=9, early_stop=2)
    (record,) = train(experiment, phantom_cache, runs / "early")
    assert (record.epochs, record.best_epoch) == (4, 1)
    folder = runs / "early" / "split"
    assert (folder / "weights.safetensors").read_bytes() == (folder / "best.safetensors").read_bytes()
