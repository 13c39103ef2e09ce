"""Net benefit of acting on a probability (decision curve analysis), with intervals by patient.

Vickers and Elkin (2006): at a threshold probability t, a false positive weighs t / (1 - t) of a true positive. Net
benefit is true positives per row, less weighted false positives per row. A model is of use at t if its net benefit is
above that of calling every row positive, and above 0, that of calling none.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS, interval, resamples
from hemoscope.evaluation.intervals import CONFIDENCE, Interval, group_indices
from hemoscope.evaluation.metrics import Booleans, Floats, Integers, check_probabilities, checked_pair

# Above 0.5, a false alarm weighs more than a missed hemorrhage: few readers would choose that.
THRESHOLDS: tuple[float, ...] = tuple(percent / 100 for percent in range(1, 61))
_CHUNK_CELLS = 2_000_000  # maximum array size: rounds times groups, as float64 (16 MB)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionCurve:
    """Net benefit at each of THRESHOLDS, (thresholds,) each.

    Attributes:
        model: of rows at or above the threshold.
        low: lower bound of its 95% interval.
        high: upper bound.
        treat_all: of calling every row positive; that of none is 0.
        gain: of the model over the better of all and none, with its interval.
        prevalence: share of positive rows, observed or standardized.
    """

    model: Floats
    low: Floats
    high: Floats
    treat_all: Floats
    gain: tuple[Interval | None, ...]
    prevalence: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strata:
    """Rows with and without hemorrhage of any type, to be weighted to a ``prevalence`` of it; ``positive``: (rows,)."""

    positive: Booleans
    prevalence: float


def decision_curve(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Hashable] | NDArray[np.generic] | None = None,
    *,
    strata: Strata | None = None,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
) -> DecisionCurve:
    """Return the decision curve of one label, with percentile bootstrap intervals over patients.

    Args:
        probabilities: (rows,) calibrated, in [0, 1].
        labels: (rows,) 0 or 1.
        groups: the patient of each row; None takes each row as its own.
        strata: to standardize to another prevalence; None for the observed one.
        rounds: bootstrap rounds.
        seed: of the resampling.

    Raises:
        DataError: probabilities outside [0, 1], other labels than 0 and 1, or lengths that differ.
    """
    values, truth = checked_pair(probabilities, labels)
    check_probabilities(values)
    group, n_groups = group_indices(groups, len(values))
    shares = (1.0, 0.0) if strata is None else (1.0 - strata.prevalence, strata.prevalence)
    counts = _counts(values, truth, None if strata is None else strata.positive, group, n_groups)
    model, treat_all, share = _net_benefit(np.asarray(counts.sum(axis=0))[None, :], shares)
    chunk = max(1, _CHUNK_CELLS // n_groups)
    drawn = [counts.T @ weights.T for weights in resamples(n_groups, rounds, seed=seed, chunk=chunk)]
    models, alls, _ = _net_benefit(np.concatenate([part.T for part in drawn]), shares)
    best = np.where(treat_all[0] > 0.0, alls, 0.0)
    gains = model[0] - np.maximum(treat_all[0], 0.0)
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.nanquantile(models, (tail, 1.0 - tail), axis=0)
    return DecisionCurve(
        model=model[0],
        low=low,
        high=high,
        treat_all=treat_all[0],
        gain=tuple(interval(float(gains[k]), (models - best)[:, k]) for k in range(len(THRESHOLDS))),
        prevalence=float(share[0]),
    )


def _counts(values: Floats, truth: Booleans, stratum: Booleans | None, group: Integers, n_groups: int) -> csr_array:
    """Return rows counted by group and cell, (groups, 2 strata x 2 classes x thresholds + 1).

    The last axis is the number of thresholds that a row reaches.
    """
    reached = np.searchsorted(THRESHOLDS, values, side="right")
    layer = np.zeros(len(values), dtype=np.intp) if stratum is None else stratum.astype(np.intp)
    width = len(THRESHOLDS) + 1
    cells = (layer * 2 + truth) * width + reached
    return csr_array((np.ones(len(values)), (group, cells)), shape=(n_groups, 4 * width))


def _net_benefit(counts: Floats, shares: tuple[float, float]) -> tuple[Floats, Floats, Floats]:
    """Return net benefit of the model and of all (rounds, thresholds), and the share of positives, (rounds,).

    A round that lacks a stratum is NaN.
    """
    width = len(THRESHOLDS) + 1
    table = counts.reshape(len(counts), 2, 2, width)
    # Rows that reach at least threshold k lie in the cells from k + 1 on.
    above = np.flip(np.cumsum(np.flip(table, axis=3), axis=3), axis=3)
    sizes = above[..., 0].sum(axis=2)
    weights = np.divide(shares, sizes, out=np.full_like(sizes, np.nan), where=sizes > 0)
    weights[:, [share == 0.0 for share in shares]] = 0.0
    rates = np.einsum("rs,rsct->rct", weights, above)
    odds = np.array(THRESHOLDS) / (1.0 - np.array(THRESHOLDS))
    model = rates[:, 1, 1:] - rates[:, 0, 1:] * odds
    treat_all = rates[:, 1, :1] - rates[:, 0, :1] * odds
    return model, treat_all, rates[:, 1, 0]


def at_prevalence(probabilities: Floats, any_probability: Floats, *, observed: float, prevalence: float) -> Floats:
    """Return probabilities (rows,) moved from the ``observed`` prevalence of any hemorrhage to another (Bayes' rule).

    It assumes that rows with hemorrhage, and rows without, look as they do here; only their shares differ. So the types
    keep their shares among the rows with hemorrhage.

    Args:
        probabilities: of one label, at the observed prevalence.
        any_probability: of any hemorrhage, on the same rows.
        observed: share of rows with hemorrhage, above 0 and below 1.
        prevalence: the other share, above 0 and below 1.
    """
    with_bleed, without = prevalence / observed, (1.0 - prevalence) / (1.0 - observed)
    moved = with_bleed * probabilities / (with_bleed * any_probability + without * (1.0 - any_probability))
    return np.minimum(moved, 1.0)
