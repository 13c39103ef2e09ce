"""scikit-learn is the reference for every metric, with and without weights."""

import itertools

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemoscope.errors import DataError
from hemoscope.evaluation.metrics import (
    METRICS,
    Ranking,
    decide,
    exact_match,
    label_metrics,
    weighted_log_loss,
)

EXACT = {"rel": 0, "abs": 1e-9}


def predictions(seed: int, images: int = 400, *, decimals: int = 12) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores that know something about their labels; few decimals make ties."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.2).astype(np.int64)
    scores = 1 / (1 + np.exp(-(random.normal(size=images) + 2 * labels - 1)))
    return np.round(scores, decimals), labels


def by_scikit_learn(p: NDArray[np.float64], y: NDArray[np.int64], w: NDArray[np.int64] | None) -> dict[str, float]:
    hard = p > 0.5
    return {
        "auroc": reference.roc_auc_score(y, p, sample_weight=w),
        "average_precision": reference.average_precision_score(y, p, sample_weight=w),
        "accuracy": reference.accuracy_score(y, hard, sample_weight=w),
        "precision": reference.precision_score(y, hard, sample_weight=w),
        "recall": reference.recall_score(y, hard, sample_weight=w),
        "specificity": reference.recall_score(y, hard, pos_label=0, sample_weight=w),
        "f1": reference.f1_score(y, hard, sample_weight=w),
        "brier": reference.brier_score_loss(y, p, sample_weight=w),
        "log_loss": reference.log_loss(y, p, sample_weight=w),
    }


@pytest.mark.parametrize("decimals", [12, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_metric_agrees_with_scikit_learn_on_ties_and_weights(decimals: int, weighted: bool) -> None:
    p, y = predictions(7, decimals=decimals)
    w = np.random.default_rng(1).poisson(1.0, size=len(y)) if weighted else None
    ours = label_metrics(p, y, weights=w)
    for name, value in by_scikit_learn(p, y, w).items():
        assert ours[name] == pytest.approx(value, **EXACT), name


def test_log_loss_of_certain_and_wrong_predictions_is_that_of_scikit_learn() -> None:
    p, y = np.array([0.0, 1.0, 0.0, 1.0, 0.3]), np.array([1, 0, 0, 1, 0])
    assert label_metrics(p, y)["log_loss"] == pytest.approx(reference.log_loss(y, p), **EXACT)


def test_calibration_error_is_the_mean_gap_in_fifteen_equal_bins() -> None:
    p, y = predictions(3)
    edges = np.linspace(0, 1, 16)
    gap = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (p >= low) & (p < high)
        if inside.any():
            gap += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    assert label_metrics(p, y)["ece"] == pytest.approx(gap, **EXACT)


def test_a_weight_of_two_is_the_image_twice() -> None:
    p, y = predictions(5, 60, decimals=2)
    w = np.random.default_rng(2).integers(0, 4, size=60)
    weighted, repeated = label_metrics(p, y, weights=w), label_metrics(np.repeat(p, w), np.repeat(y, w))
    assert weighted == pytest.approx(repeated, **EXACT)


def test_positive_means_above_a_half_but_at_or_above_a_stated_threshold() -> None:
    half = np.array([[0.5] * 6])
    assert not decide(half).any()
    assert decide(half, [0.5] * 6).all()
    assert label_metrics([0.5, 0.1], [1, 0])["recall"] == 0.0
    assert label_metrics([0.5, 0.1], [1, 0], threshold=0.5)["recall"] == 1.0


def test_one_class_only_leaves_ranking_metrics_undefined() -> None:
    ours = label_metrics([0.2, 0.7], [0, 0])
    assert np.isnan([ours["auroc"], ours["average_precision"], ours["recall"]]).all()
    assert ours["specificity"] == 0.5
    assert set(ours) == set(METRICS)


def test_many_weightings_at_once_equal_one_at_a_time() -> None:
    p, y = predictions(11, 90, decimals=2)
    ranking = Ranking.of(p, y)
    weights = np.random.default_rng(3).poisson(1.0, size=(5, 90)).astype(float)
    auroc, precision = ranking.evaluate(weights[:, ranking.order])
    for row, expected in enumerate(weights):
        assert auroc[row] == pytest.approx(reference.roc_auc_score(y, p, sample_weight=expected), **EXACT)
        assert precision[row] == pytest.approx(reference.average_precision_score(y, p, sample_weight=expected), **EXACT)


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 12]))
def test_ranking_metrics_do_not_change_under_a_rising_map(seed: int, decimals: int) -> None:
    p, y = predictions(seed, 50, decimals=decimals)
    y[:2] = 0, 1
    before, after = label_metrics(p, y), label_metrics(p**3 / 2, y)
    assert after["auroc"] == pytest.approx(before["auroc"], **EXACT)
    assert after["average_precision"] == pytest.approx(before["average_precision"], **EXACT)


@given(st.integers(0, 10_000))
def test_turning_scores_and_labels_round_keeps_auroc(seed: int) -> None:
    p, y = predictions(seed, 50, decimals=1)
    y[:2] = 0, 1
    assert label_metrics(1 - p, 1 - y)["auroc"] == pytest.approx(label_metrics(p, y)["auroc"], **EXACT)


def test_weighted_log_loss_counts_any_twice() -> None:
    columns = [predictions(seed) for seed in range(6)]
    p, y = np.stack([c[0] for c in columns], axis=1), np.stack([c[1] for c in columns], axis=1)
    losses = [reference.log_loss(y[:, k], p[:, k]) for k in range(6)]
    assert weighted_log_loss(p, y) == pytest.approx((2 * losses[0] + sum(losses[1:])) / 7, **EXACT)


def test_weighted_log_loss_treats_a_certain_prediction_as_float32_would() -> None:
    assert weighted_log_loss(np.ones((1, 6)), np.zeros((1, 6))) == pytest.approx(-np.log(1e-7))


def test_exact_match_wants_all_six_right() -> None:
    y = np.eye(6, dtype=int)[:4]
    predicted = y.astype(bool)
    predicted[0, 5] = True
    assert exact_match(predicted, y) == 0.75


@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        ([0.1, np.nan], [0, 1], "not finite"),
        ([0.1, 1.5], [0, 1], r"outside \[0, 1\]"),
        ([0.1, 0.5], [0, 2], "must be 0 or 1"),
        ([0.1], [0, 1], "one shape"),
        ([], [], "not empty"),
    ],
)
def test_numbers_that_cannot_be_scored_are_refused(p: list[float], y: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        label_metrics(p, y)
