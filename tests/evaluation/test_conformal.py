"""Conformal quantiles: what they exclude, how often wrongly, and how their performance is counted."""

import numpy as np
import pytest
from scipy.stats import binomtest

from hemoscope.evaluation.conformal import HIGH, LOW, UNSURE, fit_sets, fit_unsure, measured_rule
from hemoscope.evaluation.metrics import Floats
from hemoscope.inference.calibration import ConformalSets, UnsureRule, sigmoid


def drawn(random: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Probabilities and truth of studies, half of which have hemorrhage; the classes overlap."""
    truth = (np.arange(count) % 2).astype(float)
    return sigmoid(2 * truth - 1 + random.normal(0, 1, count)), truth


def test_the_quantiles_are_the_scores_that_the_p_values_name() -> None:
    """Of 19 studies a class, an alpha of .1 excludes below the second lowest and above the second highest."""
    positive, negative = np.linspace(0.3, 0.9, 19), np.linspace(0.1, 0.7, 19)
    found = fit_sets(np.concatenate([positive, negative]), np.repeat([1.0, 0.0], 19), 0.1)
    assert found is not None
    everything = np.sort(np.concatenate([positive, negative]))
    below, above = everything[everything < positive[1]].max(), everything[everything > negative[-2]].min()
    assert found.low == pytest.approx((positive[1] + below) / 2)
    assert found.high == pytest.approx((negative[-2] + above) / 2)
    assert found.of(np.array([found.low - 1e-9, found.low, found.high - 1e-9, found.high])).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("alpha", [0.1, 0.05])
def test_each_class_is_excluded_wrongly_at_most_as_often_as_alpha_says(alpha: float) -> None:
    random, wrong = np.random.default_rng(4), np.zeros((2000, 2))
    for row in wrong:
        found = fit_sets(*drawn(random, 82), alpha)
        assert found is not None
        shown, truth = drawn(random, 40)
        sets = found.of(shown)
        row[:] = (sets[truth == 1] == LOW).mean(), (sets[truth == 0] == HIGH).mean()
    # Of 41 studies a class, floor(42 alpha) / 42 are expected. Five standard errors of the mean are allowed.
    expected = int(alpha * 42 + 1e-9) / 42
    slack = 5 * wrong.std(axis=0) / np.sqrt(len(wrong))
    assert (wrong.mean(axis=0) <= expected + slack).all()
    assert (wrong.mean(axis=0) >= expected - slack - 0.02).all()  # halfway to the next score excludes less


@pytest.mark.parametrize(("studies", "alphas"), [(36, [0.1]), (38, [0.1, 0.05]), (16, None)])
def test_with_too_few_studies_nothing_can_be_excluded(studies: int, alphas: list[float] | None) -> None:
    rule = fit_unsure(*drawn(np.random.default_rng(0), studies))
    assert (None if rule is None else [one.alpha for one in rule.sets]) == alphas


def test_unknown_studies_count_for_nothing() -> None:
    shown, truth = drawn(np.random.default_rng(1), 60)
    more = np.concatenate([shown, np.linspace(0.01, 0.99, 50)]), np.concatenate([truth, np.full(50, np.nan)])
    assert fit_unsure(*more) == fit_unsure(shown, truth)


def test_classes_that_do_not_overlap_leave_no_study_unsure() -> None:
    shown = np.concatenate([np.linspace(0.05, 0.2, 30), np.linspace(0.8, 0.95, 30)])
    rule = fit_unsure(shown, np.repeat([0.0, 1.0], 30))
    assert rule is not None
    assert rule.used.low == rule.used.high
    assert UNSURE not in rule.used.of(np.linspace(0, 1, 101))


def test_performance_counts_studies_and_has_exact_intervals() -> None:
    rule = UnsureRule(alpha=0.1, sets=(ConformalSets(alpha=0.1, low=0.3, high=0.7),))
    sets = np.array([LOW] * 6 + [UNSURE] * 4 + [HIGH] * 10 + [LOW])
    truth = np.array([0.0] * 5 + [1.0] * 1 + [0.0, 0.0, 1.0, 1.0] + [0.0] + [1.0] * 9 + [np.nan])
    (one,) = measured_rule(rule, (sets,), truth, [str(row) for row in range(21)], "cross_fitted").sets
    found = one.performance
    assert found is not None
    assert found.low_without is not None
    assert found.high_with is not None
    shares = (found.unsure, found.not_low, found.not_high, found.low_without, found.high_with)
    assert [(share.hits, share.rows) for share in shares] == [(4, 20), (11, 12), (7, 8), (5, 6), (9, 10)]
    exact = binomtest(11, 12).proportion_ci(method="exact")
    assert (found.not_low.low, found.not_low.high) == pytest.approx((exact.low, exact.high), abs=1e-4)
