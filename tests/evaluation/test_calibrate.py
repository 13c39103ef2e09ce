"""Calibrations recover known parameters, keep the order of scores, and are never scored on their fitting data."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from sklearn.linear_model import LogisticRegression

from hemoscope.errors import DataError, MissingExtraError
from hemoscope.evaluation.calibrate import (
    FITS,
    LOWEST_SCALE,
    Fit,
    cross_fitted,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    group_folds,
    logit,
    smoothed_targets,
)
from hemoscope.evaluation.metrics import label_metrics
from hemoscope.inference.calibration import Calibration, IsotonicCalibration, sigmoid

Array = NDArray[np.float64]


def overconfident(seed: int, images: int = 20_000) -> tuple[Array, NDArray[np.bool_]]:
    """Logits that must be multiplied by 0.4 and lowered by 1 to tell the truth."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, size=images)
    return logits, random.random(images) < sigmoid(0.4 * logits - 1)


def test_platt_recovers_a_planted_scale_and_bias() -> None:
    found = fit_platt(*overconfident(0))
    assert found.scale == pytest.approx(0.4, abs=0.02)
    assert found.bias == pytest.approx(-1.0, abs=0.06)


def test_platt_agrees_with_logistic_regression_where_there_is_plenty_of_data() -> None:
    logits, labels = overconfident(1)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    found = fit_platt(logits, labels)
    assert found.scale == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert found.bias == pytest.approx(reference.intercept_[0], rel=1e-2)


def test_platt_leaves_good_probabilities_nearly_alone_when_positives_are_few() -> None:
    random = np.random.default_rng(2)
    logits = random.normal(-3, 2, size=300)
    labels = random.random(300) < sigmoid(logits)
    labels[np.flatnonzero(labels)[4:]] = False
    found = fit_platt(logits, labels)
    assert 0.2 < found.scale < 3
    assert np.isfinite(found.bias)


def test_perfectly_separated_scores_give_a_finite_scale() -> None:
    found = fit_platt([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])
    assert 0 < found.scale < 10


def test_scores_that_rank_the_wrong_way_are_flattened_not_reversed() -> None:
    logits, labels = overconfident(3, 500)
    found = fit_platt(-logits, labels)
    assert found.scale == pytest.approx(LOWEST_SCALE)
    assert found.apply(-logits).mean() == pytest.approx(labels.mean(), abs=0.01)


def test_logits_far_from_zero_and_close_together_are_fitted() -> None:
    logits, labels = overconfident(4)
    found = fit_platt(1000 + logits / 10, labels)
    assert found.scale == pytest.approx(4.0, rel=0.05)
    assert label_metrics(found.apply(1000 + logits / 10), labels)["ece"] < 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.1, 10))
def test_mean_probability_after_platt_is_the_mean_of_its_targets(seed: int, shift: float, stretch: float) -> None:
    logits, labels = overconfident(seed, 100)
    labels[:2] = False, True
    logits = logits * stretch + shift
    assert fit_platt(logits, labels).apply(logits).mean() == pytest.approx(smoothed_targets(labels).mean(), abs=1e-4)


def test_temperature_recovers_a_planted_scale() -> None:
    random = np.random.default_rng(5)
    logits = random.normal(0, 4, size=20_000)
    found = fit_temperature(logits, random.random(20_000) < sigmoid(0.4 * logits))
    assert found.scale == pytest.approx(0.4, abs=0.02)
    assert found.bias == 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 300), st.integers(0, 17), st.sampled_from([1e-3, 1.0, 1e4]))
def test_isotonic_is_the_best_rising_curve_through_the_mean_target_of_each_logit(
    seed: int, images: int, decimals: int, stretch: float
) -> None:
    logits, labels = overconfident(seed, images)
    labels[:2] = False, True
    logits = np.round(logits, decimals) * stretch
    points, place, counts = np.unique(logits, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=smoothed_targets(labels)) / counts
    levels = isotonic_regression(means, weights=counts.astype(float)).x
    grid = np.concatenate([points, np.linspace(points[0] - 1, points[-1] + 1, 97)])
    assert fit_isotonic(logits, labels).apply(grid) == pytest.approx(np.interp(grid, points, levels), abs=1e-12)


