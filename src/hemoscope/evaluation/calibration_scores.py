"""How well probabilities are calibrated: slope, intercept, observed to expected, a smooth curve, and the binned error.

Definitions after Van Calster et al. (2016, 2019). Calibrated probabilities have slope 1, intercept 0 and observed to
expected 1. Standard errors are cluster-robust with the patient as the unit (sandwich estimator), with Student's t.

The binned error (ECE) is above 0 even for calibrated probabilities, more so with few images, and a bootstrap moves it
upward. So it has no interval, but a reference: its mean if the labels were drawn from the probabilities themselves.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from hemoscope.evaluation.calibrate import logit
from hemoscope.evaluation.intervals import CONFIDENCE, FEWEST_PATIENTS, Interval, group_indices
from hemoscope.evaluation.metrics import Booleans, Floats, Integers, binned_error, check_probabilities, checked_pair
from hemoscope.inference.calibration import sigmoid
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

# Fewer groups with, or without, the label leave the curve to single patients.
FEWEST_CURVE_GROUPS = 10
CURVE_POINTS = 50
_KNOTS = (0.1, 0.5, 0.9)  # quantiles for three knots (Harrell 2015, table 2.3)
_CURVE_RANGE = (0.01, 0.99)  # quantiles: outside them, the curve rests on few images
_ROUNDS = 200
_NEWTON_STEPS = 50
_MOST = 30.0  # a coefficient on a standardized logit beyond this means separated classes


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCurve:
    """The observed share at each probability, smoothed, with its 95% band; (points,) each."""

    probabilities: tuple[float, ...]
    observed: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationScores:
    """Calibration of one label. A score that the data cannot give is None.

    Attributes:
        slope: of logistic regression of the label on the logit. Below 1: probabilities are too extreme.
        intercept: of the same with the slope fixed at 1 (calibration in the large). Above 0: probabilities are too low.
        observed_expected: number of positives to sum of probabilities.
        ece: expected calibration error in 15 equal-width bins.
        ece_if_calibrated: its mean over 200 draws of independent labels from the probabilities.
        reason: why slope, intercept and observed to expected are None, if for few patients.
    """

    slope: Interval | None
    intercept: Interval | None
    observed_expected: Interval | None
    ece: float | None
    ece_if_calibrated: float | None
    reason: str | None = None


UNDEFINED = CalibrationScores(slope=None, intercept=None, observed_expected=None, ece=None, ece_if_calibrated=None)


def calibration_scores(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Hashable] | NDArray[np.generic] | None = None,
    *,
    seed: int = 0,
) -> CalibrationScores:
    """Score the calibration of one label's probabilities.

    Args:
        probabilities: (images,) in [0, 1]; 0 and 1 count as 1e-7 from them in logits.
        labels: (images,) 0 or 1.
        groups: the patient of each image; None takes each image as its own.
        seed: of the draws for ``ece_if_calibrated``.

    Raises:
        DataError: probabilities outside [0, 1], other labels than 0 and 1, or lengths that differ.

    Slope, intercept and observed to expected need FEWEST_PATIENTS groups with the label, and as many without it.
    """
    rows = _Rows.of(probabilities, labels, groups)
    if rows.fewest == 0:
        return UNDEFINED
    few = rows.fewest < FEWEST_PATIENTS
    random = np.random.default_rng(seed)
    drawn = [binned_error(rows.values, random.random(len(rows.values)) < rows.values) for _ in range(_ROUNDS)]
    return CalibrationScores(
        slope=None if few else _slope(rows),
        intercept=None if few else _intercept(rows),
        observed_expected=None if few else _observed_expected(rows),
        ece=binned_error(rows.values, rows.truth),
        ece_if_calibrated=float(np.mean(drawn)),
        reason=_too_few(rows.fewest, "images" if groups is None else "patients") if few else None,
    )


def calibration_of_labels(
    probabilities: Floats, labels: Floats, groups: Sequence[Hashable] | None = None, *, seed: int = 0
) -> PerLabel[CalibrationScores]:
    """Score the calibration of all six labels.

    Args:
        probabilities: (images, 6) in label order; images with NaN are excluded for that label.
        labels: (images, 6) of 0, 1 or NaN (unknown: excluded for that label).
        groups: the patient of each image; None takes each image as its own.
        seed: as for :func:`calibration_scores`.
    """

    def of(label: Hemorrhage) -> CalibrationScores:
        k = LABELS.index(label)
        rows = np.flatnonzero(np.isfinite(labels[:, k]) & np.isfinite(probabilities[:, k]))
        if not rows.size:
            return UNDEFINED
        members = None if groups is None else [groups[int(row)] for row in rows]
        return calibration_scores(probabilities[rows, k], labels[rows, k], members, seed=seed)

    return PerLabel.build(of)


def calibration_curve(
    probabilities: ArrayLike, labels: ArrayLike, groups: Sequence[Hashable] | NDArray[np.generic] | None = None
) -> CalibrationCurve | None:
    """Return the smooth calibration curve of one label; arguments and errors as for :func:`calibration_scores`.

    A logistic restricted cubic spline of the logit with three knots (Harrell 2015, section 2.4.5), drawn between the
    1st and 99th percentile of the probabilities. Both classes weigh the same in these percentiles and in the knots:
    almost all slices are negative, with probabilities near 0. None with fewer than ten groups (patients) that have the
    label, or lack it, or if the probabilities hardly differ.
    """
    rows = _Rows.of(probabilities, labels, groups)
    if rows.fewest < FEWEST_CURVE_GROUPS:
        return None
    logits = logit(rows.values)
    knots = _balanced_quantiles(logits, rows.truth, _KNOTS)
    if np.diff(knots).min() < 1e-6:
        return None
    center, spread = float(logits.mean()), float(logits.std())
    fitted = _fit(rows, _spline((logits - center) / spread, (knots - center) / spread))
    if fitted is None:
        return None
    low, high = _balanced_quantiles(logits, rows.truth, _CURVE_RANGE)
    places = np.linspace(low, high, CURVE_POINTS)
    design = _spline((places - center) / spread, (knots - center) / spread)
    middle = design @ fitted[0]
    half = rows.quantile * np.sqrt(np.einsum("ij,jk,ik->i", design, fitted[1], design))
    shown = [tuple(sigmoid(line).tolist()) for line in (places, middle, middle - half, middle + half)]
    return CalibrationCurve(probabilities=shown[0], observed=shown[1], low=shown[2], high=shown[3])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Checked rows of one label; ``fewest`` groups have it, or lack it."""

    values: Floats
    truth: Booleans
    group: Integers
    n_groups: int
    fewest: int

    @classmethod
    def of(
        cls, probabilities: ArrayLike, labels: ArrayLike, groups: Sequence[Hashable] | NDArray[np.generic] | None
    ) -> "_Rows":
        values, truth = checked_pair(probabilities, labels)
        check_probabilities(values)
        group, n_groups = group_indices(groups, len(values))
        fewest = min(len(np.unique(group[truth])), len(np.unique(group[~truth])))
        return cls(values=values, truth=truth, group=group, n_groups=n_groups, fewest=fewest)

    @property
    def quantile(self) -> float:
        """Number of standard errors in half an interval; infinite with a single group in a class."""
        return float(t.ppf((1.0 + CONFIDENCE) / 2, self.fewest - 1)) if self.fewest > 1 else np.inf

    def covariance(self, scores: Floats, inverse: Floats) -> Floats:
        """Return the cluster-robust covariance from (rows, k) score contributions and the inverse information."""
        sums = np.zeros((self.n_groups, scores.shape[1]))
        np.add.at(sums, self.group, scores)
        inflation = self.n_groups / (self.n_groups - 1)
        return np.asarray(inverse @ (sums.T @ sums) @ inverse * inflation)


