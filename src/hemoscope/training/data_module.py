"""The Lightning data module of one split: which process gets which samples, starting at which batch."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader, Sampler

from hemoscope.data.cache import Cache
from hemoscope.errors import TrainingError
from hemoscope.progress import StageProgress
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import Crops, chosen_slices, load_crops
from hemoscope.training.data_splits import DataSplit
from hemoscope.training.dataset import EpochSampler, Sample, SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.donors import Donor
from hemoscope.training.experiment import Experiment
from hemoscope.training.losses import LossConfig
from hemoscope.training.series_batches import label_array

CROPS = "crops"
_AS_SERVED = AugmentConfig(**{item.name: 0.0 for item in fields(AugmentConfig)})
_NO_LESIONS = SamplingConfig(kind="all", pasted=0.0, made=0.0)


class EpochBatches(BatchSampler):
    """Batches of the sampler's current epoch; the first batches of one epoch may be skipped."""

    def __init__(self, sampler: EpochSampler, batch_size: int, *, accumulate: int = 1) -> None:
        """Yield only full batches and full steps of ``accumulate`` batches.

        A smaller batch would give its slices more weight. Lightning always divides by ``accumulate``, so with fewer
        batches the step would be too small.
        """
        self.accumulate = accumulate
        super().__init__(sampler, batch_size, drop_last=True)  # type: ignore[arg-type]  # sample indices instead of integers
        self.epochs = sampler
        self._done = (-1, 0)

    def skip(self, epoch: int, batches: int) -> None:
        """Skip this many batches of the given epoch."""
        self._done = (epoch, batches)

    @property
    def first(self) -> int:
        """The first batch of the current epoch that is not skipped."""
        epoch, batches = self._done
        return batches if self.epochs.epoch == epoch else 0

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the batches that are not skipped."""
        yield from islice(super().__iter__(), self.first, len(self))

    def __len__(self) -> int:
        """Number of batches of an epoch, skipped ones included."""
        return super().__len__() // self.accumulate * self.accumulate


class ResumableLoader(DataLoader[Sample]):
    """Knows the next batch, so that a run can resume within an epoch."""

    def __init__(self, data: SliceDataset, batches: EpochBatches, **options: Any) -> None:
        """Load ``batches`` of ``data``."""
        super().__init__(data, batch_sampler=batches, **options)
        self.batches = batches
        self.given = 0

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        """Yield the samples of the current epoch; reading starts at the first one, when the epoch is known."""
        self.given = self.batches.first
        for batch in super().__iter__():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches of the epoch that were yielded, for the checkpoint."""
        return {"epoch": self.batches.epochs.epoch, "batches": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the state from the checkpoint."""
        self.batches.skip(state["epoch"], state["batches"])


class KnownLabelSampler(Sampler[SampleIndex]):
    """Yields every slice with a known label once, in order; each of ``world`` processes takes every ``world``-th."""

    def __init__(self, labels: NDArray[np.float32], *, rank: int, world: int) -> None:
        """Args are the ``labels`` (n, 6), NaN if unknown, and this process's rank."""
        known = np.flatnonzero(np.isfinite(labels).any(axis=1))
        self.rows = [int(row) for row in known[rank::world]]

    def __iter__(self) -> Iterator[SampleIndex]:
        """Yield the same indices each time."""
        return (SampleIndex(row, 0, row) for row in self.rows)

    def __len__(self) -> int:
        """Number of samples of this process."""
        return len(self.rows)


class SplitDataModule(lightning.LightningDataModule):
    """Training and validation samples of one split. Samplers are created once the process group exists."""

    def __init__(
        self,
        experiment: Experiment,
        cache: Cache,
        split: DataSplit,
        show: StageProgress,
        *,
        first_epoch: int = 0,
        crops: Path | None = None,
        lower_batch: bool = False,
    ) -> None:
        """Keep the arguments; nothing is read yet.

        Args:
            experiment: defines sampling and preprocessing.
            cache: the prepared dataset.
            split: the images of each set.
            show: called with the stage, the amount done and the total.
            first_epoch: number of the trainer's first epoch, if this training continues another.
            crops: folder for crops that the experiment would keep in memory; None keeps them in memory.
            lower_batch: train on an epoch smaller than a batch (at least two slices) as one batch; else it is an error.
        """
        super().__init__()
        self.first_epoch = first_epoch
        self.lower_batch = lower_batch
        self._crops_folder = cache.folder / CROPS if experiment.run.crops == "disk" else crops
        self.experiment = experiment
        self.cache = cache
        self.split = split
        self.show = show
        self._train: Crops | None = None
        self._validation: Crops | None = None
        self._loader: ResumableLoader | None = None
        self.excluded_donors: tuple[Donor, ...] = ()
        self._state: dict[str, int] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's state: Lightning cannot restore it by itself if loaders are created early."""
        return {} if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from the checkpoint, before or after the loader is created."""
        self._state = state_dict
        if self._loader is not None:
            self._loader.load_state_dict(state_dict)

    def setup(self, stage: str) -> None:
        """Crop the slices, or map existing crops from disk; the first process writes them.

        Raises:
            TrainingError: an epoch has less than one batch, or validation less than one slice per process.
        """
        del stage
        self._train = self._crops(self.split.train, "cropping")
        if self.split.validation:
            self._validation = self._crops(self.split.validation, "cropping for validation")

    def train_dataloader(self) -> ResumableLoader:
        """Return a loader of this process's augmented samples."""
        assert self._train is not None
        experiment, run = self.experiment, self.experiment.run
        batches = self._batches(self._train)
        data = SliceDataset(
            self._train, experiment.preprocessing, experiment.augment, experiment.sampling, seed=run.seed
        )
        self.excluded_donors = data.excluded
        self._loader = ResumableLoader(data, batches, **self._options())
        if self._state:
            self._loader.load_state_dict(self._state)
        return self._loader

    def val_dataloader(self) -> DataLoader[Sample] | list[Any]:
        """Return a loader of unaugmented validation samples; none without a validation set."""
        if self._validation is None:
            return []
        rank, world = self._place()
        sampler = KnownLabelSampler(self._validation.labels, rank=rank, world=world)
        if not len(sampler):
            msg = f"{self.split.name}: validation has fewer slices than the {world} processes. Use fewer, or more data"
            raise TrainingError(msg)
        data = SliceDataset(self._validation, self.experiment.preprocessing, _AS_SERVED, _NO_LESIONS, seed=0)
        return DataLoader(data, batch_size=self.experiment.run.batch_size, sampler=sampler, **self._options())

    def _batches(self, train: Crops) -> EpochBatches:
        """Return the batches of each epoch. Raises TrainingError if there are none."""
        run = self.experiment.run
        rank, world = self._place()
        sampler = EpochSampler(
            train.labels,
            self.experiment.sampling,
            seed=run.seed,
            rank=rank,
            world=world,
            first_epoch=self.first_epoch,
        )
        size = run.batch_size
        if self.lower_batch:
            size = max(2, min(size, len(sampler)))  # batch norm needs at least two
        batches = EpochBatches(sampler, size, accumulate=run.accumulate)
        if not len(batches):
            step, lower = f"a batch of {size}", "run.batch_size"
            if run.accumulate > 1:
                step = f"the {run.accumulate} batches of {size} of a step"
                lower = "run.batch_size or run.accumulate"
            found = f"an epoch has {len(sampler)} slices, fewer than {step}"
            remedy = "Give" if self.lower_batch else f"Lower {lower}, or give"
            msg = f"{self.split.name}: {found}. {remedy} data with more positive slices"
            raise TrainingError(msg)
        return batches

    def _crops(self, images: tuple[str, ...], stage: str) -> Crops:
        def progress(done: int, total: int) -> None:
            self.show(f"{self.split.name}: {stage}", done, total)

        return load_crops(
            self.cache, images, self.experiment.preprocessing, folder=self._crops_folder, progress=progress
        )

    def _place(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size

    def _options(self) -> dict[str, Any]:
        return {"num_workers": self.experiment.run.workers, "pin_memory": torch.cuda.is_available()}


def resolved_loss(experiment: Experiment, cache: Cache, split: DataSplit) -> LossConfig:
    """Return the loss with numeric weights, derived from the split's training labels if the experiment says so.

    Raises:
        ConfigError: the labels lack a class.
        DataError: the cache lacks images of the split.
    """
    return experiment.loss.resolved(label_array(chosen_slices(cache, split.train)))
