"""A worker that a fault hits while it starts leaves one line in the log of its server, never a traceback."""

import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.store import supervisor
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.worker import threads_of

MARKER = "WINTERBOTTOM"
TIMEOUT_S = 120.0
sqlite_alone = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
WORKER = [sys.executable, "-P", "-m", "hemoscope.store.worker_process", "text"]


@pytest.fixture
def one_worker(
    store: Store,
    url: str,
    tmp_path: Path,
    tiny_bundle: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Callable[[], str]:
    """``one_worker()``: what a server's log has when its first worker has exited, but for the server's own lines."""

    def run() -> str:
        settings = Settings(database=url, storage=tmp_path / "storage", model=tiny_bundle, workers=1, threads=1)
        with caplog.at_level(logging.WARNING, "hemoscope.store"), Supervisor(store, settings):
            end = time.monotonic() + TIMEOUT_S
            while "exited with status 1" not in caplog.text:
                assert time.monotonic() < end, "waited too long"
                time.sleep(0.05)
        printed = capfd.readouterr()
        assert printed.out == ""
        return printed.err

    return run


@sqlite_alone
@pytest.mark.parametrize("module", ["numpy", "sqlalchemy"])
@pytest.mark.parametrize("error", ["MemoryError", "OSError"])
def test_what_keeps_a_worker_from_loading_is_one_line(
    one_worker: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, error: str
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise {error}({MARKER!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    log = one_worker()
    lines = log.splitlines()
    assert "Traceback" not in log
    assert MARKER not in log
    assert lines
    assert all(f"the process ends: {error} at " in line and f"{module}.py:1 <module>" in line for line in lines)


@sqlite_alone
def test_what_a_python_prints_that_cannot_start_is_dropped_and_the_server_says_how_it_ended(
    one_worker: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\necho 'Traceback (most recent call last): {MARKER}' >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setattr(supervisor.sys, "executable", str(broken))
    assert one_worker() == ""


def log_under(what: int, most: int) -> str:
    """What a worker leaves in the log under a limit, started as its supervisor does."""
    shell = f'ulimit -S -{"n" if what == resource.RLIMIT_NOFILE else "d"} {most} && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *WORKER],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="what a limit leaves depends on the system")
@pytest.mark.parametrize(
    ("what", "most"),
    [(resource.RLIMIT_NOFILE, 4), (resource.RLIMIT_NOFILE, 5)]
    + [(resource.RLIMIT_DATA, mib * 1024) for mib in (4, 8, 12, 16, 48)],
)
def test_no_limit_that_a_worker_starts_under_leaves_a_traceback(what: int, most: int) -> None:
    log = log_under(what, most)
    assert "Traceback" not in log
    assert all("hemoscope" in line and "Error at " in line for line in log.splitlines()), log


def test_workers_share_the_processors_unless_their_threads_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemoscope.inference.engine.available_processors", lambda: 12)
    assert [threads_of(Settings(workers=workers)) for workers in (1, 4, 32)] == [8, 3, 1]
    assert threads_of(Settings(workers=4, threads=6)) == 6
