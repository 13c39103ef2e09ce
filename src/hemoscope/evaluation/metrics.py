"""Scores of predictions against labels, written so that a bootstrap of them is cheap.

Every metric of a label is either a *ranking* metric (AUROC, average precision), computed from one sort of the scores,
or a *tally*: a function of sums over images. Both take integer or real weights of the images, many weightings at once:
a bootstrap round is nothing but one weighting. A weight of 2 is the same as an image that stands there twice.

Conventions: probabilities are in [0, 1]; labels are 0 or 1; weights have shape (rounds, images); a value that cannot
be computed (0 / 0, or one class only) is NaN here and null in a report. Positive means a probability *above* 0.5
where nobody states a threshold, and *at or above* a stated one.
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
# How far probabilities are kept from 0 and 1 inside a logarithm. A label's log loss is scikit-learn's for float64.
# The challenge loss keeps the resolution of the float32 that networks put out: a float32 of exactly 1 says "above
# 1 - 6e-8" and no more, and with the smaller margin a few saturated slices would decide the whole number.
LOG_LOSS_MARGIN = float(np.finfo(np.float64).eps)
WEIGHTED_LOG_LOSS_MARGIN = 1e-7


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient of two arrays, NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """One label's images sorted by score, ready to be weighted in many ways.

    Between two neighbouring positive images the order of the negatives changes no ranking metric: only their weight
    counts. So the sorted images fall into a few *segments*, cut where a positive's tie begins or ends.

    ``order`` lists the images by rising score, (images,); ``positives`` are the places in that order of the positive
    images; ``tie_starts`` and ``tie_ends`` the first and one past the last place of those with the same score;
    ``cuts`` the first place of each segment and the number of images, (segments + 1,).
    """

    order: Integers
    positives: Integers
    tie_starts: Integers
    tie_ends: Integers
    cuts: Integers

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike) -> "Ranking":
        """Sort ``scores`` (images,) once; ``labels`` (images,) are 0 or 1. Raises DataError on NaN or other labels."""
        values, truth = checked_pair(scores, labels)
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        positives = np.flatnonzero(truth[order])
        starts = np.searchsorted(ranked, ranked[positives], side="left")
        ends = np.searchsorted(ranked, ranked[positives], side="right")
        cuts = np.unique(np.concatenate([starts, ends, [0, len(order)]]))
        return cls(order=order, positives=positives, tie_starts=starts, tie_ends=ends, cuts=cuts)

    @property
    def segment_of(self) -> Integers:
        """The segment of each place of the order, (images,)."""
        return np.repeat(np.arange(len(self.cuts) - 1), np.diff(self.cuts))

    def evaluate(self, ordered_weights: Floats) -> tuple[Floats, Floats]:
        """AUROC and average precision of each weighting, (rounds,) each; NaN where a weighting has one class only.

        Args:
            ordered_weights: (rounds, images) with the images in the order of ``order``.
        """
        columns = ordered_weights.T
        return self.score(np.add.reduceat(columns, self.cuts[:-1], axis=0), columns[self.positives])

    def score(self, segments: Floats, positive_weights: Floats) -> tuple[Floats, Floats]:
        """As :meth:`evaluate`, from sums: weights of the segments and of the positives, (segments or these, rounds).

        AUROC is the weighted Mann-Whitney statistic, ties counting half. Average precision is scikit-learn's: the
        sum over distinct thresholds of precision times the gain in recall, without interpolation.
        """
        below, positive_below = _cumulative(segments), _cumulative(positive_weights)
        # Places among the positives alone: how many of them lie below, and up to the end of, each tie.
        first = np.searchsorted(self.positives, self.tie_starts)
        last = np.searchsorted(self.positives, self.tie_ends)
        total, positive = below[-1], positive_below[-1]
        before = below[np.searchsorted(self.cuts, self.tie_starts)]
        upto = below[np.searchsorted(self.cuts, self.tie_ends)]
        positive_before, positive_upto = positive_below[first], positive_below[last]
        negatives_beaten = ((before - positive_before) + (upto - positive_upto)) / 2
        wins = np.einsum("ir,ir->r", positive_weights, negatives_beaten)
        precision = _ratio(positive - positive_before, total - before)
        hits = np.einsum("ir,ir->r", positive_weights, np.nan_to_num(precision))
        both = (positive > 0) & (positive < total)
        return (
            np.where(both, _ratio(wins, positive * (total - positive)), np.nan),
            np.where(both, _ratio(hits, positive), np.nan),
        )


def _cumulative(weights: Floats) -> Floats:
    """Sums of the first 0, 1, ... rows: (rows, rounds) to (rows + 1, rounds)."""
    sums = np.zeros((weights.shape[0] + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def checked_pair(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Booleans]:
    """Scores as float64 and labels as booleans, same shape; DataError on NaN, other labels or other shapes."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if values.shape != truth.shape or values.size == 0:
        msg = f"scores and labels must be two arrays of one shape and not empty, got {values.shape} and {truth.shape}"
        raise DataError(msg)
    if not np.isfinite(values).all():
        msg = f"{int((~np.isfinite(values)).sum())} scores are not finite numbers; leave those images out by name"
        raise DataError(msg)
    if not np.isin(truth, (0.0, 1.0)).all():
        msg = "labels must be 0 or 1; leave images whose label is unknown out before scoring"
        raise DataError(msg)
    return values, truth == 1.0


