"""Rounds on disk: what was saved comes back to the bit, and a kill in between loses one round at most."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemoscope.errors import FederationError
from hemoscope.federated.server.checkpoints import (
    RoundReport,
    RoundState,
    append_round_log,
    last_report,
    latest_round,
    numbered,
    save_round,
)

RNG = np.random.default_rng(3)


def arrays(*names: str) -> dict[str, np.ndarray]:
    return {name: RNG.normal(size=(3, 2)).astype(np.float32) for name in names}


def state(number: int = 1) -> RoundState:
    return RoundState(
        number=number,
        trained=arrays("head.weight", "backbone.conv.weight"),
        statistics=arrays("backbone.bn1.running_mean"),
        fixed=arrays("backbone.stem.weight"),
        strategy={"m_t": arrays("head.weight"), "v_t": arrays("head.weight", "backbone.conv.weight")},
        accountant={"schema_version": 1, "orders": [1.5, 2.0]},
        sites={"18446744073709551615": 1, "7": 2},
    )


def assert_same(found: RoundState | None, expected: RoundState) -> None:
    assert found is not None
    assert (found.number, found.accountant, found.sites) == (expected.number, expected.accountant, expected.sites)
    pairs = [(getattr(found, kind), getattr(expected, kind)) for kind in ("trained", "statistics", "fixed")]
    assert found.strategy.keys() == expected.strategy.keys()
    pairs += [(found.strategy[kind], expected.strategy[kind]) for kind in expected.strategy]
    for here, there in pairs:
        assert here.keys() == there.keys()
        for name in here:
            np.testing.assert_array_equal(here[name], there[name])


def test_what_happened_in_the_last_whole_round_is_kept_with_it(tmp_path: Path) -> None:
    assert last_report(tmp_path) is None
    save_round(tmp_path, state(1), RoundReport(number=1, used=(1, 3)))
    found = last_report(tmp_path)
    assert found is not None
    assert found["used"] == [1, 3]
    save_round(tmp_path, state(2))
    assert last_report(tmp_path) is None


def test_a_round_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = state(3)
    assert save_round(tmp_path / "fold-0", saved) == tmp_path / "fold-0" / "rounds" / "0003"
    assert_same(latest_round(tmp_path / "fold-0"), saved)


def test_a_round_with_weights_alone_comes_back(tmp_path: Path) -> None:
    saved = RoundState(trained=arrays("w"))
    save_round(tmp_path, saved)
    assert_same(latest_round(tmp_path), saved)


def test_arrays_laid_out_by_columns_come_back_as_they_were(tmp_path: Path) -> None:
    saved = RoundState(
        trained={"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "scalar": np.float32(2) * np.ones(())}
    )
    save_round(tmp_path, saved)
    assert_same(latest_round(tmp_path), saved)


def test_before_the_first_round_there_is_none(tmp_path: Path) -> None:
    assert latest_round(tmp_path) is None


def test_the_last_two_rounds_are_kept(tmp_path: Path) -> None:
    for number in range(9998, 10002):  # past four digits too
        save_round(tmp_path, replace(state(), number=number))
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["10000", "10001"]
    found = latest_round(tmp_path)
    assert found is not None
    assert found.number == 10001


def test_a_round_whose_writing_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    saved = state(1)
    save_round(tmp_path, saved)
    save_round(tmp_path, state(2)).rename(tmp_path / "rounds" / "0002.part")
    (tmp_path / "rounds" / "0002.part" / "state.json").unlink()
    assert_same(latest_round(tmp_path), saved)
    again = state(2)
    save_round(tmp_path, again)
    assert_same(latest_round(tmp_path), again)
    assert not list((tmp_path / "rounds").glob("*.part"))


def test_the_same_round_may_be_written_again(tmp_path: Path) -> None:
    save_round(tmp_path, state(2))
    again = state(2)
    save_round(tmp_path, again)
    assert_same(latest_round(tmp_path), again)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b'{"schema": 99}'),
        ("state.json", b"[]"),
        ("trained.safetensors", b"rubbish"),
        ("strategy.safetensors", None),
    ],
)
def test_a_damaged_round_is_refused_with_the_remedy(tmp_path: Path, file: str, content: bytes | None) -> None:
    path = save_round(tmp_path / "final", state(4)) / file
    (path.parent / "SHA256SUMS").unlink()  # as a round of an earlier version
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(
        FederationError,
        match=r"final/rounds/0004 cannot be read \(\w+\). Delete rounds/0004.*with privacy, begin a new run",
    ) as caught:
        latest_round(tmp_path / "final")
    assert str(tmp_path) not in str(caught.value)


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("file", ["state.json", "report.json", "trained.safetensors", "strategy.safetensors"])
def test_any_bit_of_a_round_that_flips_is_named(
    tmp_path_factory: pytest.TempPathFactory, file: str, data: st.DataObject
) -> None:
    part = tmp_path_factory.mktemp("run") / "final"
    path = save_round(part, state(4), RoundReport(number=4)) / file
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1), label="bit")
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    named = rf"final/rounds/0004 cannot be read \({file}: its SHA-256 is not that in SHA256SUMS\)\. Delete rounds/0004"
    with pytest.raises(FederationError, match=named):
        last_report(part) if file == "report.json" else latest_round(part)


def test_the_log_has_one_line_a_round(tmp_path: Path) -> None:
    append_round_log(tmp_path / "final", {"number": 1, "void": True})
    append_round_log(tmp_path / "final", {"number": 1, "void": False})
    lines = (tmp_path / "final" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"number": 1, "void": True}, {"number": 1, "void": False}]


def test_a_report_is_one_line_of_the_log(tmp_path: Path) -> None:
    report = RoundReport(number=3, asked=(1, 2), used=(1,), refused={2: "no"}, losses={1: 0.5}, epsilon=2.0)
    append_round_log(tmp_path, report.to_json())
    found = json.loads((tmp_path / "rounds.jsonl").read_text())
    assert (found["number"], found["asked"], found["refused"], found["void"]) == (3, [1, 2], {"2": "no"}, False)
    assert (found["losses"], found["epsilon"]) == ({"1": 0.5}, 2.0)


def test_sites_keep_their_numbers_when_others_join() -> None:
    first = numbered({}, [30, 2**63 + 1, 4])
    assert first == {"4": 1, "30": 2, str(2**63 + 1): 3}
    assert numbered(first, [5, 30]) == {**first, "5": 4}
    assert numbered({"9": 2}, [9, 8]) == {"9": 2, "8": 3}


def test_reasons_to_suspect_a_site_add_up() -> None:
    report = RoundReport(number=1, suspicious={3: ("long",), 1: ("odd",)}).with_suspicion({3: ("flipped",), 2: ("x",)})
    assert report.suspicious == {1: ("odd",), 2: ("x",), 3: ("long", "flipped")}
