"""What is fuzzed ends in a typed error at worst, and torture notices what does not."""

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from hemoscope.store.sweep import Sweep

from . import machines
from .fuzz_child import Fuzzer
from .mutation import mutate_bytes
from .store_machine import StoreMachine
from .tally import RECORDED, Count, Tally, table
from .target import Target, input_of
from .targets import TARGETS

MUTANTS = 25


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_inputs_end_in_a_typed_error_at_worst(kind: str, tmp_path: Path) -> None:
    fuzzer = Fuzzer(kind, tmp_path / kind)
    for number in range(MUTANTS):
        fuzzer.run(number)
    assert not fuzzer.broken, "\n".join(path.read_text() for path in fuzzer.folder.glob("found/*.txt"))
    assert fuzzer.outcomes.total() == MUTANTS


@pytest.mark.parametrize("kind", TARGETS)
def test_an_input_is_the_same_each_time(kind: str) -> None:
    data = [b'{"a": [1, "x"], "b": {"c": 0.5}}', b"a,b\n1,2\n"][:1]
    assert all(input_of(TARGETS[kind], data, number) == input_of(TARGETS[kind], data, number) for number in range(20))


def test_an_input_that_breaks_the_contract_is_kept_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(data: bytes, _folder: Path) -> None:
        if data != b"seed":
            raise ZeroDivisionError

    monkeypatch.setitem(TARGETS, "fails", Target(seeds=lambda _: [b"seed"], run=fails, mutate=mutate_bytes))
    fuzzer = Fuzzer("fails", tmp_path / "fails")
    for number in range(20):
        fuzzer.run(number)
    assert fuzzer.broken.total() > 10
    (kept, *_) = sorted(fuzzer.folder.glob("found/*.bin"))
    assert kept.read_bytes() == input_of(TARGETS["fails"], [b"seed"], int(kept.stem))
    assert "ZeroDivisionError" in kept.with_suffix(".txt").read_text()


def run_machine(number: int, examples: int, steps: int) -> None:
    logging.getLogger("hemoscope").setLevel(logging.CRITICAL)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    run_state_machine_as_test(seed(number)(StoreMachine), settings=chosen)


def test_store_and_queue_lose_and_double_nothing_in_any_order_of_steps() -> None:
    run_machine(1, examples=4, steps=30)


def test_the_state_machine_notices_a_sweep_that_removes_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def remove_all(sweep: Sweep) -> None:
        for upload in sweep._storage.uploads():
            sweep._storage.remove(upload / "source")

    monkeypatch.setattr(Sweep, "_remove_sources", remove_all)
    with pytest.raises((AssertionError, FileNotFoundError)):
        run_machine(2, examples=20, steps=30)


def test_counts_add_up_over_runs_and_show_what_was_found(tmp_path: Path) -> None:
    Tally(tmp_path, tmp_path / "none").add("fuzz: x", Count(done=1000))
    tally = Tally(tmp_path)
    assert tally.clean
    tally.add("fuzz: x", Count(done=500, lost=1))
    assert not tally.clean
    assert "| fuzz: x | 1,500 | 0 | 1 | 0 |  |  |" in table(Tally(tmp_path).counts)
    assert Tally(tmp_path).clean, "a new run begins clean"


def test_the_documentation_shows_the_counts_that_are_recorded(tmp_path: Path) -> None:
    page = RECORDED.parents[2] / "docs" / "explanation" / "robustness.md"
    assert table(Tally(tmp_path).counts) in page.read_text(), f"put the counts of {RECORDED.name} into {page.name}"


def test_an_error_of_a_machine_is_counted_and_kept(tmp_path: Path) -> None:
    def fail(_number: int) -> int:
        raise AssertionError("lost")

    count = machines._repeat(Tally(tmp_path), "machine", 0.01, fail)
    assert count.found >= 1
    assert "AssertionError: lost" in next(tmp_path.rglob("seed-*.txt")).read_text()
