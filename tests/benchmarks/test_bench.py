"""``make bench`` gives every row that it could measure, and says what it could not."""

import importlib
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench")


def test_every_module_of_bench_has_rows(bench: ModuleType) -> None:
    for name in bench.MODULES:
        assert inspect.isgeneratorfunction(importlib.import_module(name).rows), name


def test_a_row_shows_both_values_their_ratio_and_whether_the_bar_is_met(bench: ModuleType) -> None:
    row = bench.Row(what="a | b", limit="none", measured=1, beside="c", compared=4, unit="s", bar=0.2, better="at most")
    assert bench.table([row]).splitlines()[2] == r"| a \| b | none | 1 s | c: 4 s | 0.25 | at most 0.2 | no |"


def test_a_module_that_fails_loses_neither_its_own_rows_nor_those_of_others(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = "Row(what={!r}, limit='', measured=1, beside='c', compared=2, unit='s', bar=1, better='at most')"
    modules = {
        "first": f"yield {row.format('before')}; raise ValueError('no disk')",
        "killed": "import os; os.kill(os.getpid(), 9); yield",
        "last": f"print('noise'); yield {row.format('after')}",
    }
    for name, body in modules.items():
        (tmp_path / f"{name}.py").write_text(f"from rows import Row\ndef rows():\n    {body}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bench", *modules, "--no-ceilings", "--output", str(tmp_path / "run")])
    assert bench.main() == 1
    text = capsys.readouterr().out
    assert "| before |" in text
    assert "| after |" in text
    assert "- `first`: ValueError: no disk" in text
    assert "- `killed`: ended with -9" in text
    assert "noise" not in text
    assert (tmp_path / "run.md").read_text() == text
    found = json.loads((tmp_path / "run.json").read_text())
    assert [one["module"] for one in found["modules"]] == ["first", "killed", "last"]


def test_a_busy_machine_is_warned_of(bench: ModuleType) -> None:
    described = bench.machine.describe()
    assert not bench.machine.warnings({**described, "load before the start": "0.10"})
    assert "Not idle" in bench.machine.warnings({**described, "load before the start": "2.00"})[0]
