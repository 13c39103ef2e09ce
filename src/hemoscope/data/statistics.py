"""Statistics of a cache: images by label and number of diagnoses, co-occurring labels, slices per patient.

Unknown labels are counted as unknown, never as negative.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.inference.card import TrainingData, to_plain
from hemoscope.labels import LABELS, PerLabel

Counts = NDArray[np.int64]
Six = tuple[int | None, ...]
KINDS = ("none", "one type", "more than one", "unknown")
_ROWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """How often one label is positive, negative and unknown, and how many patients have a positive slice."""

    positive: int
    negative: int
    unknown: int
    positive_patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest, middle and largest of some counts."""

    least: int
    median: float
    most: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """A dataset in numbers.

    Attributes:
        labels: of each class (the paper's figure 2).
        kinds: images with no diagnosis, one type, more than one, and unknown (the paper's section III: 85.7, 10.1 and
            4.2%).
        co_occurrence: (6, 6), images positive for both labels; the diagonal counts each label.
        combinations: six labels (None is unknown) and the number of images with them, most frequent first.
        rows: the id and the six labels of one image of each of the most frequent combinations (the form of the paper's
            Table I).
        contradictions: images whose `any` disagrees with their types.
        slices: how many slices each patient has, (patients,).
    """

    dataset: TrainingData
    images: int
    patients: int
    studies: int
    series: int
    labels: PerLabel[LabelCount]
    kinds: dict[str, int]
    co_occurrence: Counts
    combinations: tuple[tuple[Six, int], ...]
    rows: tuple[tuple[str, Six], ...]
    contradictions: int
    slices: Counts

    @property
    def slices_a_patient(self) -> Spread:
        """Spread of the number of slices per patient."""
        return Spread(least=int(self.slices.min()), median=float(np.median(self.slices)), most=int(self.slices.max()))

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as JSON types."""
        return {
            "dataset": to_plain(self.dataset),
            "images": self.images,
            "patients": self.patients,
            "studies": self.studies,
            "series": self.series,
            "labels": to_plain(self.labels),
            "kinds": self.kinds,
            "co_occurrence": self.co_occurrence.tolist(),
            "combinations": [{"labels": list(six), "images": count} for six, count in self.combinations],
            "rows": [{"image_id": image_id, "labels": list(six)} for image_id, six in self.rows],
            "contradictions": self.contradictions,
            "slices_a_patient": to_plain(self.slices_a_patient),
        }


def dataset_statistics(cache: Cache) -> Statistics:
    """Compute statistics of a cache; only its manifest is read."""
    table = cache.manifest
    labels = table[[label.value for label in LABELS]].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    patients, patient_of = np.unique(table["patient_id"].to_numpy(dtype=str), return_inverse=True)
    positive = (labels == 1).astype(np.int64)
    combinations, examples = _combinations(labels)
    image_ids = table["image_id"].to_numpy(dtype=str)
    return Statistics(
        dataset=cache.dataset,
        images=len(table),
        patients=len(patients),
        studies=int(table["study_id"].nunique()),
        series=int(table["series_id"].nunique()),
        labels=PerLabel.build(lambda label: _count(labels[:, LABELS.index(label)], patient_of)),
        kinds=_kinds(labels),
        co_occurrence=positive.T @ positive,
        combinations=combinations,
        rows=tuple(
            (str(image_ids[place]), six) for place, (six, _) in zip(examples[:_ROWS], combinations, strict=False)
        ),
        contradictions=_contradictions(labels),
        slices=np.bincount(patient_of, minlength=len(patients)).astype(np.int64),
    )


def _count(column: NDArray[np.float64], patient_of: NDArray[np.intp]) -> LabelCount:
    return LabelCount(
        positive=int((column == 1).sum()),
        negative=int((column == 0).sum()),
        unknown=int(np.isnan(column).sum()),
        positive_patients=len(np.unique(patient_of[column == 1])),
    )


def _kinds(labels: NDArray[np.float64]) -> dict[str, int]:
    types = labels[:, 1:]
    positive, open_ = (types == 1).sum(axis=1), np.isnan(types).any(axis=1)
    none = (labels[:, 0] == 0) & (positive == 0) & ~open_
    one = (positive == 1) & ~open_
    several = positive > 1
    counts = [int(kind.sum()) for kind in (none, one, several)]
    return dict(zip(KINDS, [*counts, len(labels) - sum(counts)], strict=True))


def _contradictions(labels: NDArray[np.float64]) -> int:
    types = labels[:, 1:]
    some, none = (types == 1).any(axis=1), (types == 0).all(axis=1)
    return int((((labels[:, 0] == 0) & some) | ((labels[:, 0] == 1) & none)).sum())


def _combinations(labels: NDArray[np.float64]) -> tuple[tuple[tuple[Six, int], ...], list[int]]:
    """Return the combinations with their counts, most frequent first, and the first image of each."""
    known = np.nan_to_num(labels, nan=-1).astype(np.int64)
    rows, first, counts = np.unique(known, axis=0, return_index=True, return_counts=True)
    sixes = [tuple(None if value < 0 else int(value) for value in row) for row in rows]
    order = np.argsort(-counts, kind="stable")
    return tuple((sixes[place], int(counts[place])) for place in order), first[order].tolist()
