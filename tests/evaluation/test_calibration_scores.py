"""Slope, intercept, observed to expected, curve and binned error of probabilities whose calibration is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from hemoscope.errors import DataError
from hemoscope.evaluation.calibration_scores import (
    UNDEFINED,
    calibration_curve,
    calibration_of_labels,
    calibration_scores,
)
from hemoscope.evaluation.intervals import Interval
from hemoscope.evaluation.metrics import label_metrics
from hemoscope.labels import LABELS

Array = NDArray[np.float64]


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def drawn(seed: int, images: int, *, scale: float = 1.0, shift: float = 0.0) -> tuple[Array, Array]:
    """Probabilities whose labels follow ``sigmoid(scale * logit + shift)``."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 1.5, size=images)
    return sigmoid(logits), (random.random(images) < sigmoid(scale * logits + shift)).astype(float)


def found(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


def test_the_slope_is_that_of_unpenalized_logistic_regression() -> None:
    p, y = drawn(0, 400)
    logits = np.log(p / (1 - p))[:, None]
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits, y).coef_[0, 0]
    assert found(calibration_scores(p, y).slope).value == pytest.approx(expected, rel=1e-5)


def test_calibrated_probabilities_have_slope_one_intercept_zero_ratio_one() -> None:
    p, y = drawn(1, 4000)
    scores = calibration_scores(p, y)
    for interval, ideal in ((scores.slope, 1.0), (scores.intercept, 0.0), (scores.observed_expected, 1.0)):
        assert found(interval).low < ideal < found(interval).high
    assert scores.ece is not None
    assert scores.ece_if_calibrated == pytest.approx(scores.ece, abs=0.01)


def test_overconfident_and_low_probabilities_are_recognized() -> None:
    p, y = drawn(2, 4000, scale=0.5)
    assert found(calibration_scores(p, y).slope).high < 0.6
    p, y = drawn(2, 4000, shift=1.0)
    low = calibration_scores(p, y)
    assert found(low.intercept).value == pytest.approx(1.0, abs=0.15)
    assert found(low.observed_expected).low > 1.2
    assert low.ece is not None
    assert low.ece_if_calibrated is not None
    assert low.ece > 3 * low.ece_if_calibrated


def test_a_few_studies_have_a_binned_error_even_if_calibrated() -> None:
    p, y = drawn(3, 82)
    reference = calibration_scores(p, y).ece_if_calibrated
    assert reference is not None
    assert 0.07 < reference < 0.16


def test_repeating_the_images_of_a_patient_narrows_nothing() -> None:
    p, y = drawn(4, 100)
    once = calibration_scores(p, y, np.arange(100))
    many = calibration_scores(np.repeat(p, 6), np.repeat(y, 6), np.repeat(np.arange(100), 6))
    for one, other in (
        (once.slope, many.slope), (once.intercept, many.intercept), (once.observed_expected, many.observed_expected)
    ):  # fmt: skip
        assert found(other).as_dict() == pytest.approx(found(one).as_dict(), rel=1e-6, abs=1e-9)
    assert many.ece == pytest.approx(once.ece)


def test_what_the_data_cannot_give_is_none() -> None:
    p, y = drawn(5, 50)
    assert calibration_scores(p, np.zeros(50)) == UNDEFINED
    one = calibration_scores(p, y, np.where(y == 1, 0, np.arange(50)))
    assert one.slope is one.intercept is one.observed_expected is None
    assert one.ece is not None
    separated = calibration_scores(np.repeat([0.1, 0.9], 25), np.repeat([0.0, 1.0], 25))
    assert separated.slope is None
    assert calibration_scores(np.full(50, 0.4), y).slope is None
    with pytest.raises(DataError, match="outside"):
        calibration_scores(p + 1, y)


def test_slopes_and_ratios_of_fewer_than_five_patients_are_not_estimable() -> None:
    p, y = drawn(5, 200)
    four, five = (np.where(y == 1, np.arange(200) % patients, np.arange(200) + 5) for patients in (4, 5))
    few = calibration_scores(p, y, four)
    assert few.slope is few.intercept is few.observed_expected is None
    assert few.reason is not None
    assert "not estimable with 4 patients in a class; they need 5" in few.reason
    assert few.ece is not None
    enough = calibration_scores(p, y, five)
    assert enough.reason is None
    assert enough.slope is not None
    assert enough.observed_expected is not None


def test_the_band_of_the_curve_holds_the_truth() -> None:
    inside = []
    for seed in range(40):
        curve = calibration_curve(*drawn(seed, 1000, scale=0.6))
        assert curve is not None
        shown = np.array(curve.probabilities)
        truth = sigmoid(0.6 * np.log(shown / (1 - shown)))
        inside.append(((np.array(curve.low) <= truth) & (truth <= np.array(curve.high))).mean())
    assert 0.9 < np.mean(inside) < 0.99


def test_a_curve_needs_ten_patients_of_each_class() -> None:
    p, _ = drawn(6, 500)
    assert calibration_curve(p, np.arange(500) < 9) is None
    assert calibration_curve(p, np.arange(500) < 60, np.minimum(np.arange(500), 9)) is None


def test_six_labels_leave_unknown_rows_out() -> None:
    p, y = drawn(7, 300)
    table, labels = np.repeat(p[:, None], 6, axis=1), np.repeat(y[:, None], 6, axis=1)
    labels[:100, 2] = np.nan
    table[:, 4] = np.nan
    scores = calibration_of_labels(table, labels)
    assert scores["any"] == calibration_scores(p, y)
    assert scores["intraparenchymal"] == calibration_scores(p[100:], y[100:])
    assert scores["subarachnoid"] == UNDEFINED
    assert scores[LABELS[0]].ece == pytest.approx(label_metrics(p, y)["ece"])
