"""Trains an experiment: one network per fold for out-of-fold scores and a final one, or one network on one split.

A run is a folder (``run_folder``) with a folder for each split (``fold-0`` ..., ``final``, or ``split``). It holds
``metrics.jsonl``, TensorBoard logs, the last checkpoint, ``weights.safetensors`` and, once finished, ``part.json``,
``excluded-donors.json`` (outlined bleeds that are not seen, if the sampling leaves them out) and raw scores of held-out
images: ``scores.csv`` of a fold, ``scores-validation.csv`` and ``scores-test.csv`` of a single split. With a sequence
network, its files are there too, and the scores are its scores.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import lightning
import torch

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, HemoscopeError
from hemoscope.progress import StageProgress, no_stage_progress
from hemoscope.training.callbacks import History, KeepBest, read_metrics
from hemoscope.training.checkpoint_io import latest_checkpoint
from hemoscope.training.data_module import SplitDataModule, resolved_loss
from hemoscope.training.data_splits import FINAL, SPLIT, DataSplit, make_data_splits, split_images
from hemoscope.training.dataset import PlainSlices
from hemoscope.training.experiment import Experiment
from hemoscope.training.lightning_module import TrainingModule, check_weights
from hemoscope.training.models.checkpoint import load_init, load_weights, save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_folder import discard_unstarted, open_run, write_json
from hemoscope.training.scoring import score_files, score_slices
from hemoscope.training.sequence import fit_sequence, score_sequence
from hemoscope.training.trainer import CHECKPOINT, check_precision, is_first_process, make_trainer, quiet_lightning

__all__ = ["FINAL", "SPLIT", "DataSplit", "TrainingRecord", "make_data_splits", "train"]

WEIGHTS, BEST, RECORD = "weights.safetensors", "best.safetensors", "part.json"
EXCLUDED = "excluded-donors.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """Record of the training on one split, as stored in ``part.json``.

    Attributes:
        part: name of the split.
        init: source of the initial weights.
        parameters: of the network, and how many of them were trained.
        trained_parameters: see ``parameters``.
        learned: number of training slices; ``validated`` and ``scored`` are those of validation and test.
        processes: number of training processes.
        epochs: number of epochs started, and of optimiser steps.
        steps: see ``epochs``.
        best_epoch: epoch of the kept weights, with early stopping.
        seconds: of training, over all resumptions.
        losses: of the last epoch, as in ``metrics.jsonl``.
    """

    part: str
    init: str
    parameters: int
    trained_parameters: int
    learned: int
    validated: int
    scored: int
    processes: int
    epochs: int
    steps: int
    best_epoch: int | None
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)


def train(
    experiment: Experiment,
    cache: Cache,
    output: Path,
    *,
    only: tuple[str, ...] = (),
    resume: bool = False,
    threads: int | None = None,
    show: StageProgress = no_stage_progress,
    warn: Callable[[str], None] = lambda _line: None,
) -> tuple[TrainingRecord, ...]:
    """Train every split (or those named) and write the run folder.

    In distributed training every process calls this; only the first one writes and returns records.

    Args:
        experiment: all settings.
        cache: the prepared dataset.
        output: folder of the run.
        only: names of splits; empty means all.
        resume: continue an interrupted run, or start one.
        threads: of PyTorch (None: its default).
        show: called with the stage, the amount done and the total.
        warn: called with one line that a reader of the results must know.

    Raises:
        TrainingError: the folder holds another run, or this run and ``resume`` is not set; this machine lacks the
            requested devices or precision; the loss became NaN or infinite.
        ConfigError: the experiment has no split of a given name.
        DataError: the data is too small for the folds or the split.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    check_precision(experiment.run)
    splits = make_data_splits(experiment, cache)
    unknown = sorted(set(only) - {split.name for split in splits})
    if unknown:
        msg = f"no such split: {', '.join(unknown)}. This experiment has {', '.join(split.name for split in splits)}"
        raise ConfigError(msg)
    warning = None if experiment.run.split == "folds" else split_images(experiment, cache).warning
    if warning and is_first_process():
        warn(warning)
    with quiet_lightning():
        chosen = [split for split in splits if not only or split.name in only]
        records = [_train_split(experiment, cache, split, output, resume=resume, show=show) for split in chosen]
    return tuple(record for record in records if record is not None)


