"""Training from scratch, again, and after a kill: always the same weights."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hemoscope.data.cache import Cache, open_cache
from hemoscope.errors import ConfigError, TrainingError
from hemoscope.labels import LABELS
from hemoscope.training import train as train_module
from hemoscope.training.callbacks import MetricsFile
from hemoscope.training.data_splits import make_data_splits
from hemoscope.training.dataset import PlainSlices
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.training.models.checkpoint import load_weights
from hemoscope.training.models.network import HemorrhageNetwork, MirroredNetwork
from hemoscope.training.train import train

Build = Callable[..., Experiment]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums in one order, so that weights can be compared closely."""
    torch.set_num_threads(1)


def weights(run: Path, part: str) -> dict[str, torch.Tensor]:
    return dict(load_file(run / part / "weights.safetensors"))


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal but for float32's last digits; if the optimizer's state is lost, the averaged weights differ by 3e-6."""
    return list(one) == list(other) and all(torch.allclose(one[name], other[name], 5e-7, 1e-7) for name in one)


def same_scores(one: Path, other: Path) -> bool:
    """The same images in the same order, with the same logits but for rounding."""
    first, second = (pd.read_csv(path) for path in (one, other))
    logits = [f"logit_{label}" for label in LABELS]
    computed = [*logits, "peak_distance_px"]
    ids = first.drop(columns=computed).equals(second.drop(columns=computed))
    return ids and np.allclose(first[logits], second[logits], rtol=1e-4, atol=1e-4)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def epochs_of(run: Path, part: str) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / part / "metrics.jsonl").read_text().splitlines()]


def patients_of(images: tuple[str, ...]) -> set[str]:
    return {image.split("_")[0] for image in images}


class KilledError(Exception):
    """Stands for a power cut."""


def kill_after_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """End training at the start of the epoch after this one, its checkpoint written."""

    def stop(self: MetricsFile, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.current_epoch > epoch:
            raise KilledError

    monkeypatch.setattr(MetricsFile, "on_train_epoch_start", stop)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, phantom_cache: Cache) -> Path:
    """Two folds and the final network, two epochs each, never interrupted. Do not write into it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(TINY, phantom_cache, folder)
    return folder


TINY = parse_experiment(
    {
        "name": "tiny",
        "run": {"epochs": 2, "batch_size": 4, "folds": 2, "init": "none", "held_out": ["p5"]},
        "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
        "preprocessing": {"size": 32},
        "sampling": {"negatives": 1.0},
    },
    where="the test",
)


def test_every_patient_is_scored_by_one_fold_that_never_saw_it(phantom_cache: Cache) -> None:
    *folds, final = make_data_splits(TINY, phantom_cache)
    assert [part.name for part in folds] == ["fold-0", "fold-1"]
    everything = sorted(f"p{patient}_{index}" for patient in range(6) for index in range(3))
    assert sorted(image for part in folds for image in part.test) == everything
    for part in folds:
        assert not patients_of(part.test) & patients_of(part.train)
        assert sorted([*part.test, *part.train]) == everything
        assert part.validation == ()
    assert (final.name, final.test, final.validation) == ("final", (), ())
    assert sorted(final.train) == [image for image in everything if not image.startswith("p5")]


def test_without_folds_only_the_final_network_is_trained(phantom_cache: Cache, tiny_experiment: Build) -> None:
    assert [part.name for part in make_data_splits(tiny_experiment(run={"folds": 0}), phantom_cache)] == ["final"]


def test_a_run_leaves_a_record_weights_scores_and_logs(whole_run: Path) -> None:
    assert parse_experiment(json.loads((whole_run / "experiment.json").read_text()), where="record") == TINY
    versions = json.loads((whole_run / "versions.json").read_text())
    assert {"hemoscope", "python", "torch", "timm", "lightning", "numpy"} <= set(versions)
    for part in ("fold-0", "fold-1", "final"):
        names = {path.name for path in (whole_run / part).iterdir()}
        assert {"weights.safetensors", "metrics.jsonl", "checkpoint", "tensorboard"} <= names
        assert ("scores.csv" in names) == (part != "final")
        assert list((whole_run / part / "tensorboard").glob("events.out.tfevents.*"))
        assert epochs_of(whole_run, part) == [0, 1]
        assert [path.name for path in (whole_run / part / "checkpoint").iterdir()] == ["last.ckpt"]
    assert not same_weights(weights(whole_run, "fold-0"), weights(whole_run, "final"))


