"""A run that was killed at any moment resumes to exactly the same weights."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hemoscope.cli import main
from hemoscope.data.cache import Cache
from hemoscope.training import train as train_module
from hemoscope.training.callbacks import KeepCheckpoint, read_metrics
from hemoscope.training.experiment import Experiment
from hemoscope.training.lightning_module import TrainingModule
from hemoscope.training.train import train

Build = Callable[..., Experiment]


class KilledError(Exception):
    """Stands for a power cut."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums in one order, so that weights can be compared closely."""
    torch.set_num_threads(1)


def same_weights(one: Path, other: Path) -> bool:
    """Equal but for float32's last digits; if the optimizer's state is lost, the averaged weights differ by 3e-6."""
    first, second = (load_file(run / "split" / "weights.safetensors") for run in (one, other))
    return list(first) == list(second) and all(torch.allclose(first[name], second[name], 5e-7, 1e-7) for name in first)


def kill_after_batches(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """End training after this many batches of this process, right after the checkpoint that belongs there."""
    save, seen = KeepCheckpoint.on_train_batch_end, [0]

    def saved(self: KeepCheckpoint, trainer: lightning.Trainer, *rest: Any) -> None:
        save(self, trainer, *rest)
        seen[0] += 1
        if seen[0] == batches:
            raise KilledError

    monkeypatch.setattr(KeepCheckpoint, "on_train_batch_end", saved)


def split_run(build: Build, **run: Any) -> Experiment:
    """Twelve slices to learn from in batches of two, validation after each epoch, all that has state switched on."""
    tables = {"epochs": 3, "batch_size": 2, "split": "patient", "validation": 0.34, "test": 0.17, "early_stop": 3}
    return build(
        run={**tables, "checkpoint_steps": 1, **run},
        sampling={"kind": "all"},
        optimizer={"ema": 0.9, "kind": "adam"},
    )


@pytest.fixture(scope="module")
def runs_of() -> dict[str, Path]:
    """Runs that were never interrupted, one for each kind of experiment."""
    return {}


def whole(
    runs_of: dict[str, Path], experiment: Experiment, cache: Cache, factory: pytest.TempPathFactory, name: str
) -> Path:
    if name not in runs_of:
        runs_of[name] = factory.mktemp("whole") / name
        train(experiment, cache, runs_of[name])
    return runs_of[name]


KINDS: dict[str, dict[str, Any]] = {
    "each step": {},
    "every second step": {"checkpoint_steps": 2},
    "each epoch": {"checkpoint_steps": 0},
    "accumulating": {"accumulate": 2},
    "to a number of steps": {"max_steps": 7},
    "with workers": {"workers": 1},
}
# The first batch of a run, of an epoch and of none; an epoch's last; one after its step, one before.
MOMENTS = [("each step", batches) for batches in (1, 4, 5)]
MOMENTS += [("every second step", 7), ("each epoch", 5), ("accumulating", 5), ("accumulating", 6)]
MOMENTS += [("to a number of steps", 5), ("to a number of steps", 7), ("with workers", 5)]


@pytest.mark.parametrize(("kind", "batches"), MOMENTS)
def test_a_run_killed_after_any_batch_resumes_to_the_same_weights(
    kind: str,
    batches: int,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    phantom_cache: Cache,
    tiny_experiment: Build,
    runs_of: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = split_run(tiny_experiment, **KINDS[kind])
    expected = whole(runs_of, experiment, phantom_cache, tmp_path_factory, kind)
    with monkeypatch.context() as patch:
        kill_after_batches(patch, batches)
        with pytest.raises(KilledError):
            train(experiment, phantom_cache, tmp_path / "run")
    torch.rand(7)  # another process draws other numbers
    train(experiment, phantom_cache, tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "run", expected)
    ours, theirs = (read_metrics(run / "split" / "metrics.jsonl") for run in (tmp_path / "run", expected))
    assert [(row["epoch"], row["step"]) for row in ours] == [(row["epoch"], row["step"]) for row in theirs]
    losses = [[row.get("validation/loss", -1.0) for row in rows] for rows in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_run_that_stopped_early_and_was_killed_before_it_was_recorded_does_not_resume(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_experiment(
        run={"epochs": 9, "batch_size": 2, "split": "patient", "validation": 0.34, "test": 0.17, "early_stop": 2},
        sampling={"kind": "all"},
        optimizer={"ema": 0, "schedule": "constant", "learning_rate": 1e-9},
    )
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2])

    def measured(self: TrainingModule) -> None:
        self._seen.clear()
        self.log("validation/loss", next(losses))

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", measured)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_weights", power_cut)
        with pytest.raises(KilledError):
            train(experiment, phantom_cache, tmp_path / "run")
    (record,) = train(experiment, phantom_cache, tmp_path / "run", resume=True)
    assert (record.epochs, record.best_epoch) == (4, 1)
    split = tmp_path / "run" / "split"
    assert (split / "weights.safetensors").read_bytes() == (split / "best.safetensors").read_bytes()


def power_cut(*_: object) -> None:
    raise KilledError


KILLED = """
import os, signal, sys
from hemoscope.cli import main
from hemoscope.training.callbacks import KeepCheckpoint
save = KeepCheckpoint.on_train_batch_end
def saved(self, trainer, *rest):
    save(self, trainer, *rest)
    if trainer.global_step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
KeepCheckpoint.on_train_batch_end = saved
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_command_ended_by_kill_9_in_mid_epoch_is_resumed_to_the_same_weights(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    words = ["train", str(file), "--data", str(phantom_cache.folder), "--threads", "1", "--output"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words, str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "run" / "split" / "checkpoint" / "last.ckpt").is_dir()
    assert main([*words, str(tmp_path / "run"), "--resume"]) == 0
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    scores = [pd.read_csv(tmp_path / run / "split" / "scores-test.csv") for run in ("run", "whole")]
    pd.testing.assert_frame_equal(*scores, rtol=1e-4, atol=1e-4)


TINY = """
name = "tiny"
run = {epochs = 2, batch_size = 2, init = "none", split = "patient", test = 0.17, checkpoint_steps = 1}
network = {backbone = "test_efficientnet", width = 8, pooled = 4}
preprocessing = {size = 32}
sampling = {kind = "all"}
optimizer = {ema = 0.9}
"""
