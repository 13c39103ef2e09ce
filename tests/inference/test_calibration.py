"""Calibration keeps the order of scores; operating points and rules refuse invalid values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.inference.calibration import Calibration, IsotonicCalibration, OperatingPoint, StudyRule, sigmoid

LOGITS = st.floats(-1e6, 1e6)


@given(LOGITS, LOGITS, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_a_higher_logit_never_gets_a_lower_probability(first: float, second: float, scale: float, bias: float) -> None:
    low, high = sorted((first, second))
    p = Calibration(scale=scale, bias=bias).apply(np.array([low, high]))
    assert 0.0 <= p[0] <= p[1] <= 1.0


def test_the_sigmoid_neither_overflows_nor_leaves_the_unit_interval() -> None:
    values = sigmoid(np.array([-1e308, -800.0, 0.0, 800.0, 1e308]))
    assert values.tolist() == [0.0, pytest.approx(0.0), 0.5, 1.0, 1.0]


def test_calibration_is_platts_formula() -> None:
    assert Calibration(scale=2.0, bias=-1.0).apply(np.array(1.5)) == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize(("scale", "bias"), [(0.0, 0.0), (-1.0, 0.0), (np.inf, 0.0), (np.nan, 0.0), (1.0, np.nan)])
def test_a_calibration_that_would_break_the_order_is_refused(scale: float, bias: float) -> None:
    with pytest.raises(ValueError, match="positive finite scale"):
        Calibration(scale=scale, bias=bias)


CURVES = st.lists(st.tuples(st.integers(-40, 40), st.integers(0, 100)), min_size=1, max_size=8).map(
    lambda points: IsotonicCalibration(
        logits=tuple(map(float, sorted({x for x, _ in points}))),
        probabilities=tuple(y / 100 for y in sorted(y for _, y in points)[: len({x for x, _ in points})]),
    )
)


@given(LOGITS, LOGITS, CURVES)
def test_an_isotonic_curve_never_turns_the_order_round_and_stays_among_its_points(
    first: float, second: float, curve: IsotonicCalibration
) -> None:
    low, high = sorted((first, second))
    p = curve.apply(np.array([low, high]))
    assert curve.probabilities[0] <= p[0] <= p[1] <= curve.probabilities[-1]
    np.testing.assert_array_equal(curve.apply(np.array(curve.logits)), curve.probabilities)


@pytest.mark.parametrize(
    ("logits", "probabilities"),
    [((), ()), ((0.0,), (0.1, 0.2)), ((0.0, 0.0), (0.1, 0.2)), ((0.0, 1.0), (0.2, 0.1)), ((0.0, 1.0), (0.5, 1.1))],
)
def test_an_isotonic_curve_that_does_not_rise_is_refused(
    logits: tuple[float, ...], probabilities: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="needs rising logits and probabilities in 0 to 1"):
        IsotonicCalibration(logits=logits, probabilities=probabilities)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, np.nan])
def test_a_threshold_that_no_probability_can_meet_or_miss_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        OperatingPoint(threshold=threshold, rule="fixed")


def test_the_study_rule_counts_the_bins_that_span_its_extent() -> None:
    assert StudyRule(extent_mm=15.0, nominal_spacing_mm=5.0).count == 3
    assert StudyRule(extent_mm=1.0, nominal_spacing_mm=5.0).count == 1


@pytest.mark.parametrize(("extent", "spacing"), [(0.0, 5.0), (15.0, 0.0), (np.nan, 5.0), (15.0, 1e9), (1e9, 5.0)])
def test_a_study_rule_of_impossible_lengths_is_refused(extent: float, spacing: float) -> None:
    with pytest.raises(ValueError, match="nominal spacing up to 50 mm"):
        StudyRule(extent_mm=extent, nominal_spacing_mm=spacing)


def test_an_unknown_study_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="the only study rule is top_mean, got maximum"):
        StudyRule(kind="maximum")  # type: ignore[arg-type]  # that is the point