def _fit(rows: _Rows, design: Floats, offset: Floats | float = 0.0) -> tuple[Floats, Floats] | None:
    """Fit logistic regression by Newton's method; return coefficients and covariance, None if classes are separated."""
    point = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = sigmoid(np.asarray(design @ point + offset))
        information = (design * (chance * (1.0 - chance))[:, None]).T @ design
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (rows.truth - chance))
        point = point + step
        if np.abs(point).max() > _MOST:
            return None
        if np.abs(step).max() < 1e-10:
            break
    else:
        return None
    scores = design * (rows.truth - sigmoid(np.asarray(design @ point + offset)))[:, None]
    return point, rows.covariance(scores, np.asarray(np.linalg.inv(information), dtype=np.float64))


def _too_few(count: int, unit: str) -> str:
    return (
        f"slope, intercept and observed to expected are not estimable with {count} "
        f"{unit if count != 1 else unit.removesuffix('s')} in a class; they need {FEWEST_PATIENTS}"
    )


def _slope(rows: _Rows) -> Interval | None:
    """Return the slope, on the log scale where it is positive, as a ratio of spreads is skewed."""
    logits = logit(rows.values)
    spread = float(logits.std())
    if spread < 1e-9:
        return None
    fitted = _fit(rows, np.stack([np.ones_like(logits), (logits - logits.mean()) / spread], axis=1))
    if fitted is None:
        return None
    value = float(fitted[0][1]) / spread
    half = rows.quantile * float(np.sqrt(fitted[1][1, 1])) / spread
    if value <= 0.0:
        return Interval(value=value, low=value - half, high=value + half)
    factor = float(np.exp(half / value))
    return Interval(value=value, low=value / factor, high=value * factor)


def _intercept(rows: _Rows) -> Interval | None:
    fitted = _fit(rows, np.ones((len(rows.values), 1)), logit(rows.values))
    if fitted is None:
        return None
    value, half = float(fitted[0][0]), rows.quantile * float(np.sqrt(fitted[1][0, 0]))
    return Interval(value=value, low=value - half, high=value + half)


def _observed_expected(rows: _Rows) -> Interval | None:
    """Return observed to expected, its interval on the log scale by linearization of the ratio."""
    expected = float(rows.values.sum())
    if expected <= 0.0:
        return None
    ratio = float(rows.truth.sum()) / expected
    residual = (rows.truth - ratio * rows.values)[:, None] / (expected * ratio)
    factor = float(np.exp(rows.quantile * np.sqrt(rows.covariance(residual, np.ones((1, 1)))[0, 0])))
    return Interval(value=ratio, low=ratio / factor, high=ratio * factor)


def _balanced_quantiles(logits: Floats, truth: Booleans, shares: Sequence[float]) -> Floats:
    """Return quantiles of logits (images,) in which positives and negatives together weigh the same."""
    order = np.argsort(logits, kind="stable")
    weights = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())[order]
    places = np.searchsorted(np.cumsum(weights), shares)
    return logits[order][np.minimum(places, len(logits) - 1)]


def _spline(values: Floats, knots: Floats) -> Floats:
    """Return the columns 1, x and the one restricted cubic term of three knots; linear outside them."""
    first, middle, last = knots

    def cube(knot: float) -> Floats:
        return np.maximum(values - knot, 0.0) ** 3

    upper, lower = (last - first) / (last - middle), (middle - first) / (last - middle)
    bent = (cube(first) - cube(middle) * upper + cube(last) * lower) / (last - first) ** 2
    return np.stack([np.ones_like(values), values, bent], axis=1)
