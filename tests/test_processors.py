"""The processors available are those of the affinity and of the control group, not those of the machine."""

import os
from pathlib import Path

import pytest

from hemoscope import processors
from hemoscope.processors import available_processors


@pytest.fixture
def own_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this process's control group, of 32 processors."""
    group = tmp_path / "cgroup" / "system.slice" / "hemoscope.service"
    group.mkdir(parents=True)
    (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/system.slice/hemoscope.service\n")
    monkeypatch.setattr(processors, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processors, "_OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(32)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    return group


@pytest.mark.usefixtures("own_group")
def test_without_a_quota_the_affinity_counts_and_more_than_eight_are_more_than_eight() -> None:
    assert available_processors() == 32


@pytest.mark.parametrize(
    ("quota", "count"),
    [("max 100000", 32), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("6400000 100000", 32)],
)
def test_a_quota_of_the_group_counts_in_whole_processors(own_group: Path, quota: str, count: int) -> None:
    (own_group / "cpu.max").write_text(quota + "\n")
    assert available_processors() == count


def test_the_least_quota_of_the_groups_above_counts_too(own_group: Path) -> None:
    (own_group / "cpu.max").write_text("800000 100000\n")
    (own_group.parent / "cpu.max").write_text("400000 100000\n")
    assert available_processors() == 4
    (own_group.parents[1] / "cpu.max").write_text("300000 100000\n")  # a container sees its own group as the highest
    assert available_processors() == 3


@pytest.mark.parametrize("content", ["", "nonsense", "100000 0"])
def test_a_file_that_nobody_understands_limits_nothing(own_group: Path, content: str) -> None:
    (own_group / "cpu.max").write_text(content)
    assert available_processors() == 32


def test_a_system_without_affinity_and_groups_has_its_processors(
    own_group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(processors, "_OWN_GROUP", own_group / "missing")
    assert available_processors() == 64
