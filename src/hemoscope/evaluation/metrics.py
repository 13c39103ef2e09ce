"""Metrics of predictions against labels, implemented so that bootstrapping them is cheap.

Every metric of a label is either a *ranking* metric (AUROC, average precision), computed from one sort of the scores,
or a *tally*: a function of sums over images. Both take weights of the images, many weightings at once: a
bootstrap round is one weighting. A weight of 2 equals including the image twice.

Conventions: probabilities are in [0, 1]; labels are 0 or 1; weights have shape (rounds, images); a value that cannot
be computed (0 / 0, or one class only) is NaN here and null in a report. Positive means a probability *above* 0.5
by default, and *at or above* a given threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hemoscope.errors import DataError
from hemoscope.labels import LABELS, Hemorrhage

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Booleans = NDArray[np.bool_]

RANKING_METRICS = ("auroc", "average_precision")
TALLY_METRICS = ("accuracy", "precision", "recall", "specificity", "f1", "brier", "ece", "log_loss")
METRICS = RANKING_METRICS + TALLY_METRICS
DEFAULT_THRESHOLD = 0.5
CALIBRATION_BINS = 15
# Weights of the RSNA 2019 challenge metric, in label order: "any" counts double.
LOG_LOSS_WEIGHTS: Floats = np.array([2.0 if label is Hemorrhage.ANY else 1.0 for label in LABELS])
# Distance from 0 and 1 to which probabilities are clipped in a logarithm. A label's log loss equals scikit-learn's for
# float64. The challenge loss uses the resolution of the networks' float32 output: a float32 of exactly 1 only means
# "above 1 - 6e-8", and with a smaller margin a few saturated slices would dominate the loss.
LOG_LOSS_MARGIN = float(np.finfo(np.float64).eps)
WEIGHTED_LOG_LOSS_MARGIN = 1e-7


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient of two arrays, NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """One label's images sorted by score, for evaluation under many weightings.

    The order of the negatives between two positive images does not affect a ranking metric, only their weight does. So
    the sorted images are divided into *segments*: one for each score that a positive image has, and those between.

    ``order`` lists the images by rising score, (images,); ``positives`` are the places in that order of the positive
    images; ``ties`` the first of ``positives`` with each of their scores, (scores,); ``cuts`` the first place of each
    segment and the number of images, (2 scores + 2,). Segments between two scores may be empty.
    """

    order: Integers
    positives: Integers
    ties: Integers
    cuts: Integers

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike) -> "Ranking":
        """Sort ``scores`` (images,); ``labels`` (images,) are 0 or 1. Raises DataError for NaN or other labels."""
        values, truth = checked_pair(scores, labels)
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        positives = np.flatnonzero(truth[order])
        scored, ties = np.unique(ranked[positives], return_index=True)
        ends = np.stack([np.searchsorted(ranked, scored, side=side) for side in ("left", "right")], axis=1)
        return cls(order=order, positives=positives, ties=ties, cuts=np.array([0, *ends.flat, len(order)]))

    @property
    def segment_of(self) -> Integers:
        """Segment of each position in the order, (images,)."""
        return np.repeat(np.arange(len(self.cuts) - 1), np.diff(self.cuts))

    def evaluate(self, ordered_weights: Floats) -> tuple[Floats, Floats]:
        """Return AUROC and average precision of each weighting, (rounds,) each; NaN if a weighting has only one class.

        Args:
            ordered_weights: (rounds, images) with the images in the order of ``order``.
        """
        columns = ordered_weights.T
        return self._score(_cumulative(columns)[self.cuts], columns[self.positives])

    def score(self, segments: Floats, positive_weights: Floats) -> tuple[Floats, Floats]:
        """Same as :meth:`evaluate`, from the summed weights of segments and positives, (segments or positives, rounds).

        AUROC is the weighted Mann-Whitney statistic, ties counting half. Average precision is scikit-learn's: the
        sum over distinct thresholds of precision times the gain in recall, without interpolation.
        """
        return self._score(_cumulative(segments), positive_weights)

    def _score(self, below: Floats, positive_weights: Floats) -> tuple[Floats, Floats]:
        """Same, from the weights below each of ``cuts``, (2 scores + 2, rounds)."""
        tied = len(self.ties) < len(self.positives)
        hits_here = np.add.reduceat(positive_weights, self.ties, axis=0) if tied else positive_weights
        positive_below = _cumulative(hits_here)
        total, positive = below[-1], positive_below[-1]
        before, upto = below[1:-1:2], below[2:-1:2]  # of each score: what lies below it, and up to it
        negatives_beaten = (before + upto) - (positive_below[:-1] + positive_below[1:])
        wins = np.einsum("ir,ir->r", hits_here, negatives_beaten) / 2
        left = total - before
        left[left <= 0] = 1.0  # then no positive is left either, and counts nothing
        precision = np.divide(positive - positive_below[:-1], left, out=left)
        hits = np.einsum("ir,ir->r", hits_here, precision)
        both = (positive > 0) & (positive < total)
        return (
            np.where(both, _ratio(wins, positive * (total - positive)), np.nan),
            np.where(both, _ratio(hits, positive), np.nan),
        )


def _cumulative(weights: Floats) -> Floats:
    """Cumulative sums with a leading zero row: (rows, rounds) to (rows + 1, rounds)."""
    sums = np.zeros((weights.shape[0] + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def checked_pair(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Booleans]:
    """Return float64 scores and boolean labels of one shape. Raises DataError for NaN, other labels or shapes."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if values.shape != truth.shape or values.size == 0:
        msg = f"scores and labels must be two arrays of one shape and not empty, got {values.shape} and {truth.shape}"
        raise DataError(msg)
    if not np.isfinite(values).all():
        msg = f"{int((~np.isfinite(values)).sum())} scores are not finite. Remove those images"
        raise DataError(msg)
    if not np.isin(truth, (0.0, 1.0)).all():
        msg = "labels must be 0 or 1. Remove images with unknown labels before scoring"
        raise DataError(msg)
    return values, truth == 1.0


