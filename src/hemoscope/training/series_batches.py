"""Series as input of the sequence network, in training and scoring: groups of slices, views, labels and batches.

Each sample follows from (seed, epoch, position) alone, so that a resumed run repeats them exactly.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler

from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.probabilities import averaged, sequence_places
from hemoscope.labels import LABELS
from hemoscope.training.embeddings import EmbeddedSeries, EmbeddingStore
from hemoscope.training.models.sequence import SequenceConfig, SequenceNetwork

NOMINAL_SPACING_MM = StudyRule().nominal_spacing_mm


class SeriesSample(NamedTuple):
    """One series: P places (groups of thin slices), T slices. A batch has one more leading axis and padding at the end.

    ``embeddings`` (P, D) and ``before`` (P, 6), the slices' means; ``logits`` (T, 6) of the slices themselves;
    ``places`` (T,) is the place of each slice; ``labels`` (T, 6), NaN if unknown; ``length`` is P.
    """

    embeddings: Tensor
    before: Tensor
    logits: Tensor
    places: Tensor
    labels: Tensor
    length: Tensor


class SeriesIndex(NamedTuple):
    """Index of one sample: the series, and the numbers that choose its view."""

    row: int
    epoch: int
    place: int


def series_sample(
    series: EmbeddedSeries, labels: NDArray[np.float32], *, view: int = 0, turned: bool = False
) -> SeriesSample:
    """Build the network's input from a series, head to feet if ``turned``; ``labels`` (T, 6)."""
    places = sequence_places(series.positions_mm, NOMINAL_SPACING_MM)
    embeddings = averaged(series.embeddings[view].numpy(), places)
    before = averaged(series.logits[view].numpy(), places)
    if turned:
        embeddings, before, places = embeddings[::-1].copy(), before[::-1].copy(), places[-1] - places
    length = torch.tensor(len(embeddings))
    return SeriesSample(
        torch.from_numpy(embeddings),
        torch.from_numpy(before),
        series.logits[view],
        torch.from_numpy(places),
        torch.from_numpy(labels),
        length,
    )


def padded(samples: Sequence[SeriesSample]) -> SeriesSample:
    """Pad series of different lengths into a batch; padded labels are unknown, so they do not count in the loss."""
    join = partial(pad_sequence, batch_first=True)
    return SeriesSample(
        embeddings=join([sample.embeddings for sample in samples]),
        before=join([sample.before for sample in samples]),
        logits=join([sample.logits for sample in samples]),
        places=join([sample.places for sample in samples]),
        labels=join([sample.labels for sample in samples], padding_value=float("nan")),
        length=torch.stack([sample.length for sample in samples]),
    )


def refined(sequence: SequenceNetwork, batch: SeriesSample) -> tuple[Tensor, Tensor]:
    """Return slice logits (N, T, 6), each with its place's correction, and study logits (N, 6) of a padded batch."""
    output = sequence(batch.embeddings, batch.before, batch.length)
    correction = output.logits - batch.before
    of_slices = correction.gather(1, batch.places[:, :, None].expand(-1, -1, len(LABELS)))
    return batch.logits + of_slices, output.study_logits


class SeriesDataset(Dataset[SeriesSample]):
    """Series with the labels of some of their images, indexed by ``SeriesIndex``."""

    def __init__(self, store: EmbeddingStore, table: pd.DataFrame, config: SequenceConfig, *, seed: int) -> None:
        """``table`` holds rows of the manifest. Series are read whole; only slices in it have labels."""
        self.store = store
        self.rows = {str(name): rows for name, rows in table.groupby("series_id")}
        self.series_ids = list(self.rows)
        self.config = config
        self.seed = seed

    def __getitem__(self, draw: SeriesIndex) -> SeriesSample:
        """Return one sample; the same index gives the same sample."""
        rng = np.random.default_rng([self.seed, draw.epoch, draw.place])
        series_id = self.series_ids[draw.row]
        series = self.store.read(series_id)
        labels = known_labels(self.rows[series_id], len(series.positions_mm))
        view = int(rng.integers(len(series.embeddings)))
        sample: SeriesSample = series_sample(series, labels, view=view, turned=bool(rng.random() < self.config.reverse))
        return sample

    def __len__(self) -> int:
        """Number of series."""
        return len(self.series_ids)


class SeriesSampler(Sampler[SeriesIndex]):
    """Yields every series once per epoch, shuffled by (seed, epoch)."""

    def __init__(self, count: int, *, seed: int) -> None:
        """Sample from ``count`` series."""
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch, also of a resumed one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SeriesIndex]:
        """Yield the indices of the current epoch."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return (SeriesIndex(int(row), self.epoch, place) for place, row in enumerate(order))

    def __len__(self) -> int:
        """Number of samples in an epoch."""
        return self.count


def known_labels(rows: pd.DataFrame, slices: int) -> NDArray[np.float32]:
    """Return labels (slices, 6) of a series from rows of the manifest; NaN for slices without a row."""
    labels = np.full((slices, len(LABELS)), np.nan, dtype=np.float32)
    labels[rows["index"].to_numpy()] = label_array(rows)
    return labels


def highest_known(labels: Tensor) -> Tensor:
    """Return labels (N, 6) of series: the highest known label of their slices (N, T, 6), NaN if none is known."""
    highest = labels.nan_to_num(-1).amax(dim=1)
    return torch.where(highest < 0, torch.nan, highest)


def label_array(rows: pd.DataFrame) -> NDArray[np.float32]:
    """Return labels (n, 6) of rows of the manifest, NaN if unknown."""
    return np.asarray(rows[[label.value for label in LABELS]].to_numpy(dtype=np.float32, na_value=np.nan))
