"""The simulation of coverage: its table is the page's, and intervals hold the truth about as often as they say."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import norm

from hemoscope.evaluation.intervals import auroc_interval

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "experiments" / "results" / "interval-coverage"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """``experiments/interval_coverage.py`` as a module."""
    spec = importlib.util.spec_from_file_location("interval_coverage", REPOSITORY / "experiments/interval_coverage.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_table_of_the_stored_simulation(simulation: ModuleType) -> None:
    rows = json.loads((RESULTS / "coverage.json").read_text())
    table = simulation.table(rows, 1000)
    assert (RESULTS / "table.md").read_text() == table
    page = (REPOSITORY / "docs/explanation/intervals.md").read_text()
    for line in table.splitlines()[2:]:
        assert line in page


def test_patients_make_the_difference_between_holding_and_missing_the_truth(simulation: ModuleType) -> None:
    true = norm.cdf(simulation.SEPARATION / np.sqrt(2))  # of slices of different patients: two normal classes
    held: dict[bool, list[bool]] = {True: [], False: []}
    for repetition in range(200):
        sample = simulation.drawn(np.random.default_rng([11, repetition]), 10, 46, 30)
        for by_patient, holds in held.items():
            found = auroc_interval(sample.scores, sample.truth, sample.patients if by_patient else None)
            assert found is not None
            holds.append(found.low <= true <= found.high)
    assert np.mean(held[True]) > 0.86
    assert np.mean(held[False]) < 0.75


def test_the_simulation_runs(simulation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "LARGE", 1000)
    monkeypatch.setattr(simulation, "SETTINGS", [(5, 1), (5, 3)])
    rows = list(simulation.coverage(2))
    assert {row["method"] for row in rows} == {"closed form", "bootstrap"}
    assert all(0.0 <= row["coverage"] <= 1.0 for row in rows)
