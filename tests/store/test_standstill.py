"""A worker whose threads wait for one that died is ended, and its study is read by the next one."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.values import StudyState, StudySummary

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
