"""Training an experiment: one network a fold for out-of-fold scores, and a final one for shipping.

A run is a folder: ``experiment.json`` (the resolved record), ``versions.json``, ``dataset.json`` and ``slices.csv``
(what it learned from, with the labels: no pixels), and for each part (``fold-0`` ..., ``final``) its own folder with
``metrics.jsonl``, TensorBoard logs, the last checkpoint, ``weights.safetensors`` when it is done, and for folds
``scores.csv``: raw scores of the patients that it never saw.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from hemoscope import __version__
from hemoscope.card import to_plain
from hemoscope.data.cache import Cache
from hemoscope.data.split import patient_folds
from hemoscope.errors import ConfigError, TrainingError
from hemoscope.labels import LABELS
from hemoscope.models.checkpoint import load_imagenet, load_weights, save_weights
from hemoscope.models.network import HemorrhageNetwork, MirroredNetwork
from hemoscope.training.checkpoint_io import SafeCheckpointIO, latest_checkpoint
from hemoscope.training.dataset import EpochSampler, PlainSlices, SliceDataset, load_crops
from hemoscope.training.experiment import Experiment
from hemoscope.training.module import TrainingModule

FINAL = "final"

Show = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One network of a run: the patients it learns from, and those it is scored on (none for the final one)."""

    name: str
    learn: tuple[str, ...]
    score: tuple[str, ...]


def run_parts(experiment: Experiment, cache: Cache) -> tuple[Part, ...]:
    """The folds, every patient scored once, then the final network on all patients but the held-out ones."""
    names = [label.value for label in LABELS]
    counts = cache.manifest.groupby("patient_id")[names].sum()
    patients = tuple(str(patient) for patient in counts.index)
    unknown = sorted(set(experiment.run.held_out) - set(patients))
    if unknown:
        msg = f"held_out names patients that the data lacks: {', '.join(unknown)}"
        raise ConfigError(msg)
    parts = []
    if experiment.run.folds:
        table = {patient: tuple(int(n) for n in counts.loc[patient]) for patient in patients}
        fold_of = patient_folds(table, folds=experiment.run.folds, seed=257)
        for fold in range(experiment.run.folds):
            score = tuple(p for p in patients if fold_of[p] == fold)
            parts.append(Part(name=f"fold-{fold}", learn=tuple(sorted(set(patients) - set(score))), score=score))
    final = tuple(p for p in patients if p not in experiment.run.held_out)
    return (*parts, Part(name=FINAL, learn=final, score=()))