def test_isotonic_without_scikit_learn_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn .* pip install 'hemoscope\[study\]'"):
        fit_isotonic(*overconfident(6, 500))


@pytest.mark.parametrize("name", FITS)
def test_every_fit_lowers_the_calibration_error_of_images_it_never_saw(name: str) -> None:
    logits, labels = overconfident(7, 4000)
    before = label_metrics(sigmoid(logits), labels)
    after = label_metrics(cross_fitted(logits, labels, fit=FITS[name]), labels)
    assert after["log_loss"] < before["log_loss"]
    assert after["ece"] < before["ece"]
    if name != "temperature":
        assert after["ece"] < 0.03


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(sorted(FITS)))
def test_a_fit_never_turns_the_order_of_scores_round(seed: int, name: str) -> None:
    logits, labels = overconfident(seed, 60)
    labels[:2] = False, True
    calibrated = FITS[name](logits, labels).apply(np.sort(logits))
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated > 0) & (calibrated < 1)).all()


def test_no_image_is_calibrated_by_a_fit_that_saw_its_patient() -> None:
    logits, labels = overconfident(8, 400)
    patients = np.arange(400) // 10
    seen: list[set[float]] = []

    def spy(values: Array, truth: NDArray[np.bool_]) -> Calibration:
        seen.append(set(values.tolist()))
        # Logits are shrunk to nearly zero, so the bias in the result tells which fit made it.
        return Calibration(scale=1e-9, bias=float(len(seen)))

    used = np.rint(logit(cross_fitted(logits, labels, patients, fit=spy))).astype(int)
    assert len(seen) == 5
    for patient in range(40):
        mine = patients == patient
        (fit,) = set(used[mine])
        assert not seen[fit - 1] & set(logits[mine].tolist())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_folds_keep_patients_whole_and_distribute_positive_patients_evenly(seed: int, folds: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.integers(12, size=100)
    groups[:12] = np.arange(12)
    sick = random.permutation(12)[: random.integers(2, 12)]
    labels = np.isin(groups, sick)
    part = group_folds(labels, groups, folds, seed=seed)
    assert all(len(set(part[groups == g])) == 1 for g in range(12))
    shares = [len(set(groups[labels & (part == f)])) for f in range(folds)]
    assert max(shares) - min(shares) <= 1


def test_cross_fitting_is_repeatable_and_moves_with_the_seed() -> None:
    logits, labels = overconfident(9, 300)
    one, again, other = (cross_fitted(logits, labels, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_logit_undoes_the_sigmoid_and_survives_certainty() -> None:
    values = np.array([-5.0, 0.0, 3.0])
    assert logit(sigmoid(values)) == pytest.approx(values)
    assert logit([0.0, 1.0]) == pytest.approx([-16.118, 16.118], abs=1e-3)


@pytest.mark.parametrize("fit", FITS.values())
def test_one_class_cannot_be_calibrated(fit: Fit) -> None:
    with pytest.raises(DataError, match="needs both classes"):
        fit(np.zeros(3), np.zeros(3, dtype=bool))


def test_too_few_positive_patients_cannot_be_cross_fitted() -> None:
    logits, labels = np.arange(20.0), np.arange(20) < 4
    with pytest.raises(DataError, match=r"positives in two of them, got 5 groups, 1 with a positive\. Give more"):
        cross_fitted(logits, labels, np.arange(20) // 4)
    with pytest.raises(DataError, match="at least 2 folds"):
        cross_fitted(logits, labels, folds=1)


def test_an_isotonic_curve_must_rise() -> None:
    with pytest.raises(ValueError, match="rising logits"):
        IsotonicCalibration(logits=(0.0, 0.0), probabilities=(0.1, 0.2))
    with pytest.raises(ValueError, match="rising logits"):
        IsotonicCalibration(logits=(0.0, 1.0), probabilities=(0.3, 0.2))
