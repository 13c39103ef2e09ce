"""The table of bars: verdicts follow the targets, runs are averaged once, and missing figures say why."""

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from hemoscope.inference.calibration import Proportion
from hemoscope.inference.card import Estimate

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
DEFAULT = EXPERIMENTS / "results" / "default"


@pytest.fixture(scope="module")
def bars() -> Iterator[ModuleType]:
    """``experiments/bars.py`` as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))  # it imports other experiments
        yield importlib.import_module("bars")


@pytest.fixture(scope="module")
def figures(bars: ModuleType) -> ModuleType:
    return importlib.import_module("bar_figures")


def test_a_bar_is_met_at_its_target(figures: ModuleType) -> None:
    for value, met in ((0.9, True), (0.89999, False)):
        assert figures.at_least("x", 0.9, Estimate(value=value, low=0.1, high=0.95)).met is met
    for hits, met in ((4, True), (5, False)):
        share = Proportion(value=hits / 100, low=0.0, high=0.2, hits=hits, rows=100, patients=10)
        found = figures.at_most("x", 0.04, share)
        assert (found.met, found.note) == (met, f"{hits} of 100")
    assert figures.at_least("x", 0.9, None, note="why").met is None


def test_the_table_says_what_is_missed_and_why_a_figure_is_missing(bars: ModuleType, figures: ModuleType) -> None:
    rows = [
        figures.at_least("one", 0.9, Estimate(value=0.8, low=0.7, high=0.85)),
        figures.at_least("two", 0.9, Estimate(value=0.95, low=None, high=None)),
        figures.at_least("three", 0.9, None, note="give the rows"),
        figures.Bar(name="four", wanted=figures.NO_BAR, value=0.2),
        figures.Bar(name="five", wanted=figures.NO_BAR, note="too few studies"),
    ]
    text = bars.markdown({"default": rows, "mean of scores": rows})
    assert "- **default**: 1 met, 1 missed, 1 without a figure. Missed: one." in text
    assert "| one | >= 0.9 | 0.800 (0.700 to 0.850); **missed** | 0.800 (0.700 to 0.850); **missed** |" in text
    assert "| two | >= 0.9 | 0.950; met | 0.950; met |" in text
    assert "| four | - | 0.200 | 0.200 |" in text
    assert text.count("- three: give the rows") == 1


@pytest.fixture
def two_runs(tmp_path: Path) -> list[Path]:
    """The shipped model's record, and one whose scores are higher by 2."""
    runs = []
    for number in (0, 1):
        run = tmp_path / f"run-{number}"
        shutil.copytree(DEFAULT, run, ignore=shutil.ignore_patterns("final", "strata.csv"))
        for path in run.glob("fold-*/scores.csv"):
            table = pd.read_csv(path)
            table[[name for name in table if name.startswith("logit_")]] += 2.0 * number
            table.to_csv(path, index=False)
        runs.append(run)
    return runs


def test_stored_scores_of_several_runs_are_averaged_once(
    bars: ModuleType, two_runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bars.scored_runs(two_runs, tmp_path / "scored", None)
    assert list(found) == ["mean of stored scores"]
    run = bars.with_strata(found["mean of stored scores"])
    first, mean = (pd.read_csv(one / "fold-2" / "scores.csv") for one in (two_runs[0], run))
    assert np.allclose(mean["logit_any"], first["logit_any"] + 1.0, atol=1e-4)
    assert (run / "strata.csv").is_file()
    monkeypatch.setattr(bars, "rescore", None)  # would fail if it were called again
    assert bars.scored_runs(two_runs, tmp_path / "scored", None) == found


def test_the_stored_scores_of_one_run_are_read_where_they_are(bars: ModuleType, two_runs: list[Path]) -> None:
    assert bars.scored_runs(two_runs[:1], Path("nowhere"), None) == {two_runs[0].name: two_runs[0]}


def test_figures_of_earlier_calls_stay(bars: ModuleType, tmp_path: Path) -> None:
    assert bars.stored(tmp_path / "bars.json") == {}
    text = (EXPERIMENTS / "results" / "bars.json").read_text()
    (tmp_path / "bars.json").write_text(text)
    assert list(bars.stored(tmp_path / "bars.json")) == list(json.loads(text))


def test_three_ways_are_read_with_the_data_and_one_run_has_no_mean_weights(
    bars: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(bars, "rescore", lambda runs, output, **how: calls.append((how["changes"], how["mean"])))
    runs = [tmp_path / "a", tmp_path / "b"]
    assert len(bars.scored_runs(runs, tmp_path / "scored", tmp_path)) == 3
    assert calls == [
        (("reading.mirror=true",), "scores"),
        (("reading.mirror=false",), "scores"),
        (("reading.mirror=false",), "weights"),
    ]
    assert len(bars.scored_runs(runs[:1], tmp_path / "scored", tmp_path)) == 2


def test_the_stored_table_is_of_the_shipped_model(bars: ModuleType) -> None:
    stored = json.loads((EXPERIMENTS / "results" / "bars.json").read_text())
    card = json.loads((bars.SHIPPED_BUNDLE / "card.json").read_text())
    by_name = {bar["name"]: bar for bar in stored["default"]}
    assert by_name["any by slice, AUROC"]["value"] == card["scores"][0]["labels"]["any"]["auroc"]["value"]
    assert by_name["any by slice, AUROC"]["met"] is False
    assert by_name["any by patient, AUROC"]["value"] == card["scores"][1]["labels"]["any"]["auroc"]["value"]
