"""95% confidence intervals in closed form, for slices that belong to patients.

The slices of one head resemble each other, so every interval takes the patient as the unit (the *group* of a row).
With one row a patient, the forms reduce to those for independent rows.

A percentile bootstrap over patients covers too little if few patients are positive, and its lower bound is too high.
``experiments/interval_coverage.py`` simulates the coverage of both. Scores without a closed form here, such as average
precision, keep the bootstrap of :mod:`hemoscope.evaluation.bootstrap`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import beta, rankdata, t

from hemoscope.errors import DataError
from hemoscope.evaluation.metrics import Booleans, Floats, Integers, checked_pair

CONFIDENCE = 0.95
# With fewer patients in a class, subgroups, differences, decision curves, slopes and ratios are not reported: counts
# stand alone. A bootstrap interval is marked as unreliable.
FEWEST_PATIENTS = 5
_TAIL = (1.0 - CONFIDENCE) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A score with its 95% interval; ``unreliable`` if too few patients were resampled for it."""

    value: float
    low: float
    high: float
    unreliable: bool = False

    def as_dict(self) -> dict[str, float]:
        """``{"value", "low", "high"}`` for JSON, and ``"unreliable": true`` if it is."""
        document = {"value": self.value, "low": self.low, "high": self.high}
        return {**document, "unreliable": True} if self.unreliable else document


def group_indices(groups: Sequence[Hashable] | NDArray[np.generic] | None, images: int) -> tuple[Integers, int]:
    """Return the group number of each image and the number of groups; without groups, each image is its own."""
    if groups is None:
        return np.arange(images), images
    if len(groups) != images:
        msg = f"{len(groups)} groups for {images} images; give one group (patient) for each image"
        raise DataError(msg)
    _, indices = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    return indices, int(indices.max()) + 1


def _members(groups: Sequence[Hashable] | NDArray[np.generic] | None, images: int) -> tuple[Integers, int]:
    """Return what ``group_indices`` does, in another order for numbers: their text, slow to sort, is not needed here.

    No closed form depends on the order. A bootstrap does: its seed draws groups by their place.
    """
    if isinstance(groups, np.ndarray) and groups.dtype.kind in "iu" and len(groups) == images and images:
        _, indices = np.unique(groups, return_inverse=True)
        return indices, int(indices.max()) + 1
    return group_indices(groups, images)


def auroc_interval(
    scores: ArrayLike, labels: ArrayLike, groups: Sequence[Hashable] | NDArray[np.generic] | None = None
) -> Interval | None:
    """Return the AUROC of one label with its interval; None if the labels have only one class.

    DeLong's variance (1988) in Obuchowski's form for clustered data (1997), on the logit scale, with Student's t for
    the smaller number of groups that have the label or lack it, less one. Without variance, as in perfectly separated
    scores, the interval is the exact one of as many independent pairs as those groups can form. With a single group in
    a class, nothing is known about others: the interval is 0 to 1.

    Args:
        scores: (images,) finite.
        labels: (images,) 0 or 1.
        groups: the patient of each image; None takes each image as its own.

    Raises:
        DataError: scores or labels that are not finite, other labels than 0 and 1, or lengths that differ.
    """
    values, truth = checked_pair(scores, labels)
    if truth.all() or not truth.any():
        return None
    wins = placements(values, truth)
    area = float(wins[truth].mean())
    return area_interval(area, wins - area, truth, _members(groups, len(values))[0])


def area_interval(area: float, excess: Floats, truth: Booleans, groups: Integers) -> Interval:
    """Return the interval of an AUROC, or of a mean of AUROCs on the same images, as :func:`auroc_interval`.

    Args:
        area: in [0, 1].
        excess: (images,) the placements less their AUROC, or the mean of that over several sets of scores.
        truth: (images,) with both classes.
        groups: (images,) the number of each image's patient.
    """
    group, n_groups = _members(groups, len(truth))
    fewest = fewest_groups(truth, group)
    if fewest < 2:
        return constant_interval(area, fewest)
    variance = clustered_variance(excess, truth, group, n_groups)
    if not 0.0 < area < 1.0 or variance <= 0.0:
        return constant_interval(area, fewest)
    half = t.ppf(1.0 - _TAIL, fewest - 1) * np.sqrt(variance) / (area * (1.0 - area))
    low, high = expit(logit(area) + np.array([-half, half]))
    return Interval(value=area, low=float(low), high=float(high))


def constant_interval(score: float, fewest: int) -> Interval:
    """Return the interval of a score in [0, 1] whose variance these patients do not show, such as 1 of perfect ranking.

    It is the exact one of as many independent rows as there are patients in the smaller class, ``fewest``; with one
    patient, nothing is known about others: 0 to 1.
    """
    low, high = (0.0, 1.0) if fewest < 2 else _clopper_pearson(score * fewest, fewest)
    return Interval(value=score, low=low, high=high)


