"""Paired comparison: the references are scikit-learn's AUROC and the bootstrap of single models."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hemoscope.errors import DataError
from hemoscope.evaluation.paired import paired_auroc

PATIENTS = [f"p{number // 4}" for number in range(120)]


def drawn_scores(seed: int, *, signal: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.random(120) < 0.3).astype(np.float64)
    return random.normal(size=120) + signal * labels, labels


def test_each_value_is_scikit_learns_and_lies_inside_its_interval() -> None:
    scores, labels = drawn_scores(1, signal=1.0)
    other = drawn_scores(2, signal=0.0)[0]
    paired = paired_auroc({"a": scores, "b": other}, labels, PATIENTS, rounds=200, seed=5)
    for name, values in (("a", scores), ("b", other)):
        found = paired.interval({name: 1.0})
        assert found is not None
        assert found.value == pytest.approx(roc_auc_score(labels, values))
        assert found.low < found.value < found.high


def test_a_model_stands_nowhere_above_itself_and_a_pairing_is_narrower_than_two_intervals() -> None:
    scores, labels = drawn_scores(3, signal=1.0)
    close = scores + np.random.default_rng(4).normal(size=120) * 0.1
    paired = paired_auroc({"a": scores, "b": close, "same": scores}, labels, PATIENTS, rounds=300, seed=1)
    none = paired.interval({"a": 1.0, "same": -1.0})
    assert none is not None
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)
    apart, alone = paired.interval({"a": 1.0, "b": -1.0}), paired.interval({"a": 1.0})
    assert apart is not None
    assert alone is not None
    assert apart.high - apart.low < (alone.high - alone.low) / 3


def test_an_image_with_an_unknown_label_changes_no_value() -> None:
    scores, labels = drawn_scores(6, signal=1.0)
    labels[:8] = np.nan
    paired = paired_auroc({"a": scores}, labels, PATIENTS, rounds=10)
    assert paired.values["a"] == pytest.approx(roc_auc_score(labels[8:], scores[8:]))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_one_class_alone_or_no_known_label_gives_no_interval(value: float) -> None:
    paired = paired_auroc({"a": np.arange(120.0)}, np.full(120, value), PATIENTS, rounds=10)
    assert paired.interval({"a": 1.0}) is None


def test_models_that_scored_different_numbers_of_images_are_refused() -> None:
    with pytest.raises(DataError, match="models with 119, 120 scores and labels"):
        paired_auroc({"a": np.zeros(119)}, np.zeros(120), PATIENTS)
