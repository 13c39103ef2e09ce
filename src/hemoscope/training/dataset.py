"""Slices for training: (seed, epoch, place) alone decides what a sample is, so a resumed run repeats itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hemoscope.data.cache import Cache
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.preprocess import Preprocessing, cropped, model_input, resized, slice_box, windowed
from hemoscope.training.augment import AugmentConfig, move, rescan
from hemoscope.training.lesions import make_lesion, paste_lesion

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """What an epoch holds: every positive slice once, and ``negatives`` normal slices for each of them.

    ``pasted`` and ``made`` are the parts of the normal slices that receive a lesion from another patient or by rule.
    """

    negatives: float = 2.5
    pasted: float = 0.25
    made: float = 0.3

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
        typed: 1 where the outline is of at most one type.
        outlined: 1 where the outline is known.
    """

    image: Tensor
    labels: Tensor
    outline: Tensor
    typed: Tensor
    outlined: Tensor


class Draw(NamedTuple):
    """One place in an epoch: which slice, and the numbers that seed its augmentation."""

    row: int
    epoch: int
    place: int


@dataclass(frozen=True, slots=True)
class Crops:
    """Head-cropped HU of all slices of some patients, in memory.

    ``hounsfield`` float32 (n, S, S), ``outlines`` uint8 (n, S, S), ``labels`` float32 (n, 6).
    """

    table: pd.DataFrame
    hounsfield: NDArray[np.float32]
    outlines: NDArray[np.uint8]
    labels: NDArray[np.float32]


def load_crops(
    cache: Cache, patients: Sequence[str], preprocessing: Preprocessing, *, progress: Progress | None = None
) -> Crops:
    """Crop and resize every slice of the patients once, before the windows, exactly as ``model_input`` does."""
    table = cache.manifest[cache.manifest["patient_id"].isin(list(patients))].reset_index(drop=True)
    size = preprocessing.size
    hounsfield = np.empty((len(table), size, size), dtype=np.float32)
    outlines = np.zeros((len(table), size, size), dtype=np.uint8)
    for series_id, rows in table.groupby("series_id"):
        series = cache.read_series(str(series_id))
        for place, index in zip(rows.index, rows["index"], strict=True):
            box = slice_box(series.volume, int(index), preprocessing)
            hounsfield[place] = cropped(series.volume, int(index), box, preprocessing)
            if series.mask is not None:
                # Air past the image is -1000, so the outline is resized on that scale too.
                scaled = resized(series.mask[index].astype(np.float32) * 1000 - 1000, box, size)
                outlines[place] = scaled > -500
        if progress is not None:
            progress(int(rows.index.max()) + 1, len(table))
    labels = table[[label.value for label in LABELS]].to_numpy(dtype=np.float32)
    return Crops(table, hounsfield, outlines, labels)


class SliceDataset(Dataset[Sample]):
    """Augmented slices, indexed by ``Draw``."""

    def __init__(
        self, crops: Crops, preprocessing: Preprocessing, augment: AugmentConfig, sampling: SamplingConfig, *, seed: int
    ) -> None:
        """Keep what samples are made from."""
        self.crops = crops
        self.preprocessing = preprocessing
        self.augment = augment
        self.sampling = sampling
        self.seed = seed
        self.donors = np.flatnonzero((crops.labels[:, 0] > 0) & crops.outlines.any(axis=(1, 2)))

    def __getitem__(self, draw: Draw) -> Sample:
        """One sample; the same draw gives the same sample."""
        rng = np.random.default_rng([self.seed, draw.epoch, draw.place])
        image, outline, labels = self._with_lesion(draw.row, rng)
        image, outline = move(image, outline, self.augment, rng)
        image = rescan(image, self.augment, rng)
        typed = labels[1:].sum() <= 1
        return Sample(
            torch.from_numpy(windowed(image, self.preprocessing)),
            torch.from_numpy(labels),
            torch.from_numpy(np.clip(outline, 0, 1)),
            torch.tensor(float(typed)),
            torch.tensor(1.0),
        )

    def _with_lesion(
        self, row: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        image, labels = self.crops.hounsfield[row], self.crops.labels[row].copy()
        outline = self.crops.outlines[row].astype(np.float32)
        lot = rng.random()
        if labels[0] or lot >= self.sampling.with_lesion:
            return image, outline, labels
        if lot < self.sampling.pasted and len(self.donors):
            donor = int(rng.choice(self.donors))
            lesion = paste_lesion(image, self.crops.hounsfield[donor], self.crops.outlines[donor] > 0, rng)
            gained = self.crops.labels[donor]
        else:
            kind = int(rng.integers(len(SUBTYPES)))
            lesion = make_lesion(image, SUBTYPES[kind], rng)
            gained = np.eye(len(LABELS), dtype=np.float32)[kind + 1]
            gained[0] = 1
        if lesion is None:
            return image, outline, labels
        return lesion[0], lesion[1].astype(np.float32), np.maximum(labels, gained)


class EpochSampler(Sampler[Draw]):
    """Draws of one epoch after another: all positives, and normals chosen and shuffled by (seed, epoch)."""

    def __init__(self, labels: NDArray[np.float32], sampling: SamplingConfig, *, seed: int) -> None:
        """``labels`` (n, 6) of the dataset's slices."""
        self.positive = np.flatnonzero(labels[:, 0] > 0)
        self.normal = np.flatnonzero(labels[:, 0] == 0)
        self.count = min(round(len(self.positive) * sampling.negatives), len(self.normal))
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch, a resumed one too."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        """The draws of the current epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        normal = rng.choice(self.normal, size=self.count, replace=False)
        rows = rng.permutation(np.concatenate([self.positive, normal]))
        return (Draw(int(row), self.epoch, place) for place, row in enumerate(rows))

    def __len__(self) -> int:
        """Samples in an epoch."""
        return len(self.positive) + self.count


class PlainSlices(Dataset[Tensor]):
    """Slices exactly as serving sees them: ``model_input`` and nothing else. For scoring."""

    def __init__(self, cache: Cache, patients: Sequence[str], preprocessing: Preprocessing) -> None:
        """Keep the table of the patients' slices."""
        self.table = cache.manifest[cache.manifest["patient_id"].isin(list(patients))].reset_index(drop=True)
        self.cache = cache
        self.preprocessing = preprocessing
        self._open: tuple[str, object] = ("", None)

    def __getitem__(self, place: int) -> Tensor:
        """Image (C, S, S) of one row of ``table``; rows of one series in a row read it once."""
        row = self.table.iloc[place]
        if self._open[0] != row["series_id"]:
            self._open = (row["series_id"], self.cache.read_series(row["series_id"]).volume)
        return torch.from_numpy(model_input(self._open[1], int(row["index"]), self.preprocessing))  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.table)
