"""Splits by patient, and the paper's split by slice, which leaks: slices of one patient are in train and test."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import DataError
from hemoscope.labels import SUBTYPES

LEAK_WARNING = (
    "Split by slice, as in the paper: slices of one patient are in both train and test, so these scores are too high "
    "for new patients"
)
_SEED = 257


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Image ids of the training, validation and test sets, and the unit of the split."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    by: Literal["patient", "slice"]

    @property
    def warning(self) -> str | None:
        """Warning that every report of this split must show; None if nothing leaks."""
        return LEAK_WARNING if self.by == "slice" else None


def split_by_patient(
    image_ids: Sequence[str],
    patients: Sequence[str],
    labels: NDArray[np.float64],
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = _SEED,
) -> Split:
    """Split images by patient, stratified on the rarest label that a patient has; the same for any order of rows.

    Args:
        image_ids: all images.
        patients: the patient of each.
        labels: (images, 6) of 0, 1 or NaN (unknown) in label order.
        validation: share of the patients.
        test: share of the patients.
        seed: of the order in which patients of one group are assigned.

    Raises:
        DataError: the shares are invalid, or leave a set without patients.
    """
    shares = {"train": 1.0 - validation - test, "validation": validation, "test": test}
    if min(validation, test) < 0 or shares["train"] <= 0:
        msg = f"validation {validation} and test {test} must be shares that leave patients for training"
        raise DataError(msg)
    names, patient_of = np.unique(np.array(patients, dtype=str), return_inverse=True)
    counts = np.zeros((len(names), labels.shape[1]), dtype=np.int64)
    np.add.at(counts, patient_of, (labels == 1).astype(np.int64))
    positives = {str(name): tuple(row) for name, row in zip(names, counts.tolist(), strict=True)}
    set_of = _assign_sets(positives, shares, seed=seed)
    empty = [name for name, share in shares.items() if share > 0 and name not in set_of.values()]
    if empty:
        msg = f"{len(names)} patients leave none for {' and '.join(empty)}. Use larger shares or more patients"
        raise DataError(msg)
    ordered = sorted(zip(image_ids, patients, strict=True))
    chosen = {name: tuple(image for image, patient in ordered if set_of[patient] == name) for name in shares}
    return Split(train=chosen["train"], validation=chosen["validation"], test=chosen["test"], by="patient")


def split_by_slice(image_ids: Sequence[str], *, test: float = 0.1, seed: int = _SEED) -> Split:
    """The paper's split: random slices, no validation set; slices of one patient are in both train and test.

    Equals scikit-learn's ``train_test_split(sorted(image_ids), test_size=test, random_state=seed)``, also in order.
    Every report of it must show ``Split.warning``.

    Raises:
        DataError: an image occurs twice, or a set would be empty.
    """
    ordered = sorted(image_ids)
    if len(set(ordered)) != len(ordered):
        msg = f"{len(ordered) - len(set(ordered))} image ids occur twice. Remove the repeated ones"
        raise DataError(msg)
    size = ceil(test * len(ordered))
    if not 0 < size < len(ordered):
        msg = f"a test share of {test} of {len(ordered)} images leaves one set empty"
        raise DataError(msg)
    # NumPy's legacy generator on purpose: its stream is frozen, and scikit-learn uses it.
    places = np.random.RandomState(seed).permutation(len(ordered))
    shuffled = [ordered[place] for place in places]
    return Split(train=tuple(shuffled[size:]), validation=(), test=tuple(shuffled[:size]), by="slice")


def patient_folds(positives: Mapping[str, Sequence[int]], *, folds: int, seed: int) -> dict[str, int]:
    """Assign each patient to a fold, stratified on the rarest label that the patient has.

    Patients with the rarest label are assigned first, each to the fold with the fewest such patients, then with the
    fewest patients; patients without hemorrhage come last.

    Args:
        positives: for each patient, how many positive slices it has, in label order.
        folds: number of folds.
        seed: of the order in which patients of one group are assigned.

    Raises:
        DataError: fewer patients than folds.
    """
    if folds < 2 or len(positives) < folds:
        msg = f"{len(positives)} patients cannot make {folds} folds. Use at least 2 folds and as many patients"
        raise DataError(msg)

    def fullness(same: Counter[int], size: Counter[int], fold: int) -> tuple[float, ...]:
        return (same[fold], size[fold], fold)

    return _assign(positives, tuple(range(folds)), fullness, seed=seed)


def _assign_sets(positives: Mapping[str, Sequence[int]], shares: Mapping[str, float], *, seed: int) -> dict[str, str]:
    sets = tuple(name for name, share in shares.items() if share > 0)
    wanted = [shares[name] for name in sets]

    def fullness(_same: Counter[int], size: Counter[int], place: int) -> tuple[float, ...]:
        # Groups are assigned one after another, so sets that fill evenly (Webster's method) get an even share of each.
        return ((size[place] + 0.5) / wanted[place], place)

    places = _assign(positives, tuple(range(len(sets))), fullness, seed=seed)
    return {patient: sets[place] for patient, place in places.items()}


def _assign(
    positives: Mapping[str, Sequence[int]],
    places: Sequence[int],
    fullness: Callable[[Counter[int], Counter[int], int], tuple[float, ...]],
    *,
    seed: int,
) -> dict[str, int]:
    """Assign patients, those with the rarest label first, each to the least filled set."""
    carriers = [sum(bool(counts[i + 1]) for counts in positives.values()) for i in range(len(SUBTYPES))]
    rarest_first = sorted(range(len(SUBTYPES)), key=lambda i: carriers[i])
    group = {
        patient: next((rank for rank, i in enumerate(rarest_first) if counts[i + 1]), len(SUBTYPES))
        for patient, counts in positives.items()
    }
    order = np.random.default_rng(seed).permutation(sorted(positives)).tolist()
    same: dict[int, Counter[int]] = {rank: Counter() for rank in range(len(SUBTYPES) + 1)}
    size: Counter[int] = Counter()
    place_of: dict[str, int] = {}
    for patient in sorted(order, key=lambda name: group[name]):
        mine = same[group[patient]]
        place = min(places, key=lambda candidate: fullness(mine, size, candidate))
        place_of[patient] = place
        mine[place] += 1
        size[place] += 1
    return place_of