def _train_split(
    experiment: Experiment, cache: Cache, split: DataSplit, output: Path, *, resume: bool, show: StageProgress
) -> TrainingRecord | None:
    folder = output / split.name
    if is_first_process():
        open_run(experiment, cache, output, split, resume=resume)
    done = (folder / WEIGHTS).is_file()
    try:
        network = _load(experiment, folder / WEIGHTS) if done else _fit(experiment, cache, split, folder, show)
    except HemoscopeError:
        if is_first_process():
            discard_unstarted(output, split)
        raise
    if not is_first_process():
        return None
    sequence = fit_sequence(network, experiment, cache, split, folder, show) if experiment.sequence else None
    for name, images in score_files(split):
        path, progress = folder / name, partial(show, f"{split.name}: scoring")
        if path.is_file():
            continue
        if sequence is None:
            slices = PlainSlices(cache, images, experiment.reading_preprocessing)
            score_slices(network, slices, path, progress, mirror=experiment.reading.mirror)
        else:
            score_sequence(network, sequence, cache, images, experiment, path, progress)
    return _read_record(folder / RECORD)


def _network(experiment: Experiment) -> HemorrhageNetwork:
    learned = experiment.preprocessing
    return HemorrhageNetwork(
        experiment.network, channels=learned.channels, size=learned.size, neighbours=learned.neighbours
    )


def _load(experiment: Experiment, weights: Path) -> HemorrhageNetwork:
    network = _network(experiment)
    load_weights(network, weights)
    return network


def _fit(
    experiment: Experiment, cache: Cache, split: DataSplit, folder: Path, show: StageProgress
) -> HemorrhageNetwork:
    run = experiment.run
    lightning.seed_everything(run.seed, verbose=False)
    network = _network(experiment)
    last = latest_checkpoint(folder / CHECKPOINT)
    history = History(load_init(network, run.init) if last is None else None)
    module = TrainingModule(network, resolved_loss(experiment, cache, split), experiment.optimizer)
    best = KeepBest(folder / BEST, patience=run.early_stop)
    trainer = make_trainer(
        run,
        folder,
        partial(show, f"{split.name}: training"),
        validate=bool(split.validation),
        extra=[history, *([best] if run.early_stop else [])],
    )
    try:
        data = SplitDataModule(experiment, cache, split, show)
        trainer.fit(module, datamodule=data, ckpt_path=None if last is None else str(last))
    except SystemExit as error:  # Lightning turns Ctrl+C into SystemExit; the command handles KeyboardInterrupt
        raise KeyboardInterrupt from error
    check_weights(module.trained, trainer)
    if trainer.is_global_zero:
        if best.epoch is not None:
            load_weights(module.trained, folder / BEST)
        rows = read_metrics(folder / "metrics.jsonl")
        if experiment.sampling.donor_lift is not None:
            excluded = [{"image_id": donor.image_id, "lift_hu": donor.lift_hu} for donor in data.excluded_donors]
            write_json(folder / EXCLUDED, excluded)
        write_json(folder / RECORD, asdict(_record(split, module, trainer, history, best.epoch, rows)))
        save_weights(module.trained, folder / WEIGHTS)
    return module.trained


def _record(
    split: DataSplit,
    module: TrainingModule,
    trainer: lightning.Trainer,
    history: History,
    best_epoch: int | None,
    rows: Sequence[Mapping[str, float]],
) -> TrainingRecord:
    return TrainingRecord(
        part=split.name,
        init=history.init or "not recorded",
        parameters=sum(p.numel() for p in module.network.parameters()),
        trained_parameters=sum(p.numel() for p in module.network.parameters() if p.requires_grad),
        learned=len(split.train),
        validated=len(split.validation),
        scored=len(split.test),
        processes=trainer.world_size,
        epochs=len(rows),
        steps=trainer.global_step,
        best_epoch=best_epoch,
        seconds=round(history.seconds, 1),
        losses={name: value for name, value in rows[-1].items() if "/" in name} if rows else {},
    )


def _read_record(path: Path) -> TrainingRecord | None:
    """Read the record of a split; None if an earlier version trained it."""
    if not path.is_file():
        return None
    return TrainingRecord(**json.loads(path.read_text()))
