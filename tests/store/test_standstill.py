"""A worker whose threads wait for one that died is ended, and its study is read by the next one."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from hemoscope.store.jobs import UploadJob
from hemoscope.store.settings import Settings
from hemoscope.store.standstill import Standstill
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.values import StudyState, StudySummary
from hemoscope.store.worker import Heartbeat

WATCHED = """
import os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from hemoscope.store.standstill import Standstill
def watch():
    standstill, end = Standstill(after_s=1.0), time.monotonic() + float(sys.argv[1])
    while not standstill.lasts():
        if time.monotonic() > end:
            os._exit(3)
        time.sleep(0.05)
    os._exit(4)
threading.Thread(target=watch, daemon=True).start()
"""
# As CPython when a new thread has no memory for its first frame.
DEAD = "threading._start_new_thread = lambda *_: 1\n"
LOST, WORKS = 4, 3


def ended(code: str, limit_s: float) -> int:
    words = [sys.executable, "-P", "-c", WATCHED + code, str(limit_s)]
    return subprocess.run(words, timeout=120, check=False).returncode


@pytest.mark.parametrize(
    "code",
    [
        f"{DEAD}threading.Thread(target=int).start()",
        f"{DEAD}ThreadPoolExecutor(2).submit(int)",
        f"pool = ThreadPoolExecutor(1)\npool.submit(int).result()\n{DEAD}ThreadPoolExecutor(1).submit(int)",
        "class Dies(BaseException):\n    pass\nfrom concurrent.futures import Future, thread\n"
        "Future.set_running_or_notify_cancel = lambda self: 1 // 0\nThreadPoolExecutor(1).submit(int).result()",
    ],
    ids=["thread", "pool", "beside an idle pool", "died later"],
)
def test_threads_that_wait_for_one_that_died_are_seen(code: str) -> None:
    assert ended(code, 100.0) == LOST


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "time.sleep(100)",
        "ThreadPoolExecutor(1).submit(time.sleep, 100).result()",
        "def work():\n    while True: time.sleep(0.5)\nThreadPoolExecutor(1).submit(work).result()",
        "import subprocess; ThreadPoolExecutor(1).submit(subprocess.run, ['sleep', '100']).result()",
        "while True: threading.Event().wait(0.2); sum(range(1_000_000))",
    ],
    ids=["computes", "sleeps", "pool", "thread", "child", "waits at times"],
)
def test_a_process_that_works_or_waits_for_the_system_is_left_alone(code: str) -> None:
    assert ended(code, 5.0) == WORKS


def test_a_join_waits_as_python_from_3_13_on_names_it() -> None:
    """There ``Thread.join`` waits in C, so that its own frame is the innermost."""
    code = (
        "exec(compile('def join(): threading._shutdown_locks_wait()', threading.__file__, 'exec'))\n"
        "lock = threading.Lock(); lock.acquire(); threading._shutdown_locks_wait = lock.acquire\njoin()"
    )
    assert ended(code, 100.0) == LOST


class Beaten:
    """A store that counts heartbeats, and stops the worker at the third."""

    lease_time = timedelta(seconds=0.06)

    def __init__(self) -> None:
        self.jobs, self.stop, self.beats = self, threading.Event(), 0

    def heartbeat(self, _worker: str, _job: object) -> None:
        self.beats += 1
        if self.beats == 3:
            self.stop.set()

    def give_back(self, _job: object) -> None:
        pass


class Check(Standstill):
    """A check that fails, or that finds a standstill."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails, self.asked = fails, 0

    def lasts(self) -> bool:
        self.asked += 1
        if self.asked == 20:
            raise SystemExit("no heartbeat came")
        if self.fails:
            raise RuntimeError
        return True


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> Callable[[Check], tuple[int, object]]:
    """``beat(check)``: how many heartbeats there were, and the exit status of a worker that reads with this check."""

    def run(check: Check) -> tuple[int, object]:
        def end(status: int) -> None:
            raise SystemExit(status)

        monkeypatch.setattr(os, "_exit", end)
        store = Beaten()
        heartbeat = Heartbeat(cast("Store", store), "w", store.stop)
        monkeypatch.setattr(heartbeat, "_standstill", check)
        heartbeat.hold(UploadJob(upload_id="u", worker_id="w", attempt=1))
        with pytest.raises(SystemExit) as ended:
            heartbeat._run()
        return store.beats, ended.value.code

    return run


def test_a_check_that_fails_costs_no_heartbeat(beat: Callable[[Check], tuple[int, object]]) -> None:
    assert beat(Check(fails=True)) == (3, 0)


def test_a_worker_that_stands_still_exits_even_if_it_cannot_log(
    beat: Callable[[Check], tuple[int, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(logging.getLogger("hemoscope.store"), "error", fail)
    assert beat(Check(fails=False)) == (1, 1)


BROKEN_ONCE = """
import os, threading
real = threading.Thread.start
def start(self):
    if self.name.startswith({pool!r}):
        try:
            os.close(os.open({flag!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return real(self)
        threading._start_new_thread = lambda *_: 1
    return real(self)
threading.Thread.start = start
"""


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pool", ["decode", "score-ahead", "prepare"])
def test_a_study_whose_worker_stands_still_is_read_by_the_next_worker(
    store: Store,
    url: str,
    tiny_bundle: Path,
    submit: Callable[..., StudySummary],
    series: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: str,
) -> None:
    flag = tmp_path / "broke"
    (tmp_path / "sitecustomize.py").write_text(BROKEN_ONCE.format(pool=pool, flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    entry, end = submit(store, series), time.monotonic() + 120
    settings = Settings(database=url, storage=tmp_path / "storage", model=tiny_bundle, threads=2, lease_s=6.0)
    with Supervisor(store, settings):
        while store.get(entry.study_id).state not in (StudyState.DONE, StudyState.FAILED):
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.1)
    assert flag.exists()
    assert store.get(entry.study_id).state is StudyState.DONE
