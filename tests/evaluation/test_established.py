"""A label is established by enough patients of both classes and the lower bound of its AUROC."""

import numpy as np
import pytest

from hemoscope.evaluation.established import established, established_by_rows
from hemoscope.evaluation.intervals import Interval, auroc_interval

PERFECT = Interval(value=1.0, low=1.0, high=1.0)


def test_the_lower_bound_is_at_least_three_quarters() -> None:
    assert established(Interval(value=0.9, low=0.75, high=0.95), positive_patients=10, negative_patients=10)
    assert not established(Interval(value=0.9, low=0.7499, high=0.99), positive_patients=10, negative_patients=10)
    assert not established(None, positive_patients=10, negative_patients=10)


@pytest.mark.parametrize(("positive", "negative"), [(9, 100), (100, 9), (10, 2)])
def test_few_patients_of_either_class_establish_nothing_however_well_they_rank(positive: int, negative: int) -> None:
    assert not established(PERFECT, positive_patients=positive, negative_patients=negative)
    truth = np.array([1.0] * positive + [0.0] * negative)
    assert not established_by_rows(truth, truth, np.arange(len(truth)))


def test_rows_are_counted_by_patient_and_unknown_ones_are_ignored() -> None:
    truth = np.repeat([1.0, 0.0], 20)
    scores = truth + np.linspace(0, 1e-3, 40)
    assert established_by_rows(scores, truth, np.arange(40))
    assert not established_by_rows(scores, truth, np.arange(40) // 4)  # five patients of each class
    unknown = truth.copy()
    unknown[25:] = np.nan  # five negative patients remain
    assert not established_by_rows(scores, unknown, np.arange(40))


def test_a_bound_that_holds_by_slice_alone_does_not_count_slices_as_patients() -> None:
    """Slices of one head rank alike: the interval by patient is wider than that of independent rows."""
    random = np.random.default_rng(4)
    patients = np.repeat(np.arange(24), 10)
    truth = np.where(patients % 2 == 0, 1.0, 0.0)
    scores = truth * 2.4 + np.repeat(random.normal(0, 1, 24), 10) + random.normal(0, 0.1, 240)
    alone, grouped = auroc_interval(scores, truth), auroc_interval(scores, truth, patients)
    assert alone is not None
    assert grouped is not None
    assert alone.low > 0.75 > grouped.low
    assert not established_by_rows(scores, truth, patients)
