"""Slices for training: (seed, epoch, place) alone decides what a sample is, so a resumed run repeats itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import Preprocessing, channels, model_input
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.training.augment import AugmentConfig, intensity_augmentation, spatial_augmentation
from hemoscope.training.crops import Crops, chosen_slices
from hemoscope.training.lesions import Mask
from hemoscope.training.stacked_lesions import Stack, paste_in_stack, synthesize_in_stack
from hemoscope.volume import HounsfieldVolume

Sampling = Literal["balanced", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """What an epoch holds.

    Attributes:
        kind: ``balanced``: every slice with a positive label once, and ``negatives`` others for each of them, drawn
            anew for each epoch; ``all``: every slice once. A slice without any known label is never drawn.
        negatives: slices without a positive label for each positive one; for ``balanced``.
        pasted: part of the normal slices (``any`` known to be 0) that receive a lesion of another patient.
        made: part of the normal slices that receive a lesion by rule.
    """

    kind: Sampling = "balanced"
    negatives: float = 2.5
    pasted: float = 0.25
    made: float = 0.3

    def __post_init__(self) -> None:
        """Reject what no epoch could be drawn by."""
        if self.kind not in get_args(Sampling):
            msg = f"kind must be one of {', '.join(get_args(Sampling))}, got {self.kind}"
            raise ConfigError(msg)
        if self.negatives < 0:
            msg = f"negatives must be at least 0, got {self.negatives}"
            raise ConfigError(msg)
        if min(self.pasted, self.made) < 0 or self.with_lesion > 1:
            msg = f"pasted and made must be shares of at most 1 together, got {self.pasted} and {self.made}"
            raise ConfigError(msg)

    @property
    def with_lesion(self) -> float:
        """Part of the normal slices that receive a lesion of either kind."""
        return self.pasted + self.made


class Sample(NamedTuple):
    """One slice.

    Attributes:
        image: (C, S, S) in [0, 1].
        labels: (6), 0 or 1; NaN is unknown.
        outline: (S, S) in [0, 1], lesions of whatever type.
        typed: 1 where the outline is of at most one type, and that is known.
        outlined: 1 where the outline is known: drawn by a reader, made here, or empty since nothing bleeds.
    """

    image: Tensor
    labels: Tensor
    outline: Tensor
    typed: Tensor
    outlined: Tensor


class SampleIndex(NamedTuple):
    """One place in an epoch: which slice, and the numbers that seed its augmentation."""

    row: int
    epoch: int
    place: int


class SliceDataset(Dataset[Sample]):
    """Augmented slices, indexed by ``SampleIndex``."""

    def __init__(
        self, crops: Crops, preprocessing: Preprocessing, augment: AugmentConfig, sampling: SamplingConfig, *, seed: int
    ) -> None:
        """Keep what samples are made from."""
        self.crops = crops
        self.preprocessing = preprocessing
        self.augment = augment
        self.sampling = sampling
        self.seed = seed
        self.donors = self._donors()

    def _donors(self) -> NDArray[np.intp]:
        """Slices that bleed and whose lesion was outlined: those whose lesion can be pasted."""
        bleeding = np.flatnonzero((self.crops.labels[:, 0] == 1) & (self.crops.outline_of >= 0))
        return np.array([row for row in map(int, bleeding) if self.crops.outline(row).any()], dtype=np.intp)

    def __getitem__(self, draw: SampleIndex) -> Sample:
        """One sample; the same draw gives the same sample."""
        rng = np.random.default_rng([self.seed, draw.epoch, draw.place])
        stack, labels = np.asarray(self.crops.hounsfield[draw.row]), self.crops.labels[draw.row].copy()
        outline = self.crops.outline(draw.row)
        outlined = labels[0] == 0 or self.crops.outline_of[draw.row] >= 0
        lesion = self._lesion(stack, labels, rng)
        if lesion is not None:
            stack, shape, gained = lesion
            outline, labels = shape.astype(np.float32), _joined(labels, gained)
        stack, outline = spatial_augmentation(stack, outline, self.augment, rng)
        stack = intensity_augmentation(stack, self.augment, rng)
        return Sample(
            torch.from_numpy(channels(stack, self.preprocessing)),
            torch.from_numpy(labels),
            torch.from_numpy(np.clip(outline, 0, 1)),
            torch.tensor(float(labels[1:].sum() <= 1)),  # false where a type is unknown
            torch.tensor(float(outlined)),
        )

    def _lesion(
        self, stack: Stack, labels: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[Stack, Mask, NDArray[np.float32]] | None:
        """A normal stack with a lesion, the lesion's outline and its labels; None where it stays as it is."""
        lot = rng.random()
        if labels[0] != 0 or lot >= self.sampling.with_lesion:  # unknown is not normal
            return None
        if lot < self.sampling.pasted and len(self.donors):
            donor = int(rng.choice(self.donors))
            shape = self.crops.outline(donor) > 0
            lesion = paste_in_stack(stack, np.asarray(self.crops.hounsfield[donor]), shape, rng)
            gained = self.crops.labels[donor]
        else:
            kind = int(rng.integers(len(SUBTYPES)))
            lesion = synthesize_in_stack(stack, SUBTYPES[kind], rng)
            gained = np.eye(len(LABELS), dtype=np.float32)[kind + 1]
            gained[0] = 1
        return None if lesion is None else (*lesion, gained)


