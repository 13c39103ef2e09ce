"""Operating points reach their targets on the data they were tuned on, and scikit-learn agrees on the curves."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemoscope.errors import DataError
from hemoscope.evaluation.metrics import label_metrics
from hemoscope.evaluation.thresholds import (
    Cuts,
    at_precision,
    at_sensitivity,
    at_specificity,
    best_f_beta,
    stated,
    youden,
)

Array = NDArray[np.float64]


def predictions(seed: int, images: int = 60, *, decimals: int = 12) -> tuple[Array, NDArray[np.int64]]:
    """Scores strictly inside (0, 1) that know something about their labels; few decimals make ties."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.3).astype(np.int64)
    labels[:2] = 0, 1
    scores = 1 / (1 + np.exp(-(random.normal(size=images) + 2 * labels - 1)))
    return np.clip(np.round(scores, decimals), 0.01, 0.99), labels


seeds, ties = st.integers(0, 10_000), st.sampled_from([1, 2, 12])
targets = st.floats(0.05, 1.0)


@given(seeds, ties, targets)
def test_a_threshold_for_a_sensitivity_reaches_it_and_no_higher_one_does(seed: int, decimals: int, goal: float) -> None:
    p, y = predictions(seed, decimals=decimals)
    point = at_sensitivity(p, y, goal)
    found = label_metrics(p, y, threshold=point.threshold)
    assert found["recall"] == point.sensitivity
    assert found["specificity"] == pytest.approx(point.specificity)
    assert found["recall"] >= goal
    above = p[p >= point.threshold].min()
    assert label_metrics(p, y, threshold=float(np.nextafter(above, 2)))["recall"] < goal


@given(seeds, ties, targets)
@example(seed=8891, decimals=2, goal=0.05000000000000001)  # next to a share that the data reach, 2 in 40
def test_a_threshold_for_a_specificity_reaches_it_and_no_lower_one_does(seed: int, decimals: int, goal: float) -> None:
    p, y = predictions(seed, decimals=decimals)
    point = at_specificity(p, y, goal)
    assert label_metrics(p, y, threshold=point.threshold)["specificity"] >= goal
    below = p[p < point.threshold]
    assert below.size == 0 or label_metrics(p, y, threshold=float(below.max()))["specificity"] < goal


@given(seeds, ties, targets)
def test_a_threshold_for_a_precision_has_the_highest_recall_that_allows_it(
    seed: int, decimals: int, goal: float
) -> None:
    p, y = predictions(seed, decimals=decimals)
    precision, recall, _ = reference.precision_recall_curve(y, p)
    assume((precision[:-1] >= goal).any())
    point = at_precision(p, y, goal)
    assert label_metrics(p, y, threshold=point.threshold)["precision"] >= goal
    assert point.sensitivity == pytest.approx(recall[:-1][precision[:-1] >= goal].max())


@pytest.mark.parametrize("count", [10, 37, 60])
def test_a_share_that_equals_the_target_reaches_it(count: int) -> None:
    positives, negatives = np.linspace(0.6, 0.9, count), np.linspace(0.1, 0.4, count)
    p, y = np.concatenate([positives, negatives]), np.repeat([1, 0], count)
    for some in range(1, count + 1):
        target = some / count
        assert at_sensitivity(p, y, target).sensitivity == target
        assert at_specificity(p, y, target).specificity == target
        assert at_precision(p, y, count / (count + some)).specificity == (count - some) / count


@given(seeds, ties)
def test_youden_and_f_beta_are_the_best_of_the_curves_of_scikit_learn(seed: int, decimals: int) -> None:
    p, y = predictions(seed, decimals=decimals)
    fpr, tpr, _ = reference.roc_curve(y, p)
    point = youden(p, y)
    assert point.sensitivity is not None
    assert point.specificity is not None
    assert point.sensitivity + point.specificity - 1 == pytest.approx((tpr - fpr).max())
    precision, recall, _ = reference.precision_recall_curve(y, p)
    best = max(5 * p * r / (4 * p + r) for p, r in zip(precision, recall, strict=True) if r > 0)
    assert reference.fbeta_score(y, p >= best_f_beta(p, y, 2).threshold, beta=2) == pytest.approx(best)


@given(seeds, st.sampled_from([1, 2, 6]))  # more decimals than float32 has would put two on one number
def test_a_threshold_survives_rounding_of_the_probabilities_to_float32(seed: int, decimals: int) -> None:
    p, y = predictions(seed, decimals=decimals)
    threshold = at_sensitivity(p, y, 0.9).threshold
    assert ((p >= threshold) == (p.astype(np.float32) >= threshold)).all()


def test_accuracy_of_every_cut_agrees_with_scikit_learn() -> None:
    p, y = predictions(3, decimals=2)
    cuts = Cuts.of(p, y)
    assert cuts.accuracy == pytest.approx([reference.accuracy_score(y, p >= s) for s in cuts.scores])
    assert np.isnan(cuts.precision[0])


def test_a_threshold_chosen_elsewhere_is_described_on_these_data() -> None:
    point = stated([0.1, 0.4, 0.6, 0.9], [0, 1, 0, 1], 0.4, rule="as shipped")
    assert (point.sensitivity, point.specificity, point.rule) == (1.0, 0.5, "as shipped")
    assert stated([0.1], [0], 0.4, rule="as shipped").sensitivity is None


def test_rules_name_themselves() -> None:
    p, y = predictions(1)
    assert at_sensitivity(p, y, 0.95).rule == "sensitivity >= 0.95"
    assert at_specificity(p, y, 0.9).rule == "specificity >= 0.9"
    assert at_precision(p, y, 0.5).rule == "precision >= 0.5"
    assert best_f_beta(p, y, 2).rule == "f-beta 2"


def test_what_has_no_operating_point_is_refused() -> None:
    p, y = predictions(2)
    with pytest.raises(DataError, match="needs both classes"):
        youden(p, np.zeros_like(y))
    with pytest.raises(DataError, match=r"no threshold reaches a precision of 0.9; the highest is 0.500"):
        at_precision([0.9, 0.8], [0, 1], 0.9)
    with pytest.raises(DataError, match="target must lie above 0"):
        at_sensitivity(p, y, 0.0)
    with pytest.raises(DataError, match="beta must be positive"):
        best_f_beta(p, y, 0.0)
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        youden([1.2, 0.1], [1, 0])
    with pytest.raises(DataError, match="exactly 0 or 1"):
        at_sensitivity([0.0, 0.5, 0.7], [1, 1, 0], 1.0)
