"""Splits by patient: no slice of a patient stands on both sides."""

from collections.abc import Mapping, Sequence

import numpy as np

from hemoscope.errors import DataError
from hemoscope.labels import SUBTYPES


def patient_folds(positives: Mapping[str, Sequence[int]], *, folds: int, seed: int) -> dict[str, int]:
    """Give each patient a fold, stratified on the rarest label that the patient has.

    Patients with the rarest label are dealt first, each to the fold with the fewest such patients, then the fewest
    patients at all; patients with no hemorrhage come last.

    Args:
        positives: for each patient, how many positive slices it has, in label order.
        folds: how many folds.
        seed: the order in which patients of one group are dealt.

    Raises:
        DataError: fewer patients than folds.
    """
    if folds < 2 or len(positives) < folds:
        msg = f"{len(positives)} patients cannot make {folds} folds. Use at least 2 folds and as many patients"
        raise DataError(msg)
    carriers = {label: sum(bool(counts[i + 1]) for counts in positives.values()) for i, label in enumerate(SUBTYPES)}
    rarest_first = sorted(range(len(SUBTYPES)), key=lambda i: carriers[SUBTYPES[i]])
    group = {
        patient: next((rank for rank, i in enumerate(rarest_first) if counts[i + 1]), len(SUBTYPES))
        for patient, counts in positives.items()
    }
    order = np.random.default_rng(seed).permutation(sorted(positives)).tolist()
    fold_of: dict[str, int] = {}
    for patient in sorted(order, key=lambda name: group[name]):
        same = [sum(group[p] == group[patient] for p, f in fold_of.items() if f == fold) for fold in range(folds)]
        size = [sum(f == fold for f in fold_of.values()) for fold in range(folds)]
        fold_of[patient] = min(range(folds), key=lambda fold: (same[fold], size[fold], fold))
    return fold_of
