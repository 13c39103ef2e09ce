"""What happens beside the steps of a training: progress, metrics, checkpoints, the best weights, the clock.

All state that a resumed run needs is in the checkpoints; files are written by the first process alone.
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

from hemoscope.progress import Progress
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.module import TrainingModule

VALIDATION_LOSS = "validation/loss"


class StepProgress(Callback):
    """Tells how many optimiser steps are done, and of how many."""

    def __init__(self, progress: Progress) -> None:
        """Tell ``progress``."""
        self.progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """One batch more."""
        if trainer.is_global_zero:
            self.progress(trainer.global_step, int(trainer.estimated_stepping_batches))


class SeedSteps(Callback):
    """Seeds torch before each batch: what a layer draws follows from (seed, epoch, batch, process), as samples do.

    So a resumed run needs no generator's state, and several processes draw different numbers.
    """

    def __init__(self, seed: int, *, first_epoch: int = 0) -> None:
        """Follow from ``seed``; the trainer's epochs count from the first."""
        self.seed = seed
        self.first_epoch = first_epoch

    def on_train_batch_start(self, trainer: lightning.Trainer, _module: object, _batch: object, batch_idx: int) -> None:
        """Seed for one batch."""
        words = [self.seed, self.first_epoch + trainer.current_epoch, batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))


class MetricsFile(Callback):
    """One JSON line an epoch with what was measured in it.

    Means of an epoch that was resumed within are of the batches since; ``first_batch`` says where they begin.
    """

    def __init__(self, path: Path) -> None:
        """Append to ``path``."""
        self.path = path
        self.first_batch: int | None = None
        self.validated = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Lightning shows the last validation for ever; a line holds its own epoch's."""
        del trainer, pl_module
        self.validated = True

    def on_train_batch_start(self, _trainer: object, _module: object, _batch: object, batch_idx: int) -> None:
        """Remember where the epoch's means begin."""
        if self.first_batch is None:
            self.first_batch = batch_idx

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the epoch's means, in place of those that a killed run left of the same epoch."""
        del pl_module
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        if self.first_batch:
            row["first_batch"] = self.first_batch
        measured = sorted(trainer.callback_metrics.items())
        row |= {n: float(v) for n, v in measured if self.validated or not n.startswith("validation/")}
        self.first_batch, self.validated = None, False
        if trainer.is_global_zero:
            kept = [line for line in read_metrics(self.path) if line["epoch"] < trainer.current_epoch]
            part = self.path.with_name(self.path.name + ".part")
            part.write_text("".join(json.dumps(line) + "\n" for line in [*kept, row]))
            part.replace(self.path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines that ``MetricsFile`` wrote; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


class KeepCheckpoint(Checkpoint):
    """Writes the one checkpoint of a part: after each epoch, and within it every ``steps`` optimiser steps (0: never).

    Lightning calls it after all other callbacks, so that their state in the checkpoint is that of the same moment.
    """

    def __init__(self, path: Path, *, steps: int) -> None:
        """Write to ``path``."""
        self.path = path
        self.steps = steps

    def on_train_batch_end(
        self, trainer: lightning.Trainer, _module: object, _outputs: object, _batch: object, batch_idx: int
    ) -> None:
        """Save within the epoch, where no gradients are gathered that a checkpoint would not hold."""
        # The epoch's end saves, after its validation, where this batch is the last.
        last = batch_idx + 1 == trainer.num_training_batches or trainer.global_step == trainer.max_steps
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.steps and stepped and not last and trainer.global_step % self.steps == 0:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save at the end of the epoch."""
        del pl_module
        trainer.save_checkpoint(self.path)


class KeepBest(Callback):
    """Keeps the weights with the least validation loss; ends training after ``patience`` epochs without a better."""

    def __init__(self, path: Path, *, patience: int) -> None:
        """Write the weights to ``path``."""
        self.path = path
        self.patience = patience
        self.best = math.inf
        self.epoch: int | None = None
        self.waited = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """End at once where the run was killed after its last epoch."""
        del pl_module
        self._stop_if_done(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Judge the epoch. All processes have the same loss, so they agree."""
        loss = float(trainer.callback_metrics[VALIDATION_LOSS])
        self.waited += 1
        if loss < self.best:
            self.best, self.epoch, self.waited = loss, trainer.current_epoch, 0
            assert isinstance(pl_module, TrainingModule)
            if trainer.is_global_zero:
                save_weights(pl_module.trained, self.path)
        self._stop_if_done(trainer)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"best": self.best, "epoch": self.epoch, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.best, self.epoch, self.waited = state_dict["best"], state_dict["epoch"], state_dict["waited"]

    def _stop_if_done(self, trainer: lightning.Trainer) -> None:
        if self.waited >= self.patience:
            trainer.should_stop = True


class History(Callback):
    """What a part's record tells of all its starts: where the weights began, and the seconds spent training."""

    def __init__(self, init: str | None = None) -> None:
        """``init`` says where the weights began; None where the checkpoint will."""
        self.init = init
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"init": self.init, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.init, self._before = state_dict["init"], state_dict["seconds"]
