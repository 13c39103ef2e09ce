"""Paired comparison: the references are scikit-learn's AUROC and the intervals of one model and of two."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hemoscope.errors import DataError
from hemoscope.evaluation.intervals import auroc_interval
from hemoscope.evaluation.paired import paired_auroc
from hemoscope.evaluation.paired_tests import auroc_difference

PATIENTS = [f"p{number // 4}" for number in range(120)]


def drawn_scores(seed: int, *, signal: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.random(120) < 0.3).astype(np.float64)
    return random.normal(size=120) + signal * labels, labels


def test_each_value_is_scikit_learns_with_the_interval_of_an_auroc() -> None:
    scores, labels = drawn_scores(1, signal=1.0)
    other = drawn_scores(2, signal=0.0)[0]
    paired = paired_auroc({"a": scores, "b": other}, labels, PATIENTS)
    for name, values in (("a", scores), ("b", other)):
        assert paired.values[name] == pytest.approx(roc_auc_score(labels, values))
        assert paired.interval({name: 1.0}) == auroc_interval(values, labels, PATIENTS)


def test_a_difference_has_the_interval_of_the_paired_test() -> None:
    scores, labels = drawn_scores(3, signal=1.0)
    other = scores + np.random.default_rng(4).normal(size=120)
    expected = auroc_difference(scores, other, labels, PATIENTS)
    found = paired_auroc({"a": scores, "b": other}, labels, PATIENTS).interval({"a": 1.0, "b": -1.0})
    assert expected is not None
    assert found is not None
    assert expected.low is not None
    assert (found.value, found.low, found.high) == pytest.approx((expected.difference, expected.low, expected.high))


def test_a_mean_of_a_model_with_itself_is_the_model_and_a_difference_from_itself_has_no_interval() -> None:
    scores, labels = drawn_scores(3, signal=1.0)
    paired = paired_auroc({"a": scores, "same": scores * 2}, labels, PATIENTS)
    mean, one = paired.interval({"a": 0.5, "same": 0.5}), paired.interval({"a": 1.0})
    assert mean is not None
    assert one is not None
    assert (mean.low, mean.high) == pytest.approx((one.low, one.high))
    assert paired.value({"a": 1.0, "same": -1.0}) == 0.0
    assert paired.interval({"a": 1.0, "same": -1.0}) is None


def test_few_patients_give_no_interval_of_a_difference_and_one_says_nothing_of_others() -> None:
    scores, _ = drawn_scores(5, signal=1.0)
    for positive_patients in (4, 1):
        labels = (np.arange(120) < 4 * positive_patients).astype(np.float64)
        paired = paired_auroc({"a": scores, "b": -scores}, labels, PATIENTS)
        assert paired.interval({"a": 1.0, "b": -1.0}) is None
    alone = paired.interval({"a": 1.0})
    assert alone is not None
    assert (alone.low, alone.high) == (0.0, 1.0)


def test_an_image_with_an_unknown_label_changes_nothing() -> None:
    scores, labels = drawn_scores(6, signal=1.0)
    labels[:8] = np.nan
    paired = paired_auroc({"a": scores}, labels, PATIENTS)
    assert paired.values["a"] == pytest.approx(roc_auc_score(labels[8:], scores[8:]))
    assert paired.interval({"a": 1.0}) == auroc_interval(scores[8:], labels[8:], PATIENTS[8:])


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_one_class_alone_or_no_known_label_gives_no_interval(value: float) -> None:
    paired = paired_auroc({"a": np.arange(120.0)}, np.full(120, value), PATIENTS)
    assert paired.interval({"a": 1.0}) is None


def test_other_sums_and_models_that_scored_different_numbers_of_images_are_refused() -> None:
    scores, labels = drawn_scores(1, signal=1.0)
    with pytest.raises(DataError, match="weights sum to 2"):
        paired_auroc({"a": scores}, labels, PATIENTS).interval({"a": 2.0})
    with pytest.raises(DataError, match="models with 119, 120 scores and labels"):
        paired_auroc({"a": np.zeros(119)}, np.zeros(120), PATIENTS)
