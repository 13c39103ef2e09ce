"""Training an experiment: one network a fold for out-of-fold scores and a final one, or one network on one split.

A run is a folder (``run_folder``) with a folder for each part (``fold-0`` ..., ``final``, or ``split``): there
``metrics.jsonl``, TensorBoard logs, the last checkpoint, ``weights.safetensors`` and ``part.json`` when it is done, and
raw scores of images that it never learned from: ``scores.csv`` of a fold, ``scores-validation.csv`` and
``scores-test.csv`` of a split. Where series are read whole, the sequence network's files stand beside them, and the
scores are its own.
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
from hemoscope.training.models.checkpoint import load_init, load_weights, save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.module import TrainingModule
from hemoscope.training.run_folder import discard_unstarted, open_run, write_json
from hemoscope.training.scoring import score_files, score_slices
from hemoscope.training.sequence import fit_sequence, score_sequence
from hemoscope.training.trainer import CHECKPOINT, is_first_process, make_trainer, quiet_lightning

__all__ = ["FINAL", "SPLIT", "DataSplit", "TrainingRecord", "make_data_splits", "train"]

WEIGHTS, BEST, RECORD = "weights.safetensors", "best.safetensors", "part.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How a part came out, as ``part.json`` keeps it.

    Attributes:
        part: its name.
        init: where the weights began.
        parameters: of the network, and how many of them were trained.
        trained_parameters: see ``parameters``.
        learned: slices it learned from; ``validated`` and ``scored`` likewise.
        processes: that trained together.
        epochs: that were begun, and steps taken.
        steps: see ``epochs``.
        best_epoch: whose weights were kept, where training could stop early.
        seconds: of training, over all resumptions.
        losses: the last epoch's, as in ``metrics.jsonl``.
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
    """Train every part (or those named) and leave the run's folder behind.

    Where several processes train together, each of them calls this; the first alone writes and returns records.

    Args:
        experiment: what to do.
        cache: with what.
        output: folder of the run.
        only: names of parts; none means all.
        resume: go on where the run stopped; a run that never began begins.
        threads: of PyTorch (None: its own choice).
        show: told the stage, how much of it is done, and how much there is.
        warn: told what a reader of the results must know, in one line.

    Raises:
        TrainingError: the folder holds another run, or this run and ``resume`` is not set.
        ConfigError: a part is named that the experiment does not have.
        DataError: the data is too small for the folds or the split.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    splits = make_data_splits(experiment, cache)
    unknown = sorted(set(only) - {split.name for split in splits})
    if unknown:
        msg = f"no such part: {', '.join(unknown)}. This experiment has {', '.join(split.name for split in splits)}"
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
            score_slices(network, PlainSlices(cache, images, experiment.reading_preprocessing), path, progress)
        else:
            score_sequence(network, sequence, cache, images, experiment, path, progress)
    return _read_record(folder / RECORD)


def _network(experiment: Experiment) -> HemorrhageNetwork:
    learned = experiment.preprocessing
    return HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size)


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
    except SystemExit as error:  # how Lightning takes Ctrl-C; the command has its own words for it
        raise KeyboardInterrupt from error
    if trainer.is_global_zero:
        if best.epoch is not None:
            load_weights(module.trained, folder / BEST)
        rows = read_metrics(folder / "metrics.jsonl")
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
    """The record of a part; None for one that an earlier version trained."""
    if not path.is_file():
        return None
    return TrainingRecord(**json.loads(path.read_text()))
