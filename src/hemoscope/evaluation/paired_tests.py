"""Tests of two sets of predictions of the same images, with the patient as the unit.

AUROC: DeLong's variance of the difference (1988) in Obuchowski's form for clustered data (1997), with Student's t.
Sensitivity and specificity: an exact test that flips the sign of each patient's net number of discordant decisions.
With one row a patient, it is McNemar's exact test. For several labels: Holm's adjustment of the p values (1979).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, t

from hemoscope.errors import DataError
from hemoscope.evaluation.intervals import (
    CONFIDENCE,
    FEWEST_PATIENTS,
    clustered_variance,
    fewest_groups,
    group_indices,
    placements,
)
from hemoscope.evaluation.metrics import Booleans, Floats, Integers, checked_pair

_QUANTILE = 1.0 - (1.0 - CONFIDENCE) / 2
_ROUNDING = 1e-12  # relative: sums of the same probabilities in another order
FEW = f"fewer than {FEWEST_PATIENTS} patients in a class: a difference says little about others"
SAME_RANKS = "both rank these images alike: there is no variance to measure"
NO_ROWS = "no row of this class"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """Two scores of the same images and their difference, first less second.

    ``low`` and ``high`` are the 95% interval of the difference. They and ``p_value`` (two-sided) are None if they
    cannot be computed; ``reason`` says why.
    """

    first: float
    second: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    reason: str | None = None

    @property
    def difference(self) -> float:
        """First less second."""
        return self.first - self.second

    def shows_noninferiority(self, margin: float) -> bool | None:
        """Whether the lower bound of the difference lies above ``-margin``; None without an interval."""
        return None if self.low is None else self.low > -margin


def auroc_difference(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Hashable] | NDArray[np.generic] | None = None,
) -> PairedDifference | None:
    """Compare the AUROCs of two sets of scores; None if the labels have only one class.

    Args:
        first: scores, (images,) finite.
        second: other scores of the same images.
        labels: (images,) 0 or 1.
        groups: the patient of each image; None takes each image as its own.

    Raises:
        DataError: scores or labels that are not finite, other labels than 0 and 1, or lengths that differ.
    """
    scores, truth = checked_pair(first, labels)
    others, _ = checked_pair(second, labels)
    if truth.all() or not truth.any():
        return None
    group, n_groups = group_indices(groups, len(scores))
    wins, other_wins = placements(scores, truth), placements(others, truth)
    areas = float(wins[truth].mean()), float(other_wins[truth].mean())
    fewest = fewest_groups(truth, group)
    if fewest < FEWEST_PATIENTS:
        return PairedDifference(first=areas[0], second=areas[1], reason=FEW)
    error = _standard_error((wins - areas[0]) - (other_wins - areas[1]), truth, group, n_groups)
    if error < _ROUNDING:
        p_value = 1.0 if areas[0] == areas[1] else None
        return PairedDifference(first=areas[0], second=areas[1], p_value=p_value, reason=SAME_RANKS)
    difference, half = areas[0] - areas[1], float(t.ppf(_QUANTILE, fewest - 1)) * error
    return PairedDifference(
        first=areas[0],
        second=areas[1],
        low=max(difference - half, -1.0),
        high=min(difference + half, 1.0),
        p_value=float(2.0 * t.sf(abs(difference) / error, fewest - 1)),
    )


def half_width(excess: Floats, truth: Booleans, groups: Integers) -> float | None:
    """Return half the 95% interval of a difference of AUROCs, as in :func:`auroc_difference`.

    Args:
        excess: (images,) a difference of placements less their AUROCs, also of means over several sets of scores.
        truth: (images,) with both classes.
        groups: (images,) the number of each image's patient.

    Returns:
        None with fewer than FEWEST_PATIENTS in a class, or if all images are ranked alike.
    """
    group, n_groups = group_indices(groups, len(truth))
    fewest = fewest_groups(truth, group)
    if fewest < FEWEST_PATIENTS or (error := _standard_error(excess, truth, group, n_groups)) < _ROUNDING:
        return None
    return float(t.ppf(_QUANTILE, fewest - 1)) * error


def _standard_error(excess: Floats, truth: Booleans, group: Integers, n_groups: int) -> float:
    return float(np.sqrt(max(clustered_variance(excess, truth, group, n_groups), 0.0)))


def proportion_difference(
    first_hits: ArrayLike, second_hits: ArrayLike, groups: Sequence[Hashable] | NDArray[np.generic] | None = None
) -> PairedDifference | None:
    """Compare two shares of hits on the same rows, such as two sensitivities; None if there are no rows.

    The p value is exact under the hypothesis that the two sets of decisions of a patient could be exchanged. The
    interval has the variance between patients with one added patient for, and one against, each wholly discordant
    (Bonett and Price 2012), and Student's t. So it has a width even if no decision differs.

    Args:
        first_hits: (rows,) booleans, such as the decisions on all positive images.
        second_hits: other decisions on the same rows.
        groups: the patient of each row; None takes each row as its own.

    Raises:
        DataError: lengths that differ.
    """
    hits, others = np.asarray(first_hits, dtype=bool), np.asarray(second_hits, dtype=bool)
    if hits.shape != others.shape:
        msg = f"{hits.size} and {others.size} decisions: both must be on the same rows"
        raise DataError(msg)
    if not hits.size:
        return None
    group, n_groups = group_indices(groups, len(hits))
    discordant = hits.astype(np.float64) - others
    net: Floats = np.asarray(np.bincount(group, weights=discordant, minlength=n_groups), dtype=np.float64)
    shares = float(hits.mean()), float(others.mean())
    if n_groups < FEWEST_PATIENTS:
        return PairedDifference(first=shares[0], second=shares[1], reason=FEW)
    low, high = _adjusted_interval(net, np.bincount(group, minlength=n_groups))
    return PairedDifference(
        first=shares[0], second=shares[1], low=low, high=high, p_value=sign_flip_p_value(net.astype(np.intp))
    )


def _adjusted_interval(net: Floats, rows: Integers) -> tuple[float, float]:
    """Return the interval of a clustered mean, from the sum and number of rows of each group."""
    size = float(rows.mean())
    sums, sizes = np.append(net, (size, -size)), np.append(rows, (size, size))
    mean = float(sums.sum() / sizes.sum())
    residuals = sums - mean * sizes
    error = np.sqrt(float((residuals**2).sum())) / float(sizes.sum())
    half = float(t.ppf(_QUANTILE, len(net) - 1) * error)
    return max(mean - half, -1.0), min(mean + half, 1.0)


def sign_flip_p_value(net: Integers) -> float:
    """Return the exact two-sided p value that the signs of integers (groups,) are random.

    The sum of each distinct size has a binomial distribution; their convolution is the distribution of the whole sum.
    """
    sizes = np.abs(net[net != 0])
    if not sizes.size:
        return 1.0
    distribution = np.ones(1)
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        spread = np.zeros(2 * int(size) * int(count) + 1)
        spread[:: 2 * int(size)] = binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, spread)
    total = int(sizes.sum())
    sums = np.arange(-total, total + 1)
    extreme: Booleans = np.abs(sums) >= abs(int(net.sum()))
    return float(min(distribution[extreme].sum(), 1.0))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p values, in the same order; None stays None and does not count as a test."""
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min((len(tested) - rank) * p, 1.0))
        adjusted[place] = largest
    return adjusted
