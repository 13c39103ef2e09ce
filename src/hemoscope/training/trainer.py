"""Configures Lightning's trainer: devices, precision, checkpoints and logging."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from hemoscope.errors import TrainingError
from hemoscope.progress import Progress
from hemoscope.training.callbacks import KeepCheckpoint, MetricsFile, SeedSteps, StepProgress
from hemoscope.training.checkpoint_io import SafeCheckpointIO
from hemoscope.training.experiment import RunConfig

CHECKPOINT = Path("checkpoint") / "last.ckpt"

# One process scores, or crops the slices of a large dataset, while the others wait.
_TIMEOUT = timedelta(hours=24)
_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
# Lightning's warnings about intended settings.
_KNOWN = (
    r".*treespec, LeafSpec.* is deprecated",
    r".*all_gather is deprecated",
    r"It is recommended to use `self.log\(.*sync_dist=True\)`",  # validation gathers all scores before it measures
    r".*does not have many workers which may be a bottleneck",
    r".*[Ii]n .*callbacks used to create the checkpoint",
    r"Be aware that when using `ckpt_path`",
    r".*is smaller than the logging interval",
    r".*across ranks is zero",
    r".*module\(s\) in eval mode at the start of training",
)


def make_trainer(
    run: RunConfig, folder: Path, progress: Progress, *, validate: bool, extra: list[Callback]
) -> lightning.Trainer:
    """Return a trainer that writes logs and checkpoints into the folder of a split.

    Raises:
        TrainingError: this machine lacks the requested devices or precision.
    """
    callbacks = [MetricsFile(folder / "metrics.jsonl"), StepProgress(progress), SeedSteps(run.seed), *extra]
    return _trainer(
        run,
        folder,
        callbacks=[*callbacks, KeepCheckpoint(folder / CHECKPOINT, steps=run.checkpoint_steps)],
        logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
        limit_val_batches=None if validate else 0,
    )


def make_round_trainer(
    run: RunConfig, folder: Path, progress: Progress, *, first_epoch: int, extra: list[Callback]
) -> lightning.Trainer:
    """Return a trainer for one round; the caller keeps the weights, and nothing is written.

    Raises:
        TrainingError: as ``make_trainer`` does.
    """
    return _trainer(
        run,
        folder,
        callbacks=[StepProgress(progress), SeedSteps(run.seed, first_epoch=first_epoch), *extra],
        logger=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )


def _trainer(run: RunConfig, folder: Path, **own: Any) -> lightning.Trainer:
    """Return a trainer with the common settings and ``own``."""
    check_precision(run)
    plugins: list[Any] = [SafeCheckpointIO()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # --resume continues from our own checkpoints
    try:
        return lightning.Trainer(
            max_epochs=run.epochs,
            max_steps=run.max_steps or -1,
            accumulate_grad_batches=run.accumulate,
            precision=run.precision,
            accelerator="auto",
            devices=run.devices,
            num_nodes=run.nodes,
            strategy=_strategy(run),
            plugins=plugins,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            log_every_n_steps=1,  # metrics are logged per epoch; Lightning warns about epochs shorter than this
            **own,
        )
    except MisconfigurationException as error:
        asked = f"devices = {run.devices}, nodes = {run.nodes}, precision = {run.precision}"
        msg = f"this machine cannot train with run.{asked}. Change them. Lightning reports: {error}"
        raise TrainingError(msg) from error


def check_precision(run: RunConfig) -> None:
    """Refuse what Lightning would replace by another precision. Raises TrainingError."""
    if run.precision == "16-mixed" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        msg = (
            "run.precision = 16-mixed needs a GPU, and this machine has none that PyTorch can use. Set "
            "run.precision=bf16-mixed or 32-true"
        )
        raise TrainingError(msg)


def is_first_process() -> bool:
    """Whether this process writes files and prints; the others only compute."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's advice and its warnings about intended settings; keep other warnings."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _KNOWN:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _strategy(run: RunConfig) -> Any:
    devices = torch.cuda.device_count() if run.devices == "auto" else run.devices
    if run.strategy == "ddp" or devices > 1 or run.nodes > 1:
        return DDPStrategy(timeout=_TIMEOUT)
    return "auto"
