"""Net benefit against numbers by hand."""

import numpy as np
import pytest

from hemoscope.errors import DataError
from hemoscope.evaluation.net_benefit import THRESHOLDS, Strata, at_prevalence, decision_curve

AT_20 = THRESHOLDS.index(0.2)


def test_net_benefit_is_true_positives_less_weighted_false_positives() -> None:
    # At 0.2: 3 of 4 positives and 2 of 6 negatives are at or above it. A false positive weighs 0.25.
    probabilities = [0.9, 0.5, 0.2, 0.1, 0.7, 0.3, 0.19, 0.1, 0.05, 0.0]
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    found = decision_curve(probabilities, labels, rounds=50)
    assert found.model[AT_20] == pytest.approx((3 - 2 * 0.25) / 10)
    assert found.treat_all[AT_20] == pytest.approx((4 - 6 * 0.25) / 10)
    assert found.prevalence == pytest.approx(0.4)
    gain = found.gain[AT_20]
    assert gain is not None
    assert gain.value == pytest.approx(0.25 - 0.25)


def test_a_perfect_model_has_the_prevalence_as_its_net_benefit() -> None:
    labels = np.array([1.0] * 30 + [0.0] * 70)
    found = decision_curve(labels, labels, rounds=200)
    assert found.model == pytest.approx([0.3] * len(THRESHOLDS))
    assert (found.low < 0.3).all()
    assert (found.high > 0.3).all()


def test_calibrated_probabilities_are_never_worse_than_all_or_none() -> None:
    random = np.random.default_rng(1)
    probabilities = random.beta(0.5, 2.0, size=40_000)
    labels = (random.random(40_000) < probabilities).astype(float)
    found = decision_curve(probabilities, labels, rounds=20)
    assert (found.model >= np.maximum(found.treat_all, 0.0) - 0.002).all()


def test_patients_widen_the_band() -> None:
    random = np.random.default_rng(2)
    labels = np.repeat((random.random(60) < 0.4).astype(float), 5)
    probabilities = np.clip(np.repeat(random.random(60), 5) * 0.5 + labels * 0.3, 0, 1)
    alone = decision_curve(probabilities, labels, rounds=300)
    by_patient = decision_curve(probabilities, labels, np.repeat(np.arange(60), 5), rounds=300)
    assert by_patient.model == pytest.approx(alone.model)
    ratio = (by_patient.high - by_patient.low)[AT_20] / (alone.high - alone.low)[AT_20]
    assert 1.8 < ratio < 2.7  # the square root of five slices a patient is 2.24


def test_another_prevalence_weights_the_rows_and_moves_the_probabilities() -> None:
    random = np.random.default_rng(3)
    n = 60_000
    truth = random.random(n) < 0.4
    evidence = random.normal(size=n) + 1.5 * truth

    def posterior(prevalence: float) -> np.ndarray:
        odds = prevalence / (1 - prevalence) * np.exp(1.5 * evidence - 1.5**2 / 2)
        return np.asarray(odds / (1 + odds))

    moved = at_prevalence(posterior(0.4), posterior(0.4), observed=0.4, prevalence=0.05)
    assert moved == pytest.approx(posterior(0.05))
    found = decision_curve(moved, truth, strata=Strata(positive=truth, prevalence=0.05), rounds=20)
    # The same from a population in which 5% bleed.
    other = random.random(n) < 0.05
    evidence = random.normal(size=n) + 1.5 * other
    direct = decision_curve(posterior(0.05), other, rounds=20)
    assert found.prevalence == pytest.approx(0.05)
    assert np.abs(found.model - direct.model).max() < 0.003
    assert found.treat_all[AT_20] == pytest.approx(0.05 - 0.95 * 0.25)


def test_a_type_keeps_its_share_among_the_rows_with_hemorrhage() -> None:
    bleeds = np.array([True] * 4 + [False] * 6)
    subdural = np.array([1.0] + [0.0] * 9)
    found = decision_curve(subdural, subdural, strata=Strata(positive=bleeds, prevalence=0.1), rounds=10)
    assert found.prevalence == pytest.approx(0.1 / 4)


def test_probabilities_outside_0_to_1_are_refused() -> None:
    with pytest.raises(DataError, match="outside"):
        decision_curve([1.2, 0.1], [1, 0])
