"""Closed-form intervals agree with independent computations, and take patients as the unit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t
from sklearn.metrics import roc_auc_score

from hemoscope.errors import DataError
from hemoscope.evaluation.intervals import Interval, auroc_interval, decision_intervals, proportion_interval

Array = NDArray[np.float64]


def cohort(seed: int, positive: int = 12, negative: int = 30) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    labels = np.repeat([1.0, 0.0], [positive, negative])
    return np.round(random.normal(size=len(labels)) + 1.5 * labels, 1), labels


def delong_variance(scores: Array, labels: Array) -> float:
    """DeLong's variance by its definition: structural components from all pairs."""
    wins = (scores[labels == 1][:, None] > scores[labels == 0]) + 0.5 * (
        scores[labels == 1][:, None] == scores[labels == 0]
    )
    positive, negative = wins.mean(axis=1), wins.mean(axis=0)
    return float(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative))


def found(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_with_one_image_a_patient_it_is_delongs_interval_on_the_logit_scale(seed: int) -> None:
    scores, labels = cohort(seed)
    area = roc_auc_score(labels, scores)
    if area in {0.0, 1.0}:
        return
    half = t.ppf(0.975, 11) * np.sqrt(delong_variance(scores, labels)) / (area * (1 - area))
    logit = np.log(area / (1 - area))
    expected = 1 / (1 + np.exp(-(logit + np.array([-half, half]))))
    measured = found(auroc_interval(scores, labels))
    assert measured.value == pytest.approx(area)
    assert [measured.low, measured.high] == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_repeating_a_patients_image_tells_nothing_new(seed: int, times: int) -> None:
    scores, labels = cohort(seed)
    patients = np.arange(len(labels))
    once = auroc_interval(scores, labels, patients)
    many = auroc_interval(np.repeat(scores, times), np.repeat(labels, times), np.repeat(patients, times))
    assert found(many).as_dict() == pytest.approx(found(once).as_dict())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_rising_function_changes_nothing_and_exchanged_classes_mirror_it(seed: int) -> None:
    scores, labels = cohort(seed)
    patients = np.arange(len(labels)) // 3
    straight = found(auroc_interval(scores, labels, patients))
    assert found(auroc_interval(np.exp(scores), labels, patients)) == straight
    exchanged = found(auroc_interval(-scores, 1 - labels, patients))
    assert exchanged.as_dict() == pytest.approx(straight.as_dict())
    mirrored = found(auroc_interval(-scores, labels, patients))
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - straight.high, 1 - straight.low))


def test_perfect_separation_of_few_patients_is_far_from_certain() -> None:
    labels = np.repeat([1.0, 0.0], [4, 46])
    exact = found(auroc_interval(labels, labels))
    assert (exact.value, exact.high) == (1.0, 1.0)
    assert exact.low == pytest.approx(0.025 ** (1 / 4))
    assert found(auroc_interval(1 - labels, labels)).high == pytest.approx(1 - 0.025 ** (1 / 4))


def test_one_positive_patient_says_nothing_about_others() -> None:
    labels = np.repeat([1.0, 0.0], [20, 40])
    patients = np.repeat(["a", "b", "c"], 20)
    scores = labels + np.random.default_rng(0).normal(size=60)
    one = found(auroc_interval(scores, labels, patients))
    assert (one.low, one.high) == (0.0, 1.0)
    assert one.value == pytest.approx(roc_auc_score(labels, scores))


def test_one_class_has_no_auroc_and_bad_values_are_refused() -> None:
    assert auroc_interval([0.1, 0.2], [1, 1]) is None
    with pytest.raises(DataError, match="not finite"):
        auroc_interval([np.nan, 0.2], [0, 1])
    with pytest.raises(DataError, match="1 groups for 2 images"):
        auroc_interval([0.1, 0.2], [0, 1], ["a"])


@pytest.mark.parametrize(("hits", "rows"), [(4, 4), (0, 7), (33, 36), (32, 46), (1, 2)])
def test_one_row_a_patient_has_the_exact_interval_of_a_proportion(hits: int, rows: int) -> None:
    measured = found(proportion_interval(np.arange(rows) < hits))
    expected = binomtest(hits, rows).proportion_ci(method="exact")
    assert (measured.low, measured.high) == pytest.approx((expected.low, expected.high))


def test_four_of_four_is_not_certain() -> None:
    measured = found(proportion_interval([True] * 4))
    assert measured.low == pytest.approx(0.398, abs=5e-4)


def test_slices_that_agree_within_a_head_count_as_one() -> None:
    by_patient = np.arange(20) < 15
    patients = np.repeat(np.arange(20), 30)
    exact, slices = (
        found(proportion_interval(by_patient)),
        found(proportion_interval(np.repeat(by_patient, 30), patients)),
    )
    ignored = found(proportion_interval(np.repeat(by_patient, 30)))
    assert slices.low <= exact.low
    assert slices.high >= exact.high
    assert slices.high - slices.low < 1.1 * (exact.high - exact.low)
    assert ignored.high - ignored.low < 0.3 * (exact.high - exact.low)


def test_independent_slices_count_almost_in_full() -> None:
    random = np.random.default_rng(1)
    hits, patients = random.random(2000) < 0.8, np.repeat(np.arange(100), 20)
    measured = found(proportion_interval(hits, patients))
    half = norm.ppf(0.975) * np.sqrt(measured.value * (1 - measured.value) / 2000)
    assert measured.high - measured.low == pytest.approx(2 * half, rel=0.25)


def test_all_hits_of_many_slices_are_as_many_as_their_patients() -> None:
    patients = np.repeat(np.arange(5), 40)
    assert found(proportion_interval([True] * 200, patients)).low == pytest.approx(0.025 ** (1 / 5))
    assert found(proportion_interval([True] * 40, ["a"] * 40)).low == 0.0
    assert proportion_interval([]) is None


def test_decisions_have_four_shares_and_a_share_of_nothing_is_undefined() -> None:
    truth, predicted = np.array([True, True, False, False]), np.array([True, False, False, False])
    shares = decision_intervals(truth, predicted)
    assert {name: found(one).value for name, one in shares.items()} == {
        "accuracy": 0.75, "precision": 1.0, "recall": 0.5, "specificity": 1.0,
    }  # fmt: skip
    assert decision_intervals(truth, np.zeros(4, dtype=bool))["precision"] is None