def image_log_loss(probabilities: Floats, labels: ArrayLike, *, margin: float = LOG_LOSS_MARGIN) -> Floats:
    """Return the cross-entropy of each prediction, any shape, with probabilities clipped ``margin`` from 0 and 1."""
    inside = np.clip(probabilities, margin, 1.0 - margin)
    return -np.where(np.asarray(labels, dtype=bool), np.log(inside), np.log1p(-inside))


def contributions(probabilities: Floats, labels: Booleans, predicted: Booleans) -> Floats:
    """Return each image's contributions to the sums that the tally metrics need, for one label.

    Args:
        probabilities: (images,) in [0, 1].
        labels: (images,).
        predicted: (images,) decisions.

    Returns:
        (images, 6 + 15): one, positive, true positive, false positive, squared error, log loss, then probability
        minus label in the one of 15 equal-width bins of probability that holds it (lower edge inclusive).
    """
    columns = np.zeros((len(probabilities), 6 + CALIBRATION_BINS))
    columns[:, 0] = 1.0
    columns[:, 1] = labels
    columns[:, 2] = labels & predicted
    columns[:, 3] = ~labels & predicted
    columns[:, 4] = (probabilities - labels) ** 2
    columns[:, 5] = image_log_loss(probabilities, labels)
    bins = _bins(probabilities)
    columns[np.arange(len(bins)), 6 + bins] = probabilities - labels
    return columns


def binned_error(probabilities: Floats, labels: Booleans) -> float:
    """Return the expected calibration error of one label, (images,) each, as in :func:`tally`."""
    gaps = np.bincount(_bins(probabilities), weights=probabilities - labels, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(probabilities))


