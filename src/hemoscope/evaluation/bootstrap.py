"""Scores of six labels with 95% confidence intervals by patient, and the bootstrap for those without a closed form.

AUROC and proportions (accuracy, precision, recall, specificity, exact match) have the closed forms of
:mod:`hemoscope.evaluation.intervals`. Average precision, F1, Brier score, log loss and means over the labels have a
percentile bootstrap (Efron and Tibshirani 1993, chapter 13) over *groups*: patients are resampled with replacement, so
that the many slices of one head never count as independent. A bootstrap sample is an integer weight for each group. All
labels share the samples, so that macro means and comparisons are paired. A round in which a label has only one class is
dropped for that label and counted. An average precision, F1 or mean that no sample changes, such as 1 of perfect
ranking, has an exact interval instead; so have average precision and F1 of a single patient. Other bootstrap intervals
of fewer than FEWEST_PATIENTS patients in a class are too narrow, and marked as unreliable. The calibration error has no
interval: see :mod:`hemoscope.evaluation.calibration_scores`.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from hemoscope.errors import DataError
from hemoscope.evaluation.intervals import (
    CONFIDENCE,
    FEWEST_PATIENTS,
    Interval,
    auroc_interval,
    constant_interval,
    decision_intervals,
    fewest_groups,
    group_indices,
    proportion_interval,
)
from hemoscope.evaluation.metrics import (
    METRICS,
    TALLY_METRICS,
    Booleans,
    Floats,
    Integers,
    Ranking,
    check_probabilities,
    contributions,
    decide,
    image_weighted_log_loss,
    tally,
)
from hemoscope.labels import LABELS, PerLabel

DEFAULT_ROUNDS = 1000
UNKNOWN = "the label is unknown for every image"
# Maximum array size: rounds times groups or segments, as float64 (1.6 MB). Larger ones leave the processor's cache.
_CHUNK_CELLS = 200_000
_ROUNDING = 1e-12  # sums of the same weights in another order
_UNBOUNDED = {"brier", "log_loss"}  # losses vary between patients, however good the decisions
_BOUNDED = {"average_precision", "f1"}  # scores in [0, 1] with a bootstrap interval


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScores:
    """The scores of one label. A metric that is not defined is None, and ``reason`` says why.

    ``metrics`` has all of METRICS but the calibration error, ``ece``, which has no interval.
    """

    metrics: Mapping[str, Interval | None]
    ece: float | None
    n_images: int
    n_positive: int
    n_positive_groups: int | None
    dropped_rounds: int
    reason: str | None = None

    def __getitem__(self, metric: str) -> Interval | None:
        """Return the interval of one metric."""
        return self.metrics[metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapScores:
    """All scores of one set of predictions; ``n_groups`` is None if single images were resampled."""

    n_images: int
    n_groups: int | None
    rounds: int
    labels: PerLabel[LabelScores]
    macro: Mapping[str, Interval | None]
    macro_ece: float | None
    exact_match: Interval | None
    weighted_log_loss: Interval | None


def resamples(groups: int, rounds: int, *, seed: int, chunk: int) -> Iterator[Floats]:
    """Yield weights of resampled groups: arrays of (at most ``chunk``, groups), ``rounds`` rows in total."""
    random = np.random.default_rng(seed)
    for start in range(0, rounds, chunk):
        count = min(chunk, rounds - start)
        draws = random.integers(groups, size=(count, groups))
        yield np.stack([np.bincount(draw, minlength=groups) for draw in draws]).astype(np.float64)


def interval(value: float, rounds: Floats) -> Interval | None:
    """Return the percentile interval of ``rounds`` (without NaN) around ``value``; None if undefined."""
    kept = rounds[np.isfinite(rounds)]
    if not np.isfinite(value) or kept.size == 0:
        return None
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(kept, (tail, 1.0 - tail))
    return Interval(value=float(value), low=float(low), high=float(high))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ranked:
    """One label's ranking, aggregated by group.

    ``segments`` is the number of images of each group in each segment of the ranking, (segments, groups), sparse.
    Multiplied by the groups' weights, it gives all that a ranking metric needs, without single images.
    """

    ranking: Ranking
    segments: csr_array
    positive_groups: Integers

    @classmethod
    def of(cls, values: Floats, truth: Booleans, groups: Integers, n: int) -> "_Ranked":
        ranking = Ranking.of(values, truth)
        ordered, places = groups[ranking.order], ranking.segment_of
        counts = csr_array((np.ones(len(ordered)), (places, ordered)), shape=(len(ranking.cuts) - 1, n))
        return cls(ranking=ranking, segments=counts, positive_groups=ordered[ranking.positives])

    def evaluate(self, columns: Floats) -> tuple[Floats, Floats]:
        """Return AUROC and average precision, (rounds,) each, from weights (groups, rounds)."""
        return self.ranking.score(self.segments @ columns, columns[self.positive_groups])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LabelSample:
    """One label's known images: their ranking (None: not needed), sums by group, and (images,) columns."""

    ranked: _Ranked | None
    sums: Floats
    groups: Integers
    values: Floats
    truth: Booleans
    predicted: Booleans

    @classmethod
    def of(
        cls, probabilities: Floats, labels: Floats, predicted: Booleans, group: Integers, n: int, *, ranked: bool
    ) -> "_LabelSample":
        known: Booleans = np.isfinite(labels)
        values, truth, groups = probabilities[known], labels[known] == 1.0, group[known]
        return cls(
            ranked=_Ranked.of(values, truth, groups, n) if ranked and known.any() else None,
            sums=sum_by_group(contributions(values, truth, predicted[known]), groups, n),
            groups=groups,
            values=values,
            truth=truth,
            predicted=predicted[known],
        )

    def closed_forms(self) -> dict[str, Interval | None]:
        """Return the metrics whose interval has a closed form."""
        found = decision_intervals(self.truth, self.predicted, self.groups)
        if self.ranked is not None:
            found["auroc"] = auroc_interval(self.values, self.truth, self.groups)
        return found

    def exact_where_constant(self, drawn: Mapping[str, Interval | None]) -> dict[str, Interval]:
        """Return the bounded metrics whose bootstrap cannot show their uncertainty, with an exact interval."""
        fewest = fewest_groups(self.truth, self.groups)
        found = {name: one for name, one in drawn.items() if name in _BOUNDED and one is not None}
        return {
            name: constant_interval(one.value, fewest)
            for name, one in found.items()
            if fewest < 2 or one.high - one.low < _ROUNDING
        }

    def evaluate(self, columns: Floats) -> Floats:
        """Return metrics (rounds, metrics) from weights (groups, rounds); NaN rows for rounds of one class."""
        sums = columns.T @ self.sums
        unranked = np.full(len(sums), np.nan)
        ranks = (unranked, unranked) if self.ranked is None else self.ranked.evaluate(columns)
        table = np.stack([*ranks, *tally(sums).values()], axis=1)
        total, positive = sums[:, 0], sums[:, 1]
        table[(positive == 0) | (positive == total)] = np.nan
        return table


