"""Strata of slices: who belongs to which, and what is found in each at one specificity."""

import numpy as np
import pytest

from hemoscope.evaluation.strata import joined_facts, series_facts, strata_table


def test_the_ends_of_every_bleed_are_its_edges_and_unknown_slices_end_it() -> None:
    truth = np.array([0, 1, 1, 1, 0, 1, 0, 1, np.nan, 1, 1], dtype=float)
    edge = series_facts(truth).edge
    assert edge[[1, 3, 5, 7, 9, 10]].tolist() == [1.0] * 6
    assert edge[2] == 0.0
    assert np.isnan(edge[[0, 4, 6, 8]]).all()


def test_a_bleed_at_the_end_of_the_series_ends_there() -> None:
    assert series_facts(np.ones(4)).edge.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_a_single_slice_has_no_place_in_its_series() -> None:
    facts = series_facts(np.ones(1), outline_px=np.array([400.0]))
    assert facts.names(0) == ("300 to 1,000 px",)


def test_a_slice_names_its_strata() -> None:
    truth = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    facts = series_facts(truth, outline_px=np.array([299.0, 1000.0, 1001.0, 0.0, np.nan]), age=2.0)
    low, years = "lowest 40% of the head", "up to 2 years"
    assert facts.names(0) == ("under 300 px", "first or last slice", low, years)
    assert facts.names(1) == ("300 to 1,000 px", "between", low, years)
    assert facts.names(2) == ("over 1,000 px", "first or last slice", "above", years)
    assert facts.names(3) == ("above", years)
    assert [series_facts(truth, age=age).names(4)[-1] for age in (2.1, 17.9, 18.0)] == [
        "children",
        "children",
        "from 18 years",
    ]


def test_strata_are_counted_at_one_specificity_over_all_slices() -> None:
    """Twenty clean slices, of which two may be flagged; five bleeding ones, the smallest of which is missed."""
    clean = series_facts(np.zeros(20))
    bleeding = series_facts(np.ones(5), outline_px=np.array([100.0, 500.0, 2000.0, 2000.0, 2000.0]))
    shown = np.concatenate([np.linspace(0.01, 0.2, 20), [0.05, 0.5, 0.6, 0.7, 0.8], [0.99]])
    truth = np.concatenate([np.zeros(20), np.ones(5), [np.nan]])
    facts = joined_facts([clean, bleeding, series_facts(np.array([np.nan]))])
    table = strata_table("made", shown, truth, ["a"] * 10 + ["b"] * 10 + ["c"] * 5 + ["d"], facts)
    assert table is not None
    found = {(one.kind, one.name): one for one in table.strata}
    every = found["slices", "all"]
    assert every.found is not None
    assert every.false_alarms is not None
    assert (every.found.hits, every.found.rows) == (4, 5)
    assert (every.false_alarms.hits, every.false_alarms.rows, every.false_alarms.patients) == (2, 20, 2)
    small = found["outline", "under 300 px"]
    assert small.found is not None
    assert (small.found.hits, small.found.rows, small.false_alarms) == (0, 1, None)
    assert not any(kind == "age" for kind, _ in found)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_both_kinds_of_slices_there_are_no_strata(value: float) -> None:
    truth = np.full(4, value)
    assert strata_table("made", np.linspace(0, 1, 4), truth, list("abcd"), series_facts(truth)) is None