def image_log_loss(probabilities: Floats, labels: ArrayLike, *, margin: float = LOG_LOSS_MARGIN) -> Floats:
    """Cross-entropy of each prediction, any shape, with the probabilities kept ``margin`` away from 0 and 1."""
    inside = np.clip(probabilities, margin, 1.0 - margin)
    return -np.where(np.asarray(labels, dtype=bool), np.log(inside), np.log1p(-inside))


def contributions(probabilities: Floats, labels: Booleans, predicted: Booleans) -> Floats:
    """What each image of one label adds to the sums that the tally metrics need.

    Args:
        probabilities: (images,) in [0, 1].
        labels: (images,).
        predicted: (images,) the decisions.

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
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    columns[np.arange(len(bins)), 6 + bins] = probabilities - labels
    return columns


def tally(sums: Floats) -> dict[str, Floats]:
    """The tally metrics from weighted sums of :func:`contributions`.

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
    """Decisions of (images, labels): above 0.5 strictly, or at or above the threshold stated for each label."""
    if thresholds is None:
        return probabilities > DEFAULT_THRESHOLD
    return probabilities >= np.asarray(thresholds, dtype=np.float64)


def label_metrics(
    probabilities: ArrayLike, labels: ArrayLike, *, threshold: float | None = None, weights: ArrayLike | None = None
) -> dict[str, float]:
    """Every metric of one label, by name; NaN where it is not defined.

    Args:
        probabilities: (images,) in [0, 1].
        labels: (images,) 0 or 1.
        threshold: at or above it is positive; without one, above 0.5 is.
        weights: (images,) how often each image counts; once by default.

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
        msg = f"{int(outside.sum())} probabilities lie outside 0 to 1, {found} among them; logits go through sigmoid"
        raise DataError(msg)


def image_weighted_log_loss(probabilities: Floats, labels: ArrayLike) -> Floats:
    """The RSNA 2019 challenge loss of each image, (images,): mean over six labels in which ``any`` counts double.

    Probabilities are kept 1e-7 from 0 and 1 (see WEIGHTED_LOG_LOSS_MARGIN).

    Args:
        probabilities: (images, 6) in label order.
        labels: (images, 6) 0 or 1.
    """
    losses = image_log_loss(probabilities, labels, margin=WEIGHTED_LOG_LOSS_MARGIN)
    return np.average(losses, axis=1, weights=LOG_LOSS_WEIGHTS)


def weighted_log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The RSNA 2019 challenge metric over all images; arguments as for :func:`image_weighted_log_loss`."""
    values, truth = checked_pair(probabilities, labels)
    return float(image_weighted_log_loss(values, truth).mean())


def exact_match(predicted: Booleans, labels: ArrayLike) -> float:
    """Share of images with all six decisions right ("per-image accuracy" of the paper); both (images, 6)."""
    return float((predicted == np.asarray(labels, dtype=bool)).all(axis=1).mean())