def test_metrics_hold_each_part_of_the_loss_once_an_epoch(whole_run: Path) -> None:
    rows = [json.loads(line) for line in (whole_run / "final" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [rows[0]["step"], 2 * rows[0]["step"]]
    for row in rows:
        parts = [row[f"train/{name}"] for name in ("scores", "map", "dice")]
        assert np.isfinite(parts).all()
        assert row["train/loss"] == pytest.approx(sum(parts), rel=1e-5)


def test_no_file_of_a_run_is_a_pickle_and_no_result_names_its_place(whole_run: Path) -> None:
    for name, content in contents(whole_run).items():
        assert not name.endswith((".pt", ".pth", ".pkl"))
        if name.endswith((".csv", ".jsonl", "experiment.json", "versions.json")):
            assert str(whole_run.parent).encode() not in content, name


def test_scores_are_those_of_the_mirrored_network_on_the_folds_own_patients(
    whole_run: Path, phantom_cache: Cache
) -> None:
    part = make_data_splits(TINY, phantom_cache)[1]
    network = HemorrhageNetwork(TINY.network, channels=3, size=32)
    load_weights(network, whole_run / part.name / "weights.safetensors")
    slices = PlainSlices(phantom_cache, part.test, TINY.preprocessing)
    scores = pd.read_csv(whole_run / part.name / "scores.csv")
    assert scores["image_id"].tolist() == slices.table["image_id"].tolist()
    assert sorted(scores["image_id"]) == sorted(part.test)
    with torch.inference_mode():
        expected = MirroredNetwork(network).eval()(torch.stack([slices[i] for i in range(len(slices))])).logits
    assert np.allclose(scores[[f"logit_{label}" for label in LABELS]], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_without_the_mirror_scores_are_those_of_the_slice_alone(
    whole_run: Path, runs: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    experiment = tiny_experiment(run={"held_out": ["p5"]}, reading={"mirror": False})
    part = make_data_splits(experiment, phantom_cache)[0]
    train(experiment, phantom_cache, runs / "one-look", only=(part.name,))
    assert same_weights(weights(runs / "one-look", part.name), weights(whole_run, part.name))
    network = HemorrhageNetwork(experiment.network, channels=3, size=32)
    load_weights(network, whole_run / part.name / "weights.safetensors")
    slices = PlainSlices(phantom_cache, part.test, experiment.reading_preprocessing)
    with torch.inference_mode():
        expected = network.eval()(torch.stack([slices[i] for i in range(len(slices))])).logits
    columns = [f"logit_{label}" for label in LABELS]
    scores, mirrored = (pd.read_csv(run / part.name / "scores.csv")[columns] for run in (runs / "one-look", whole_run))
    assert np.allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(scores, mirrored, rtol=1e-4, atol=1e-5)


def test_training_again_gives_the_same_weights_and_another_seed_others(
    whole_run: Path, runs: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    train(TINY, phantom_cache, runs / "again", only=("final",))
    assert same_weights(weights(runs / "again", "final"), weights(whole_run, "final"))
    other = tiny_experiment(run={"seed": 2, "held_out": ["p5"]})
    train(other, phantom_cache, runs / "other", only=("final",))
    assert not same_weights(weights(runs / "other", "final"), weights(whole_run, "final"))


def test_the_network_that_is_kept_is_the_average_and_not_the_last_step(
    whole_run: Path, runs: Path, phantom_cache: Cache
) -> None:
    plain = dataclasses.replace(TINY, optimizer=dataclasses.replace(TINY.optimizer, ema=0.0))
    train(plain, phantom_cache, runs / "plain", only=("final",))
    assert not same_weights(weights(runs / "plain", "final"), weights(whole_run, "final"))


def test_resuming_a_finished_run_does_nothing_twice(
    whole_run: Path, phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(train_module, "_fit", never)
    monkeypatch.setattr(train_module, "score_slices", never)
    before = contents(whole_run)
    train(TINY, phantom_cache, whole_run, resume=True)
    assert contents(whole_run) == before


def test_a_run_that_was_killed_resumes_to_exactly_the_same_weights(
    whole_run: Path, runs: Path, phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs / "killed"
    with monkeypatch.context() as patch:
        kill_after_epoch(patch, 0)
        with pytest.raises(KilledError):
            train(TINY, phantom_cache, run, only=("fold-0",))
    assert epochs_of(run, "fold-0") == [0]
    assert not (run / "fold-0" / "weights.safetensors").exists()
    torch.rand(7), np.random.default_rng().random()  # another process draws other numbers
    train(TINY, phantom_cache, run, only=("fold-0",), resume=True)
    assert epochs_of(run, "fold-0") == [0, 1]
    assert same_weights(weights(run, "fold-0"), weights(whole_run, "fold-0"))
    assert same_scores(run / "fold-0" / "scores.csv", whole_run / "fold-0" / "scores.csv")


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    whole_run: Path, runs: Path, phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs / "early"
    with monkeypatch.context() as patch:
        kill_after_epoch(patch, -1)
        with pytest.raises(KilledError):
            train(TINY, phantom_cache, run, only=("final",))
    train(TINY, phantom_cache, run, only=("final",), resume=True)
    assert same_weights(weights(run, "final"), weights(whole_run, "final"))


def test_a_run_that_was_moved_resumes_from_its_latest_checkpoint(
    runs: Path, phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch, tiny_experiment: Build
) -> None:
    experiment = tiny_experiment(run={"epochs": 3, "folds": 0})
    for epoch in (0, 1):
        with monkeypatch.context() as patch:
            kill_after_epoch(patch, epoch)
            with pytest.raises(KilledError):
                train(experiment, phantom_cache, runs / f"place-{epoch}", resume=epoch > 0)
        (runs / f"place-{epoch}").rename(runs / f"place-{epoch + 1}")
    train(experiment, phantom_cache, runs / "place-2", resume=True)
    assert epochs_of(runs / "place-2", "final") == [0, 1, 2]
    train(experiment, phantom_cache, runs / "at-once")
    assert same_weights(weights(runs / "place-2", "final"), weights(runs / "at-once", "final"))


def test_scores_that_were_lost_are_computed_again_without_training(
    whole_run: Path, phantom_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = whole_run / "fold-1" / "scores.csv"
    before = path.rename(tmp_path / "scores.csv")
    monkeypatch.setattr(train_module, "_fit", lambda *_: pytest.fail("trained again"))
    train(TINY, phantom_cache, whole_run, resume=True)
    assert same_scores(path, before)


def test_a_folder_with_a_run_is_not_written_over(whole_run: Path, phantom_cache: Cache) -> None:
    before = contents(whole_run)
    with pytest.raises(TrainingError, match=r"whole/fold-0 exists already\. Continue with --resume"):
        train(TINY, phantom_cache, whole_run)
    assert contents(whole_run) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_another_experiment_is_refused(
    whole_run: Path, phantom_cache: Cache, tiny_experiment: Build, resume: bool
) -> None:
    before = contents(whole_run)
    with pytest.raises(TrainingError, match="whole holds a run of another experiment"):
        train(tiny_experiment(run={"epochs": 5}), phantom_cache, whole_run, resume=resume)
    assert contents(whole_run) == before


def test_a_part_that_the_experiment_does_not_have_is_refused(runs: Path, phantom_cache: Cache) -> None:
    with pytest.raises(ConfigError, match=r"no such split: fold-7\. This experiment has fold-0, fold-1, final"):
        train(TINY, phantom_cache, runs / "none", only=("fold-7",))
    assert not (runs / "none").exists()


def test_a_held_out_patient_that_the_data_lacks_is_refused(phantom_cache: Cache, tiny_experiment: Build) -> None:
    with pytest.raises(ConfigError, match="held_out names patients that are not in the data: p9"):
        make_data_splits(tiny_experiment(run={"held_out": ["p9", "p1"]}), phantom_cache)


def test_data_with_less_than_one_batch_is_refused_instead_of_trained_on_nothing(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    with pytest.raises(TrainingError, match=r"final: an epoch has \d+ slices, fewer than a batch of 64"):
        train(tiny_experiment(run={"batch_size": 64}), phantom_cache, runs / "few", only=("final",))


def test_a_run_that_failed_before_training_leaves_the_folder_to_the_next_with_other_settings(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    output = runs / "second-try"
    with pytest.raises(TrainingError, match=r"absent\.pth cannot be read"):
        train(tiny_experiment(run={"init": "absent.pth"}), phantom_cache, output, only=("final",))
    with pytest.raises(TrainingError, match="fewer than a batch of 64"):
        train(tiny_experiment(run={"batch_size": 64}), phantom_cache, output, only=("final",))
    assert list(output.iterdir()) == []
    train(tiny_experiment(run={"epochs": 1}), phantom_cache, output, only=("final",))
    with pytest.raises(TrainingError, match="holds a run of another experiment"):
        train(tiny_experiment(run={"batch_size": 64}), phantom_cache, output, only=("fold-0",))
    with pytest.raises(TrainingError, match="final exists already"):
        train(tiny_experiment(run={"epochs": 1}), phantom_cache, output, only=("final",))
    assert (output / "final" / "weights.safetensors").is_file()


def test_scores_are_taken_at_the_size_of_reading(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    score_slices = train_module.score_slices

    def seen(network: HemorrhageNetwork, slices: PlainSlices, *rest: Any, mirror: bool) -> None:
        sizes.append(slices[0].shape[-1])
        score_slices(network, slices, *rest, mirror=mirror)

    monkeypatch.setattr(train_module, "score_slices", seen)
    experiment = tiny_experiment(run={"epochs": 1}, reading={"size": 64})
    train(experiment, phantom_cache, runs / "larger", only=("fold-0",))
    assert sizes == [64]


def test_weights_start_where_the_experiment_states_and_the_record_shows_it(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load_init(network: HemorrhageNetwork, init: str) -> str:
        asked.append(init)
        return "a package"

    monkeypatch.setattr(train_module, "load_init", load_init)
    experiment = tiny_experiment(run={"epochs": 1, "folds": 0, "init": "imagenet"})
    (record,) = train(experiment, phantom_cache, runs / "init")
    assert asked == ["imagenet"]
    assert record.init == json.loads((runs / "init/final/part.json").read_text())["init"] == "a package"


def test_a_run_that_resumes_loads_no_initial_weights_and_keeps_their_source(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_experiment(run={"folds": 0, "init": "pretrained"})
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "load_init", lambda *_: "the internet")
        kill_after_epoch(patch, 0)
        with pytest.raises(KilledError):
            train(experiment, phantom_cache, runs / "killed")
    monkeypatch.setattr(train_module, "load_init", lambda *_: pytest.fail("asked again"))
    (record,) = train(experiment, phantom_cache, runs / "killed", resume=True)
    assert record.init == "the internet"


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_few_steps_are_a_run_too(runs: Path, phantom_cache: Cache, tiny_experiment: Build, steps: int) -> None:
    experiment = tiny_experiment(run={"epochs": 9, "max_steps": steps, "folds": 0})
    (record,) = train(experiment, phantom_cache, runs / "short")
    assert record.steps == steps
    assert record.epochs < 9
    assert all(np.isfinite(list(record.losses.values())))


def test_half_precision_trains_too(whole_run: Path, runs: Path, phantom_cache: Cache, tiny_experiment: Build) -> None:
    experiment = tiny_experiment(run={"precision": "bf16-mixed", "folds": 0, "held_out": ["p5"]})
    (record,) = train(experiment, phantom_cache, runs / "half")
    assert all(np.isfinite(list(record.losses.values())))
    assert {tensor.dtype for tensor in weights(runs / "half", "final").values()} <= {torch.float32, torch.int64}
    assert not same_weights(weights(runs / "half", "final"), weights(whole_run, "final"))


def test_crops_on_disk_lie_beside_the_cache_and_train_the_same(
    whole_run: Path, runs: Path, phantom_cache: Cache, tmp_path: Path
) -> None:
    shutil.copytree(phantom_cache.folder, tmp_path / "cache")
    on_disk = dataclasses.replace(TINY, run=dataclasses.replace(TINY.run, crops="disk"))
    train(on_disk, open_cache(tmp_path / "cache"), runs / "disk", only=("final",))
    assert list((tmp_path / "cache" / "crops").rglob("*.npy"))
    assert same_weights(weights(runs / "disk", "final"), weights(whole_run, "final"))


def test_a_part_is_recorded_with_its_size_and_the_sources_revision_with_the_run(whole_run: Path) -> None:
    record = json.loads((whole_run / "final" / "part.json").read_text())
    network = HemorrhageNetwork(TINY.network, channels=3, size=32)
    assert record["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert record["init"] == "random weights"
    assert record["seconds"] > 0
    assert record["processes"] == 1


def test_ctrl_c_ends_training_as_it_ends_any_command(
    runs: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MetricsFile, "on_train_epoch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_experiment(run={"folds": 0}), phantom_cache, runs / "stopped")
    assert not (runs / "stopped" / "final" / "weights.safetensors").exists()


def test_progress_reports_each_stage_to_its_end(runs: Path, phantom_cache: Cache, tiny_experiment: Build) -> None:
    shown: list[tuple[str, int, int]] = []
    experiment = tiny_experiment(run={"epochs": 1, "folds": 0})
    train(experiment, phantom_cache, runs / "shown", show=lambda *told: shown.append(told))
    assert shown[0][0] == "final: cropping"
    assert {stage for stage, _, _ in shown} == {"final: cropping", "final: training"}
    assert shown[-1][1] == shown[-1][2] > 0