def train(
    experiment: Experiment,
    cache: Cache,
    output: Path,
    *,
    only: tuple[str, ...] = (),
    resume: bool = False,
    threads: int | None = None,
    show: Show = lambda _stage, _done, _total: None,
) -> None:
    """Train every part (or those named) and leave the run's folder behind.

    ``threads`` is for PyTorch (None: its own choice). ``show`` is told the stage, how much of it is done, and how much
    there is.

    Raises:
        TrainingError: the folder holds another run, or this run and ``resume`` is not set.
        ConfigError: a part is named that the experiment does not have.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    parts = run_parts(experiment, cache)
    unknown = sorted(set(only) - {part.name for part in parts})
    if unknown:
        msg = f"no such part: {', '.join(unknown)}. This experiment has {', '.join(part.name for part in parts)}"
        raise ConfigError(msg)
    for part in parts:
        if not only or part.name in only:
            _train_part(experiment, cache, part, _open_run(experiment, cache, output, part, resume=resume), show)


def _open_run(experiment: Experiment, cache: Cache, output: Path, part: Part, *, resume: bool) -> Path:
    record, path = json.dumps(experiment.to_json(), indent=1), output / "experiment.json"
    if path.is_file() and json.loads(path.read_text()) != json.loads(record):
        msg = f"{output.name} holds a run of another experiment. Choose a new --output, or take the changes back"
        raise TrainingError(msg)
    folder = output / part.name
    if folder.exists() and not resume:
        msg = f"{output.name}/{part.name} exists already. Go on with --resume, or choose a new --output"
        raise TrainingError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(record)
    (output / "versions.json").write_text(json.dumps(_versions(), indent=1))
    (output / "dataset.json").write_text(json.dumps(to_plain(cache.dataset), indent=1))
    columns = ["image_id", "patient_id", *(label.value for label in LABELS)]
    cache.manifest[columns].to_csv(output / "slices.csv", index=False)
    return folder


def _versions() -> dict[str, str]:
    packages = ("torch", "timm", "lightning", "numpy", "scipy", "pillow")
    return {
        "hemoscope": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


def _train_part(experiment: Experiment, cache: Cache, part: Part, folder: Path, show: Show) -> None:
    done = folder / "weights.safetensors"
    network = HemorrhageNetwork(
        experiment.network, channels=experiment.preprocessing.channels, size=experiment.preprocessing.size
    )
    if done.is_file():
        load_weights(network, done)
    else:
        network = _fit(experiment, cache, part, folder, show)
        save_weights(network, done)
    if part.score and not (folder / "scores.csv").is_file():
        _write_scores(network, PlainSlices(cache, part.score, experiment.reading_preprocessing), folder / "scores.csv")


def _fit(experiment: Experiment, cache: Cache, part: Part, folder: Path, show: Show) -> HemorrhageNetwork:
    run = experiment.run
    lightning.seed_everything(run.seed, verbose=False)
    network = HemorrhageNetwork(
        experiment.network, channels=experiment.preprocessing.channels, size=experiment.preprocessing.size
    )
    if run.init == "imagenet":
        load_imagenet(network)
    module = TrainingModule(network, experiment.loss, experiment.optimizer)
    crops = load_crops(cache, part.learn, experiment.preprocessing, progress=partial(show, f"{part.name}: cropping"))
    data = SliceDataset(crops, experiment.preprocessing, experiment.augment, experiment.sampling, seed=run.seed)
    sampler = EpochSampler(crops.labels, experiment.sampling, seed=run.seed)
    if len(sampler) < run.batch_size:
        found = f"an epoch has {len(sampler)} slices, fewer than a batch of {run.batch_size}"
        msg = f"{part.name}: {found}. Lower run.batch_size, or give data with more positive slices"
        raise TrainingError(msg)
    loader = DataLoader(data, batch_size=run.batch_size, sampler=sampler, drop_last=True)
    last = latest_checkpoint(folder / "checkpoint" / "last.ckpt")
    trainer = _trainer(experiment, folder, partial(show, f"{part.name}: training"))
    trainer.fit(module, loader, ckpt_path=None if last is None else str(last))
    return module.trained


def _trainer(experiment: Experiment, folder: Path, progress: Callable[[int, int], None]) -> lightning.Trainer:
    # Without a version counter: a run that was moved would go on in last-v1.ckpt, and be resumed from the old one.
    keep = ModelCheckpoint(
        dirpath=folder / "checkpoint", filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    return lightning.Trainer(
        max_epochs=experiment.run.epochs,
        precision=experiment.run.precision,  # type: ignore[arg-type]
        accelerator="auto",
        devices=1,
        plugins=[SafeCheckpointIO()],
        callbacks=[MetricsFile(folder / "metrics.jsonl"), StepsDone(progress), keep],
        logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
        use_distributed_sampler=False,
        limit_val_batches=0,  # no part validates yet; with a step and without slices Lightning warns
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=1,  # metrics are logged by epoch; Lightning warns of epochs shorter than this
    )


class StepsDone(Callback):
    """Tells how many optimiser steps are done, and of how many."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        """Tell ``progress``."""
        self.progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """One step more."""
        self.progress(trainer.global_step, int(trainer.estimated_stepping_batches))


class MetricsFile(Callback):
    """One JSON line an epoch with what was measured in it."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``."""
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the epoch's means."""
        del pl_module
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def _write_scores(network: HemorrhageNetwork, slices: PlainSlices, path: Path) -> None:
    """Raw scores of a fold's own patients, from the mirrored network that serving runs."""
    mirrored = MirroredNetwork(network).eval()
    with torch.inference_mode():
        logits = torch.cat([mirrored(batch).logits for batch in DataLoader(slices, batch_size=16)])
    table = slices.table[["image_id", "patient_id", "index"]].copy()
    scores = pd.DataFrame(logits.numpy(), columns=[f"logit_{label}" for label in LABELS])
    part = path.with_suffix(".part")
    pd.concat([table, scores], axis=1).to_csv(part, index=False, float_format="%.6g")
    part.replace(path)
