"""Tasks on processes: refused before they start where nobody could run them."""

import os
import signal
import sys
from pathlib import Path

import pytest

from hemoscope.data.processes import processes
from hemoscope.errors import ConfigError, DataError, MissingExtraError


def end(_task: int) -> None:
    os._exit(1)


def refuse(task: int) -> None:
    msg = f"task {task} is refused"
    raise DataError(msg)


def test_one_worker_is_this_process_and_needs_no_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with processes(workers=1) as run:
        assert list(run(os.path.basename, ["a/b", "c/d"])) == ["b", "d"]
    with pytest.raises(MissingExtraError, match=r"pip install 'hemoscope\[study\]'"), processes(workers=2):
        pass


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


def test_an_error_in_a_worker_is_the_same_error_here() -> None:
    with processes(workers=2) as run, pytest.raises(DataError, match="task 3 is refused"):
        list(run(refuse, [3]))


@pytest.mark.slow
def test_a_task_that_ends_its_worker_again_and_again_is_an_error() -> None:
    with processes(workers=2) as run, pytest.raises(DataError, match="a worker process ended repeatedly"):
        list(run(end, [1]))


def test_ctrl_c_reaches_this_process_alone_which_ends_the_others() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with processes(workers=2) as run:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        for status in run(Path.read_text, [Path("/proc/self/status")] * 2):
            blocked = int(status.split("SigBlk:")[1].split()[0], 16)
            assert blocked & 1 << (signal.SIGINT - 1)
