"""Training samples; each follows from (seed, epoch, position) alone, so a resumed run repeats them exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hemoscope.data.cache import Cache, CachedSeries
from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import Box, Preprocessing, box_on_slice, channels, model_input
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.training.augment import AugmentConfig, intensity_augmentation, spatial_augmentation
from hemoscope.training.crops import Crops, chosen_slices
from hemoscope.training.donors import measured_donors
from hemoscope.training.mimics import mimic_in_stack
from hemoscope.training.stacked_lesions import Shapes, Stack, paste_in_stack, synthesize_in_stack
from hemoscope.training.synthetic_lesions import Inside, Mask, inside_skull

Sampling = Literal["balanced", "all"]
_MIMICS = 1  # distinguishes the random numbers of the mimics
_MIMICS_BESIDE_BLOOD = 0.4  # of the share elsewhere

Lesion = tuple[Stack, Mask, NDArray[np.float32]]  # the stack with the lesion, its mask, its labels

_MOST_TRIES = 100
_REMEMBERED = 4096  # packed masks of the skull's inside, at 256 pixels 8 KB each


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """Which slices an epoch contains.

    Attributes:
        kind: ``balanced``: every slice with a positive label once, and ``negatives`` other slices for each of them,
            sampled again in each epoch; ``all``: every slice once. Slices without a known label are never used.
        negatives: slices without a positive label for each positive one; for ``balanced``.
        pasted: share of the normal slices (``any`` known to be 0) that get a lesion pasted from another patient.
        made: share of the normal slices that get a synthetic lesion.
        tries: donors that are tried for a pasted lesion, and then types and places for a synthetic one, until one fits
            and is seen. 1 tries one of either kind, so that most of these slices stay normal.
        paste_lift: least HU by which a pasted lesion must raise its place on average; None does not test it.
        donor_lift: least HU by which an outlined bleed must be brighter than the brain around it to be pasted and to
            train the maps; its labels are used in any case. None accepts every outline.
        shapes: of synthetic lesions; ``anatomical`` follows cisterns, sulci, horns and the falx, ``simple`` does not.
        mimics: share of all slices that get something bright that is not blood; their labels stay as they are.
    """

    kind: Sampling = "balanced"
    negatives: float = 2.5
    pasted: float = 0.25
    made: float = 0.3
    tries: int = 1
    paste_lift: float | None = None
    donor_lift: float | None = None
    shapes: Shapes = "simple"
    mimics: float = 0.0

    def __post_init__(self) -> None:
        """Reject settings from which no epoch can be sampled."""
        if self.kind not in get_args(Sampling):
            msg = f"kind must be one of {', '.join(get_args(Sampling))}, got {self.kind}"
            raise ConfigError(msg)
        if self.negatives < 0:
            msg = f"negatives must be at least 0, got {self.negatives}"
            raise ConfigError(msg)
        if self.shapes not in get_args(Shapes):
            msg = f"shapes must be one of {', '.join(get_args(Shapes))}, got {self.shapes}"
            raise ConfigError(msg)
        if not 0 <= self.mimics <= 1:
            msg = f"mimics must be a share from 0 to 1, got {self.mimics}"
            raise ConfigError(msg)
        if min(self.pasted, self.made) < 0 or self.with_lesion > 1:
            msg = f"pasted and made must be shares of at most 1 together, got {self.pasted} and {self.made}"
            raise ConfigError(msg)
        if not 1 <= self.tries <= _MOST_TRIES:
            msg = f"tries must be 1 to {_MOST_TRIES}, got {self.tries}"
            raise ConfigError(msg)

    @property
    def with_lesion(self) -> float:
        """Share of the normal slices that get a lesion of either kind."""
        return self.pasted + self.made


class Sample(NamedTuple):
    """One training sample.

    Attributes:
        image: (C, S, S) in [0, 1].
        labels: (6), 0 or 1; NaN is unknown.
        mask: (S, S) in [0, 1], lesions of any type.
        typed: 1 if the mask is of at most one, known type; else 0.
        mask_known: 1 if the mask is known: drawn by a reader around what shows, synthetic, or empty because the slice
            is normal.
    """

    image: Tensor
    labels: Tensor
    mask: Tensor
    typed: Tensor
    mask_known: Tensor


class SampleIndex(NamedTuple):
    """Index of one sample: the slice, and the numbers that seed its augmentation."""

    row: int
    epoch: int
    place: int


class SliceDataset(Dataset[Sample]):
    """Augmented slices, indexed by ``SampleIndex``."""

    def __init__(
        self, crops: Crops, preprocessing: Preprocessing, augment: AugmentConfig, sampling: SamplingConfig, *, seed: int
    ) -> None:
        """Keep the sources of the samples."""
        self.crops = crops
        self.preprocessing = preprocessing
        self.augment = augment
        self.sampling = sampling
        self.seed = seed
        self._insides: dict[int, NDArray[np.uint8] | None] = {}
        bleeding = np.flatnonzero((crops.labels[:, 0] == 1) & (crops.mask_of >= 0))
        outlined = measured_donors(crops, map(int, bleeding))
        chosen = [donor.row for donor in outlined if donor.shows(sampling.donor_lift)]
        self.donors: NDArray[np.intp] = np.array(chosen, dtype=np.intp)
        self.excluded = tuple(donor for donor in outlined if not donor.shows(sampling.donor_lift))
        self._unseen = frozenset(donor.row for donor in self.excluded)

    def __getitem__(self, draw: SampleIndex) -> Sample:
        """Return one sample; the same index gives the same sample."""
        rng = np.random.default_rng([self.seed, draw.epoch, draw.place])
        stack, labels = self.crops.stack(draw.row), self.crops.labels[draw.row].copy()
        mask = self.crops.mask(draw.row)
        outlined = self.crops.mask_of[draw.row] >= 0 and draw.row not in self._unseen
        mask_known = labels[0] == 0 or outlined
        plain, stack = stack, self._with_mimic(stack, labels, draw)
        lesion = self.lesion(draw.row, stack, labels, rng, plain=plain)
        if lesion is not None:
            stack, shape, gained = lesion
            mask, labels = shape.astype(np.float32), _joined(labels, gained)
        stack, mask = spatial_augmentation(stack, mask, self.augment, rng)
        stack = intensity_augmentation(stack, self.augment, rng)
        return Sample(
            torch.from_numpy(channels(stack, self.preprocessing)),
            torch.from_numpy(labels),
            torch.from_numpy(np.clip(mask, 0, 1)),
            torch.tensor(float(labels[1:].sum() <= 1)),  # False if a type is unknown
            torch.tensor(float(mask_known)),
        )

    def _with_mimic(self, stack: Stack, labels: NDArray[np.float32], draw: SampleIndex) -> Stack:
        """Add a mimic to a share of the stacks; its own random numbers leave those of the lesions as they were.

        Beside a bleed they are rarer. A slice at the height of the ventricles, where most calcium is, bleeds more often
        than others; at an equal share, calcium itself would tell of blood.
        """
        share = self.sampling.mimics * (1 if labels[0] == 0 else _MIMICS_BESIDE_BLOOD)
        if not share:
            return stack
        rng = np.random.default_rng([self.seed, draw.epoch, draw.place, _MIMICS])
        changed = mimic_in_stack(stack, rng) if rng.random() < share else None
        return stack if changed is None else changed

    def lesion(
        self,
        row: int,
        stack: Stack,
        labels: NDArray[np.float32],
        rng: np.random.Generator,
        *,
        plain: Stack | None = None,
    ) -> Lesion | None:
        """Add a lesion to a normal stack; return stack, mask and labels, or None if nothing was added.

        ``plain`` is the stack without a mimic: calcium and catheters are dense like bone, but bound no brain.
        """
        lot = rng.random()
        if labels[0] != 0 or lot >= self.sampling.with_lesion:  # an unknown label is not a normal slice
            return None
        pasted = lot < self.sampling.pasted and len(self.donors)
        inside, again = self._inside(row, stack if plain is None else plain), self.sampling.tries > 1
        if again and inside is None:  # nothing can be pasted; anatomical shapes have a wider inside of their own
            return self._made(stack, None, rng) if self.sampling.shapes == "anatomical" else None
        found = self._pasted(stack, inside, rng) if pasted else self._made(stack, inside, rng)
        if found is None and pasted and again:
            found = self._made(stack, inside, rng)
        return found

    def _pasted(self, stack: Stack, inside: Inside | None, rng: np.random.Generator) -> Lesion | None:
        """Paste the bleed of the first of several donors that fits."""
        for _ in range(self.sampling.tries):
            donor = int(rng.choice(self.donors))
            lesion = paste_in_stack(
                stack,
                self.crops.stack(donor),
                self.crops.mask(donor) > 0,
                rng,
                inside=inside,
                least_lift=self.sampling.paste_lift,
            )
            if lesion is not None:
                return *lesion, self.crops.labels[donor]
        return None

    def _made(self, stack: Stack, inside: Inside | None, rng: np.random.Generator) -> Lesion | None:
        """Add a synthetic lesion; while none fits, of each other type in turn, then of each type in other places."""
        kinds = [int(rng.integers(len(SUBTYPES)))]
        for number in range(self.sampling.tries):
            if number == len(kinds):
                others = [kind for kind in range(len(SUBTYPES)) if number > 1 or kind != kinds[0]]
                kinds += [int(kind) for kind in rng.permutation(others)]
            lesion = synthesize_in_stack(stack, SUBTYPES[kinds[number]], rng, self.sampling.shapes, inside=inside)
            if lesion is not None:
                gained = np.eye(len(LABELS), dtype=np.float32)[kinds[number] + 1]
                gained[0] = 1
                return *lesion, gained
        return None

    def _inside(self, row: int, stack: Stack) -> Inside | None:
        """Return the inside of the skull in the middle slice; the masks of the first slices are kept."""
        if row in self._insides:
            packed = self._insides[row]
            count, shape = stack[0].size, stack.shape[1:]
            return (
                None if packed is None else Inside(np.unpackbits(packed, count=count).reshape(shape).astype(np.bool_))
            )
        inside = inside_skull(stack[len(stack) // 2])
        if len(self._insides) < _REMEMBERED:
            self._insides[row] = None if inside is None else np.packbits(inside.mask)
        return inside


def _joined(labels: NDArray[np.float32], gained: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 if either is 1, NaN if that is unknown, else 0."""
    return np.where((labels == 1) | (gained == 1), np.float32(1), labels + gained)