def _bins(probabilities: Floats) -> Integers:
    return np.minimum((probabilities * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)


def tally(sums: Floats) -> dict[str, Floats]:
    """Compute the tally metrics from weighted sums of :func:`contributions`.

    Args:
        sums: (rounds, 6 + 15).

    Returns:
        Each of TALLY_METRICS, (rounds,); ``ece`` is the expected calibration error, the mean distance over images
        between mean probability and observed share in 15 equal-width bins (Naeini et al. 2015).
    """
    total, positive, true_positive, false_positive, squared, loss = sums[:, :6].T
    negative = total - positive
    return {
        "accuracy": _ratio(true_positive + negative - false_positive, total),
        "precision": _ratio(true_positive, true_positive + false_positive),
        "recall": _ratio(true_positive, positive),
        "specificity": _ratio(negative - false_positive, negative),
        "f1": _ratio(2 * true_positive, true_positive + false_positive + positive),
        "brier": _ratio(squared, total),
        "ece": _ratio(np.abs(sums[:, 6:]).sum(axis=1), total),
        "log_loss": _ratio(loss, total),
    }


def decide(probabilities: Floats, thresholds: Sequence[float] | None = None) -> Booleans:
    """Return decisions (images, labels): strictly above 0.5, or at or above the given threshold of each label."""
    if thresholds is None:
        return probabilities > DEFAULT_THRESHOLD
    return probabilities >= np.asarray(thresholds, dtype=np.float64)


def label_metrics(
    probabilities: ArrayLike, labels: ArrayLike, *, threshold: float | None = None, weights: ArrayLike | None = None
) -> dict[str, float]:
    """Return every metric of one label by name; NaN if undefined.

    Args:
        probabilities: (images,) in [0, 1].
        labels: (images,) 0 or 1.
        threshold: at or above is positive; None means above 0.5.
        weights: (images,) weight of each image; 1 by default.

    Raises:
        DataError: probabilities outside [0, 1], NaN, or labels other than 0 and 1.
    """
    values, truth = checked_pair(probabilities, labels)
    check_probabilities(values)
    weighting = np.ones((1, len(values))) if weights is None else np.asarray(weights, dtype=np.float64)[None, :]
    ranking = Ranking.of(values, truth)
    ranks = zip(RANKING_METRICS, ranking.evaluate(weighting[:, ranking.order]), strict=True)
    decisions = decide(values, None if threshold is None else (threshold,))
    tallies = tally(weighting @ contributions(values, truth, decisions))
    return {name: float(value[0]) for name, value in [*ranks, *tallies.items()]}


def check_probabilities(probabilities: Floats) -> None:
    """Raise DataError unless every value lies in [0, 1]."""
    outside = ~((probabilities >= 0.0) & (probabilities <= 1.0))
    if outside.any():
        found = probabilities[outside].flat[0]
        msg = f"{int(outside.sum())} probabilities are outside [0, 1], such as {found}. Apply sigmoid to logits"
        raise DataError(msg)


def image_weighted_log_loss(probabilities: Floats, labels: ArrayLike) -> Floats:
    """Return the RSNA 2019 challenge loss of each image, (images,): mean over six labels, with ``any`` weighted 2.

    Probabilities are clipped 1e-7 from 0 and 1 (see WEIGHTED_LOG_LOSS_MARGIN).

    Args:
        probabilities: (images, 6) in label order.
        labels: (images, 6) 0 or 1.
    """
    losses = image_log_loss(probabilities, labels, margin=WEIGHTED_LOG_LOSS_MARGIN)
    return np.average(losses, axis=1, weights=LOG_LOSS_WEIGHTS)


def weighted_log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the RSNA 2019 challenge metric over all images; arguments as for :func:`image_weighted_log_loss`."""
    values, truth = checked_pair(probabilities, labels)
    return float(image_weighted_log_loss(values, truth).mean())


def exact_match(predicted: Booleans, labels: ArrayLike) -> float:
    """Return the share of images with six correct decisions (the paper's "per-image accuracy"); both (images, 6)."""
    return float((predicted == np.asarray(labels, dtype=bool)).all(axis=1).mean())
