"""Tasks on processes: refused before they start where nobody could run them."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from hemoscope.data.cache import open_cache
from hemoscope.data.processes import processes
from hemoscope.errors import ConfigError, DataError, MissingExtraError

END_ONCE = "import os, pathlib; path = pathlib.Path(file); again = path.exists(); path.touch(); again or os._exit(1)"


def test_one_worker_is_this_process_and_only_a_cluster_needs_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for workers in (1, 2):
        with processes(workers=workers) as run:
            assert sorted(run(os.path.basename, ["a/b", "c/d"])) == ["b", "d"]
    with pytest.raises(MissingExtraError, match=r"pip install 'hemoscope\[study\]'"), processes(address="tcp://here:1"):
        pass


def test_a_worker_that_ends_once_costs_no_task(tmp_path: Path) -> None:
    tasks = [{"file": str(tmp_path / name)} for name in "ab"]
    Path(tasks[1]["file"]).touch()
    with processes(workers=2) as run:
        assert list(run(partial(exec, END_ONCE), tasks)) == [None, None]


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "address": "tcp://here:1"}])
def test_no_workers_or_two_kinds_of_them_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="at least one worker, or the address"), processes(**options):  # type: ignore[arg-type]
        pass


def test_an_address_without_a_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemoscope.data.processes._CONNECT_SECONDS", 0.5)
    with pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):  # noqa: SIM117
        with processes(address="tcp://127.0.0.1:9"):
            pass
    with pytest.raises(ConfigError, match="no Dask scheduler answers at nonsense"):  # noqa: SIM117
        with processes(address="nonsense://x"):
            pass


def test_an_error_in_a_worker_is_the_same_error_here(tmp_path: Path) -> None:
    with processes(workers=2) as run, pytest.raises(DataError, match=r"holds no manifest\.parquet"):
        list(run(open_cache, [tmp_path]))


def test_a_task_that_ends_its_worker_again_and_again_is_an_error() -> None:
    with processes(workers=2) as run, pytest.raises(DataError, match="worker processes ended repeatedly"):
        list(run(os._exit, [1]))


def test_ctrl_c_reaches_this_process_alone_which_ends_the_others() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with processes(workers=2) as run:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        for status in run(Path.read_text, [Path("/proc/self/status")] * 2):
            blocked = int(status.split("SigBlk:")[1].split()[0], 16)
            assert blocked & 1 << (signal.SIGINT - 1)


def test_by_default_there_is_a_process_for_each_processor_available_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr("hemoscope.data.processes.available_processors", lambda: 1)
    with processes() as run:
        assert list(run(abs, [-1])) == [1]
        assert run is map, "this process alone"