def fewest_groups(truth: Booleans, groups: Integers) -> int:
    """Return the smaller number of groups that have the label, or lack it."""
    return min(len(np.unique(groups[truth])), len(np.unique(groups[~truth])))


def placements(values: Floats, truth: Booleans) -> Floats:
    """Return, for each image, the share of the images of the other class that it ranks correctly against.

    Ties count half. The mean over the positives, or over the negatives, is the AUROC. Both arguments are (images,), and
    both classes must be present.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    overall = rankdata(values)
    wins = np.empty(len(values))
    wins[truth] = (overall[truth] - rankdata(values[truth])) / negatives
    wins[~truth] = 1.0 - (overall[~truth] - rankdata(values[~truth])) / positives
    return wins


def clustered_variance(excess: Floats, truth: Booleans, group: Integers, n_groups: int) -> float:
    """Return the variance of an AUROC from placements less their mean (Obuchowski 1997, equations 2 to 5).

    The estimate is linear in the placements. So the difference of the ``excess`` of two sets of scores gives the
    variance of the difference of their AUROCs, with their covariance. At least two groups must have each class.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    of_positives = np.bincount(group[truth], weights=excess[truth], minlength=n_groups) / positives
    of_negatives = np.bincount(group[~truth], weights=excess[~truth], minlength=n_groups) / negatives
    parts = (
        _unbiased(len(np.unique(group[truth]))) * (of_positives**2).sum(),
        _unbiased(len(np.unique(group[~truth]))) * (of_negatives**2).sum(),
        2.0 * _unbiased(n_groups) * (of_positives * of_negatives).sum(),
    )
    return float(sum(parts))


def _unbiased(count: int) -> float:
    return count / (count - 1)


def proportion_interval(
    hits: ArrayLike, groups: Sequence[Hashable] | NDArray[np.generic] | None = None
) -> Interval | None:
    """Return the share of ``hits`` with its interval; None if there are no rows.

    With one row a group: the exact interval of Clopper and Pearson (1934). With several: the same with the effective
    sample size of the clustered variance (Korn and Graubard 1998). If all hits agree there is no variance to measure:
    the number of groups is the sample size. A single group with several rows says nothing about others: 0 to 1.

    Args:
        hits: (rows,) booleans, such as the decisions on all positive images (their share is the sensitivity).
        groups: the patient of each row; None takes each row as its own.

    Raises:
        DataError: groups of another length.
    """
    flags = np.asarray(hits, dtype=bool)
    if not flags.size:
        return None
    group, n_groups = _members(groups, len(flags))
    share = float(flags.mean())
    if n_groups == len(flags):
        low, high = _clopper_pearson(share * n_groups, n_groups)
    elif n_groups < 2:
        low, high = 0.0, 1.0
    else:
        size = _effective_size(flags, share, group, n_groups)
        low, high = _clopper_pearson(share * size, size)
    return Interval(value=share, low=low, high=high)


def decision_intervals(
    truth: Booleans, predicted: Booleans, groups: Sequence[Hashable] | NDArray[np.generic] | None = None
) -> dict[str, Interval | None]:
    """Return accuracy, precision, recall and specificity of decisions (images,), each with its interval.

    A share of no images is None. ``groups``: the patient of each image; None takes each image as its own.
    """
    members, _ = _members(groups, len(truth))
    every = np.ones_like(truth)
    hits_and_rows = {
        "accuracy": (predicted == truth, every),
        "precision": (truth, predicted),
        "recall": (predicted, truth),
        "specificity": (~predicted, ~truth),
    }
    return {name: proportion_interval(hits[rows], members[rows]) for name, (hits, rows) in hits_and_rows.items()}


def _effective_size(flags: Booleans, share: float, group: Integers, n_groups: int) -> float:
    """Return the number of independent rows with the variance of the clustered ones, at most the number of rows."""
    residuals = np.bincount(group, weights=flags - share, minlength=n_groups)
    variance = _unbiased(n_groups) * float((residuals**2).sum()) / len(flags) ** 2
    if variance <= 0.0 or not 0.0 < share < 1.0:
        return float(n_groups)
    fewer_degrees = t.ppf(1.0 - _TAIL, len(flags) - 1) / t.ppf(1.0 - _TAIL, n_groups - 1)
    return float(min(share * (1.0 - share) / variance * fewer_degrees**2, len(flags)))


def _clopper_pearson(hits: float, size: float) -> tuple[float, float]:
    """Return the exact interval of a proportion; ``hits`` and ``size`` need not be whole."""
    low = float(beta.ppf(_TAIL, hits, size - hits + 1.0)) if hits > 0.0 else 0.0
    high = float(beta.ppf(1.0 - _TAIL, hits + 1.0, size - hits)) if hits < size else 1.0
    return low, high
