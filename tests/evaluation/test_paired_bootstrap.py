"""Bootstrap differences of two sets of scores: the references are scikit-learn's scores and the closed form."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hemoscope.errors import DataError
from hemoscope.evaluation.paired_bootstrap import paired_bootstrap
from hemoscope.evaluation.paired_tests import auroc_difference
from hemoscope.labels import LABELS

PATIENTS = [f"p{number // 5:03}" for number in range(600)]
FOLDS = [int(patient[1:]) % 2 for patient in PATIENTS]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return better scores, worse scores and labels, (600, 6)."""
    random = np.random.default_rng(seed)
    labels = (random.random((600, 6)) < 0.3).astype(np.float64)
    better = random.normal(size=(600, 6)) + 1.5 * labels
    return better, better + random.normal(size=(600, 6)), labels


def test_values_are_scikit_learns_on_the_known_images() -> None:
    better, worse, labels = drawn(1)
    labels[:50, 2] = np.nan
    found = paired_bootstrap(better, worse, labels, PATIENTS, FOLDS, rounds=20)
    for k, label in enumerate(LABELS):
        known = np.isfinite(labels[:, k])
        for name, score in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
            one = found.labels[label][name]
            assert one is not None
            expected = [score(labels[known, k], scores[known, k]) for scores in (better, worse)]
            assert [one.first, one.second] == pytest.approx(expected)
    mean = found.types["auroc"]
    assert mean is not None
    assert mean.first == pytest.approx(np.mean([found.labels[label]["auroc"].first for label in LABELS[1:]]))


def test_the_interval_of_an_auroc_is_close_to_the_closed_form() -> None:
    better, worse, labels = drawn(2)
    one = paired_bootstrap(better, worse, labels, PATIENTS, FOLDS, rounds=1000).labels["any"]["auroc"]
    closed = auroc_difference(better[:, 0], worse[:, 0], labels[:, 0], PATIENTS)
    assert one is not None
    assert closed is not None
    assert (one.low, one.high) == pytest.approx((closed.low, closed.high), abs=0.01)


def test_equal_rankings_differ_by_nothing() -> None:
    better, _, labels = drawn(3)
    one = paired_bootstrap(better, 2 * better - 1, labels, PATIENTS, FOLDS, rounds=50).labels["any"]
    assert all((found.difference, found.low, found.high) == (0, 0, 0) for found in one.values() if found)
    assert None not in one.values()


def test_a_stratum_keeps_its_number_of_patients() -> None:
    """All positives are in stratum 0: every sample has some, so none is undefined however few they are."""
    better, worse, labels = drawn(4)
    labels[:] = 0
    labels[:5] = 1
    strata = [int(patient != "p000") for patient in PATIENTS]
    one = paired_bootstrap(better, worse, labels, PATIENTS, strata, rounds=200).labels["any"]["average_precision"]
    assert one is not None
    assert one.low is not None
    assert one.low < one.high


def test_a_label_of_one_class_has_no_difference_and_is_left_out_of_the_mean() -> None:
    better, worse, labels = drawn(5)
    labels[:, 1] = 0
    found = paired_bootstrap(better, worse, labels, PATIENTS, FOLDS, rounds=20)
    assert found.labels["epidural"]["auroc"] is None
    assert found.types["auroc"] is not None
    assert found.types["auroc"].first == pytest.approx(
        np.mean([found.labels[label]["auroc"].first for label in LABELS[2:]])
    )


def test_a_patient_in_two_strata_is_refused() -> None:
    better, worse, labels = drawn(6)
    with pytest.raises(DataError, match="two strata"):
        paired_bootstrap(better, worse, labels, PATIENTS, [*FOLDS[:-1], 2], rounds=5)


def test_other_images_are_refused() -> None:
    better, worse, labels = drawn(7)
    with pytest.raises(DataError, match=r"\(599, 6\)"):
        paired_bootstrap(better, worse[:-1], labels, PATIENTS, FOLDS, rounds=5)
