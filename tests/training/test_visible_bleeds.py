"""``experiments/visible_bleeds.py``: how much of the errors is bleeds that the images hardly show."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    spec = importlib.util.spec_from_file_location("visible_bleeds", EXPERIMENTS / "visible_bleeds.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "visible_bleeds", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("sensitivity", "expected"), [(0.5, 1.0), (0.75, 0.75), (1.0, 0.25)])
def test_specificity_is_that_of_the_highest_threshold_that_finds_the_share(
    script: ModuleType, sensitivity: float, expected: float
) -> None:
    scores = np.array([9.0, 8.0, 5.0, 2.0, 7.0, 4.0, 3.0, 1.0])
    bleeds = np.array([True] * 4 + [False] * 4)
    assert script.specificity_at(scores, bleeds, sensitivity) == expected


def test_without_the_patients_that_are_left_out_the_counts_are_smaller(script: ModuleType) -> None:
    record = pd.read_csv(script.DEFAULT / "slices.csv")
    bleeding = record.loc[record["any"] == 1, "patient_id"].unique()
    everyone, fewer = script.figures(script.DEFAULT, set()), script.figures(script.DEFAULT, set(bleeding[:3]))
    assert (everyone[0], fewer[0]) == ("36 of 82", "33 of 79")
    assert [float(one) for one in everyone[1:]] == [0.964, 0.946, 0.65]