def sum_by_group(columns: Floats, groups: Integers, n_groups: int) -> Floats:
    """Sum the rows of (images, columns) by group: (groups, columns)."""
    return np.stack([np.bincount(groups, weights=column, minlength=n_groups) for column in columns.T], axis=1)


def bootstrap_scores(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    thresholds: Sequence[float] | None = None,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
    ranked: bool = True,
) -> BootstrapScores:
    """Score predictions of six labels, every metric with its interval.

    Args:
        probabilities: (images, 6) in label order, in [0, 1].
        labels: (images, 6) of 0, 1 or NaN (unknown: the image is ignored for that label). A label that is unknown for
            all images is not scored, with the reason.
        groups: the patient of each image; None resamples images: too narrow for several slices of one head.
        thresholds: one per label, at or above is positive; None means above 0.5.
        rounds: bootstrap rounds.
        seed: of the resampling; the same seed gives the same intervals.
        ranked: False omits AUROC and average precision, which take most of the time.

    Raises:
        DataError: wrong shapes, labels other than 0, 1 and NaN, no label known at all, or probabilities outside [0, 1].
    """
    values, truth = _checked_table(probabilities, labels)
    predicted = decide(values, thresholds)
    group, n_groups = group_indices(groups, len(values))
    samples = [
        _LabelSample.of(values[:, k], truth[:, k], predicted[:, k], group, n_groups, ranked=ranked)
        for k in range(len(LABELS))
    ]
    losses = _loss_sums(values, truth, group, n_groups)
    widest = max([n_groups, *(len(sample.ranked.ranking.cuts) for sample in samples if sample.ranked is not None)])
    chunk = max(1, _CHUNK_CELLS // widest)
    point = _evaluate(np.ones((1, n_groups)), samples, losses)
    drawn = [_evaluate(w, samples, losses) for w in resamples(n_groups, rounds, seed=seed, chunk=chunk)]
    tables, wholes = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return BootstrapScores(
        n_images=len(values),
        n_groups=None if groups is None else n_groups,
        rounds=rounds,
        labels=PerLabel.of(
            [_label_scores(s, point[0][0, k], tables[:, k], grouped=groups is not None) for k, s in enumerate(samples)]
        ),
        macro=_macro(point[0][0], tables, samples),
        macro_ece=_macro_ece(point[0][0]),
        exact_match=_exact_match(truth, predicted, group),
        weighted_log_loss=_marked(interval(float(point[1][0]), wholes), n_groups),
    )


def _checked_table(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if values.shape != truth.shape or values.ndim != 2 or values.shape[1] != len(LABELS) or len(values) == 0:
        msg = (
            f"expected probabilities and labels of shape (images, {len(LABELS)}), got {values.shape} and {truth.shape}"
        )
        raise DataError(msg)
    check_probabilities(values)
    if not (np.isnan(truth) | np.isin(truth, (0.0, 1.0))).all():
        msg = "labels must be 0, 1 or unknown (NaN)"
        raise DataError(msg)
    if np.isnan(truth).all():
        msg = f"none of {len(truth)} images has a known label. Add labels"
        raise DataError(msg)
    return values, truth


def _loss_sums(values: Floats, truth: Floats, group: Integers, n_groups: int) -> Floats:
    """Return, by group, the weighted log loss and the number of fully labelled images."""
    known = np.asarray(np.isfinite(truth).all(axis=1))
    columns = np.stack([image_weighted_log_loss(values, truth == 1.0), np.ones(len(values))], axis=1)
    return sum_by_group(columns * known[:, None], group, n_groups)


def _evaluate(weights: Floats, samples: Sequence[_LabelSample], loss_sums: Floats) -> tuple[Floats, Floats]:
    """Return (rounds, labels, metrics), and (rounds,) of the weighted log loss."""
    columns = np.ascontiguousarray(weights.T)
    table = np.stack([sample.evaluate(columns) for sample in samples], axis=1)
    loss, images = (weights @ loss_sums).T
    return table, loss / np.where(images > 0, images, np.nan)


def _label_scores(sample: _LabelSample, point: Floats, rounds: Floats, *, grouped: bool) -> LabelScores:
    positives = int(sample.truth.sum())
    reason = None
    if len(sample.truth) == 0:
        reason = UNKNOWN
    elif positives in {0, len(sample.truth)}:
        reason = f"all {len(sample.truth)} images are {'positive' if positives else 'negative'}: one class only"
    fewest = fewest_groups(sample.truth, sample.groups)
    drawn = {
        name: _marked(interval(float(point[m]), rounds[:, m]), fewest)
        for m, name in enumerate(METRICS)
        if name != "ece"
    }
    exact = {**sample.exact_where_constant(drawn), **sample.closed_forms()} if reason is None else {}
    ece = float(point[METRICS.index("ece")])
    return LabelScores(
        metrics={**drawn, **exact} if reason is None else dict.fromkeys(drawn),
        ece=ece if np.isfinite(ece) else None,
        n_images=len(sample.truth),
        n_positive=positives,
        n_positive_groups=len(np.unique(sample.groups[sample.truth])) if grouped else None,
        dropped_rounds=int(np.isnan(rounds[:, METRICS.index(TALLY_METRICS[0])]).sum()),
        reason=reason,
    )


def _macro(point: Floats, rounds: Floats, samples: Sequence[_LabelSample]) -> dict[str, Interval | None]:
    """Return means over the labels with a defined metric; a round that lacks one of those labels is dropped."""
    means: dict[str, Interval | None] = {}
    for m, name in enumerate(METRICS):
        if name == "ece":
            continue
        defined = [k for k in range(len(samples)) if np.isfinite(point[k, m])]
        found = interval(float(point[defined, m].mean()), rounds[:, defined, m].mean(axis=1)) if defined else None
        fewest = min((fewest_groups(samples[k].truth, samples[k].groups) for k in defined), default=0)
        if found is not None and name not in _UNBOUNDED and found.high - found.low < _ROUNDING:
            found = constant_interval(found.value, fewest)
        else:
            found = _marked(found, fewest)
        means[name] = found
    return means


def _marked(found: Interval | None, fewest: int) -> Interval | None:
    """Mark a bootstrap interval as unreliable if too few patients are in a class: samples of them hardly vary."""
    return None if found is None else replace(found, unreliable=fewest < FEWEST_PATIENTS)


def _macro_ece(point: Floats) -> float | None:
    errors = point[:, METRICS.index("ece")]
    defined = errors[np.isfinite(errors)]
    return float(defined.mean()) if defined.size else None


def _exact_match(truth: Floats, predicted: Booleans, group: Integers) -> Interval | None:
    """Return the share of fully labelled images with six correct decisions."""
    known: Booleans = np.asarray(np.isfinite(truth).all(axis=1))
    return proportion_interval((predicted == (truth == 1.0)).all(axis=1)[known], group[known])