class EpochSampler(Sampler[SampleIndex]):
    """Samples and shuffles each epoch from (seed, epoch), and yields the share of one of ``world`` processes.

    Process ``rank`` takes positions rank, rank + world, ...: a step of all processes together sees the same samples,
    with the same augmentation, as a step of one process with the same total batch size. Every process gets the same
    number of samples; up to ``world`` - 1 samples at the end of an epoch are dropped.
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
        """Args are the ``labels`` (n, 6) of the slices, NaN if unknown, and the number of the trainer's first epoch."""
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
        """Lightning calls this at the start of every epoch, also of a resumed one."""
        self.epoch = self.first_epoch + epoch

    def __iter__(self) -> Iterator[SampleIndex]:
        """Yield this process's indices of the current epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        rest = rng.choice(self.rest, size=self.count, replace=False)
        rows = rng.permutation(np.concatenate([self.positive, rest]))
        places = range(self.rank, len(self) * self.world, self.world)
        return (SampleIndex(int(rows[place]), self.epoch, place) for place in places)

    def __len__(self) -> int:
        """Number of samples of this process in an epoch."""
        return (len(self.positive) + self.count) // self.world


class PlainSlices(Dataset[Tensor]):
    """Slices exactly as serving preprocesses them (``model_input`` only), for scoring."""

    def __init__(self, cache: Cache, image_ids: Sequence[str], preprocessing: Preprocessing) -> None:
        """Keep the slices' rows of the manifest in its order, so that slices of one series are adjacent."""
        self.table = chosen_slices(cache, image_ids)
        self.cache = cache
        self.preprocessing = preprocessing
        self._open: tuple[str, CachedSeries] | None = None

    def __getitem__(self, place: int) -> Tensor:
        """Return the image (C, S, S) of one row of ``table``; adjacent rows of one series read it once."""
        series, index = self._stored(place)
        return torch.from_numpy(model_input(series.volume, index, self.preprocessing))

    def outline(self, place: int) -> tuple[NDArray[np.bool_], Box] | None:
        """Return the outline of the lesions of one row, bool (rows, columns) as stored, and the part of the slice seen.

        None if no outline is known.
        """
        if not self.table["masked"].iloc[place]:
            return None
        series, index = self._stored(place)
        if series.mask is None:
            return None
        return series.mask[index], box_on_slice(series.volume, index, self.preprocessing)

    def _stored(self, place: int) -> tuple[CachedSeries, int]:
        row = self.table.iloc[place]
        series_id = str(row["series_id"])
        if self._open is None or self._open[0] != series_id:
            self._open = (series_id, self.cache.read_series(series_id))
        return self._open[1], int(row["index"])

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.table)

    def positions_mm(self) -> list[float | None]:
        """Position along the head of each slice of ``table``, in mm; None if unknown."""
        found: dict[int, float | None] = {}
        for series_id, rows in self.table.groupby("series_id"):
            places = [int(index) for index in rows["index"]]
            found |= zip(rows.index, self.cache.read_positions(str(series_id), places), strict=True)
        return [found[row] for row in self.table.index]
