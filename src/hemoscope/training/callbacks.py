"""Lightning callbacks: progress, metrics, checkpoints, the best weights and the training time.

Checkpoints hold all the state that a resumed run needs. Only the first process writes files.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from hemoscope.files import write_text
from hemoscope.progress import Progress
from hemoscope.training.lightning_module import TrainingModule
from hemoscope.training.models.checkpoint import save_weights

VALIDATION_LOSS = "validation/loss"


class StepProgress(Callback):
    """Reports the optimiser steps done and their total."""

    def __init__(self, progress: Progress) -> None:
        """Report to ``progress``."""
        self.progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Report the steps after each batch."""
        if trainer.is_global_zero:
            self.progress(trainer.global_step, int(trainer.estimated_stepping_batches))


class SeedSteps(Callback):
    """Seeds torch before each batch from (seed, epoch, batch, process).

    A resumed run then needs no saved random state, and each process draws other numbers.
    """

    def __init__(self, seed: int, *, first_epoch: int = 0) -> None:
        """Derive all seeds from ``seed``; ``first_epoch`` is added to the trainer's epoch numbers."""
        self.seed = seed
        self.first_epoch = first_epoch

    def on_train_batch_start(self, trainer: lightning.Trainer, _module: object, _batch: object, batch_idx: int) -> None:
        """Seed torch for one batch."""
        words = [self.seed, self.first_epoch + trainer.current_epoch, batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))


class MetricsFile(Callback):
    """Writes one JSON line per epoch with the metrics of that epoch.

    If a run resumes within an epoch, the means cover only the batches from ``first_batch`` on.
    """

    def __init__(self, path: Path) -> None:
        """Append to ``path``."""
        self.path = path
        self.first_batch: int | None = None
        self.validated = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note that this epoch was validated: Lightning keeps reporting the last validation in later epochs."""
        del trainer, pl_module
        self.validated = True

    def on_train_batch_start(self, _trainer: object, _module: object, _batch: object, batch_idx: int) -> None:
        """Remember the first batch of the epoch's means."""
        if self.first_batch is None:
            self.first_batch = batch_idx

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the epoch's means; replace a line that an interrupted run left for the same epoch."""
        del pl_module
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        if self.first_batch:
            row["first_batch"] = self.first_batch
        measured = sorted(trainer.callback_metrics.items())
        row |= {n: float(v) for n, v in measured if self.validated or not n.startswith("validation/")}
        self.first_batch, self.validated = None, False
        if trainer.is_global_zero:
            kept = [line for line in read_metrics(self.path) if line["epoch"] < trainer.current_epoch]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in [*kept, row]))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines that ``MetricsFile`` wrote; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


class KeepCheckpoint(Checkpoint):
    """Writes the last checkpoint: after each epoch, and every ``steps`` optimiser steps within it (0: never).

    Lightning calls it after all other callbacks, so the checkpoint holds their latest state.
    """

    def __init__(self, path: Path, *, steps: int) -> None:
        """Write to ``path``."""
        self.path = path
        self.steps = steps

    def on_train_batch_end(
        self, trainer: lightning.Trainer, _module: object, _outputs: object, _batch: object, batch_idx: int
    ) -> None:
        """Save within the epoch, but never between accumulated batches: a checkpoint holds no gradients."""
        # After the last batch, on_train_epoch_end saves: validation runs first.
        last = batch_idx + 1 == trainer.num_training_batches or trainer.global_step == trainer.max_steps
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.steps and stepped and not last and trainer.global_step % self.steps == 0:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save at the end of the epoch."""
        del pl_module
        trainer.save_checkpoint(self.path)


class KeepBest(Callback):
    """Keeps the weights with the lowest validation loss; stops after ``patience`` epochs without improvement."""

    def __init__(self, path: Path, *, patience: int) -> None:
        """Write the weights to ``path``."""
        self.path = path
        self.patience = patience
        self.best = math.inf
        self.epoch: int | None = None
        self.waited = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop at once if the resumed run was already done."""
        del pl_module
        self._stop_if_done(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare the epoch with the best one. All processes have the same loss, so they agree."""
        loss = float(trainer.callback_metrics[VALIDATION_LOSS])
        self.waited += 1
        if loss < self.best:
            self.best, self.epoch, self.waited = loss, trainer.current_epoch, 0
            assert isinstance(pl_module, TrainingModule)
            if trainer.is_global_zero:
                save_weights(pl_module.trained, self.path)
        self._stop_if_done(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for the checkpoint."""
        return {"best": self.best, "epoch": self.epoch, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from the checkpoint."""
        self.best, self.epoch, self.waited = state_dict["best"], state_dict["epoch"], state_dict["waited"]

    def _stop_if_done(self, trainer: lightning.Trainer) -> None:
        if self.waited >= self.patience:
            trainer.should_stop = True


class History(Callback):
    """What the training record needs over all resumptions: the initial weights and the training time."""

    def __init__(self, init: str | None = None) -> None:
        """``init`` describes the initial weights; None if the checkpoint holds that."""
        self.init = init
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Training time so far, over all resumptions."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for the checkpoint."""
        return {"init": self.init, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from the checkpoint."""
        self.init, self._before = state_dict["init"], state_dict["seconds"]
