"""Differences of two sets of scores of the same images, with bootstrap intervals by patient within strata.

Patients are resampled with replacement within each stratum, such as the fold that held them out, and both sets are
measured on the same samples. Unlike :mod:`hemoscope.evaluation.paired_tests` it covers average precision and means
over labels. With few positive patients its intervals are too narrow.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS, interval
from hemoscope.evaluation.intervals import group_indices
from hemoscope.evaluation.metrics import RANKING_METRICS, Floats, Integers, Ranking
from hemoscope.evaluation.paired_tests import PairedDifference
from hemoscope.labels import LABELS, SUBTYPES, PerLabel

_CHUNK_CELLS = 4_000_000  # rounds times images, as float64 (32 MB)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedScores:
    """Two sets of scores compared: the ranking metrics of each label, and their means over the types.

    A difference is None where a label is unknown or has one class only. ``types`` are means over the types that are
    defined.
    """

    labels: PerLabel[Mapping[str, PairedDifference | None]]
    types: Mapping[str, PairedDifference | None]


def paired_bootstrap(
    first: Floats,
    second: Floats,
    labels: Floats,
    patients: Sequence[Hashable],
    strata: Sequence[Hashable],
    *,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
) -> PairedScores:
    """Compare two sets of scores of six labels, first less second, with 95% percentile intervals.

    Args:
        first: scores, (images, 6) in label order, any that rank.
        second: other scores of the same images, (images, 6).
        labels: (images, 6) of 0, 1 or NaN (unknown: the image is ignored for that label).
        patients: of each image.
        strata: of each image; all images of a patient are in one stratum.
        rounds: bootstrap rounds.
        seed: of the resampling.

    Raises:
        DataError: shapes that differ, a patient in two strata, or scores that are not finite.
    """
    if not first.shape == second.shape == labels.shape == (len(patients), len(LABELS)):
        shapes = f"{first.shape}, {second.shape}, {labels.shape} of {len(patients)} patients"
        msg = f"expected two sets of scores and labels of shape (images, {len(LABELS)}), got {shapes}"
        raise DataError(msg)
    groups, count = group_indices(patients, len(labels))
    weights = _resamples(_members(groups, count, strata), count, rounds, seed)
    tables = [_both(first[:, k], second[:, k], labels[:, k], groups, weights) for k in range(len(LABELS))]
    of_types = [table for label, table in zip(LABELS, tables, strict=True) if label in SUBTYPES]
    defined = [table for table in of_types if np.isfinite(table[0]).all()]
    return PairedScores(
        labels=PerLabel.of([_differences(table) for table in tables]),
        types=_differences(np.mean(defined, axis=0)) if defined else dict.fromkeys(RANKING_METRICS),
    )


def _members(groups: Integers, count: int, strata: Sequence[Hashable]) -> list[Integers]:
    """Return the patients of each stratum."""
    stratum, strata_count = group_indices(strata, len(groups))
    pairs = np.unique(np.stack([stratum, groups]), axis=1)
    if pairs.shape[1] != count:
        msg = "a patient is in two strata, such as two folds. Give each patient's images one stratum"
        raise DataError(msg)
    return [pairs[1, pairs[0] == number] for number in range(strata_count)]


def _resamples(strata: list[Integers], count: int, rounds: int, seed: int) -> Floats:
    """Return how often each patient is in each sample, (1 + rounds, patients); the first row is the data itself."""
    rng, weights = np.random.default_rng(seed), np.zeros((1 + rounds, count))
    weights[0] = 1.0
    for members in strata:
        drawn = rng.integers(len(members), size=(rounds, len(members)))
        for row, draw in enumerate(drawn, start=1):
            weights[row, members] = np.bincount(draw, minlength=len(members))
    return weights


def _both(first: Floats, second: Floats, labels: Floats, groups: Integers, weights: Floats) -> Floats:
    """Return (1 + rounds, metrics, 2): both sets of one label in every sample; NaN if it has one class."""
    known = np.isfinite(labels)
    if not known.any():
        return np.full((len(weights), len(RANKING_METRICS), 2), np.nan)
    truth, members = labels[known], groups[known]
    return np.stack([_evaluate(scores[known], truth, members, weights) for scores in (first, second)], axis=2)


def _evaluate(scores: Floats, truth: Floats, groups: Integers, weights: Floats) -> Floats:
    ranking = Ranking.of(scores, truth)
    ordered, chunk = groups[ranking.order], max(1, _CHUNK_CELLS // len(scores))
    parts = [ranking.evaluate(weights[start : start + chunk, ordered]) for start in range(0, len(weights), chunk)]
    return np.concatenate([np.stack(part, axis=1) for part in parts])


def _differences(table: Floats) -> dict[str, PairedDifference | None]:
    """Return each metric of (1 + rounds, metrics, 2); samples in which it is undefined are dropped."""
    found: dict[str, PairedDifference | None] = {}
    for m, name in enumerate(RANKING_METRICS):
        both = table[:, m]
        changes = both[:, 0] - both[:, 1]
        drawn = interval(float(changes[0]), changes[1:])
        found[name] = (
            None
            if drawn is None
            else PairedDifference(first=float(both[0, 0]), second=float(both[0, 1]), low=drawn.low, high=drawn.high)
        )
    return found