def _joined(labels: NDArray[np.float32], gained: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where either is, unknown where that cannot be told, else 0."""
    return np.where((labels == 1) | (gained == 1), np.float32(1), labels + gained)


class EpochSampler(Sampler[SampleIndex]):
    """Draws of one epoch after another, chosen and shuffled by (seed, epoch); one of ``world`` processes takes its own.

    Process ``rank`` takes places rank, rank + world, ...: a step of all processes together sees the same samples, with
    the same augmentation, as a step of one process with a batch of the same size in all. Every process draws equally
    many; what is left over at the end (fewer than ``world``) is not drawn in that epoch.
    """

    def __init__(
        self,
        labels: NDArray[np.float32],
        sampling: SamplingConfig,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        first_epoch: int = 0,
    ) -> None:
        """``labels`` (n, 6) of the dataset's slices, NaN where unknown; the trainer's epochs count from the first."""
        positive = (labels == 1).any(axis=1)
        rest = np.flatnonzero(np.isfinite(labels).any(axis=1) & ~positive)
        self.positive, self.rest = np.flatnonzero(positive), rest
        asked = round(len(self.positive) * sampling.negatives) if sampling.kind == "balanced" else len(rest)
        self.count = min(asked, len(rest))
        self.seed = seed
        self.rank, self.world = rank, world
        self.first_epoch = first_epoch
        self.epoch = first_epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch, a resumed one too."""
        self.epoch = self.first_epoch + epoch

    def __iter__(self) -> Iterator[SampleIndex]:
        """This process's draws of the current epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        rest = rng.choice(self.rest, size=self.count, replace=False)
        rows = rng.permutation(np.concatenate([self.positive, rest]))
        places = range(self.rank, len(self) * self.world, self.world)
        return (SampleIndex(int(rows[place]), self.epoch, place) for place in places)

    def __len__(self) -> int:
        """Samples of this process in an epoch."""
        return (len(self.positive) + self.count) // self.world


class PlainSlices(Dataset[Tensor]):
    """Slices exactly as serving sees them: ``model_input`` and nothing else. For scoring."""

    def __init__(self, cache: Cache, image_ids: Sequence[str], preprocessing: Preprocessing) -> None:
        """Keep the slices' rows of the manifest, in its order: those of one series stand together."""
        self.table = chosen_slices(cache, image_ids)
        self.cache = cache
        self.preprocessing = preprocessing
        self._open: tuple[str, HounsfieldVolume] | None = None

    def __getitem__(self, place: int) -> Tensor:
        """Image (C, S, S) of one row of ``table``; rows of one series in a row read it once."""
        row = self.table.iloc[place]
        series_id = str(row["series_id"])
        if self._open is None or self._open[0] != series_id:
            self._open = (series_id, self.cache.read_series(series_id).volume)
        return torch.from_numpy(model_input(self._open[1], int(row["index"]), self.preprocessing))

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.table)

    def positions_mm(self) -> list[float | None]:
        """Position along the head of each slice of ``table``, in millimetres; None where unknown."""
        found: dict[int, float | None] = {}
        for series_id, rows in self.table.groupby("series_id"):
            places = [int(index) for index in rows["index"]]
            found |= zip(rows.index, self.cache.read_positions(str(series_id), places), strict=True)
        return [found[row] for row in self.table.index]
