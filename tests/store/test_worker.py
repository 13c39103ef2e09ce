"""Worker processes under kill -9: every accepted study ends in a result, and exactly once."""

import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from hemoscope.labels import Hemorrhage
from hemoscope.store import tables
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.values import StudyState, StudySummary, WorklistQuery
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]
TIMEOUT_S = 120.0
# Tests that do not depend on the database run with one, since every worker takes seconds to start.
sqlite_alone = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture(scope="session")
def long_series(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Enough slices that a worker can be killed while it reads them."""
    phantom = make_phantom(seed=3, shape=(40, 128, 128), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    return [path.read_bytes() for path in write_series(phantom, tmp_path_factory.mktemp("long"), seed=3)]


@pytest.fixture
def settings(url: str, tmp_path: Path, tiny_bundle: Path) -> Callable[..., Settings]:
    def build(**changes: Any) -> Settings:
        known = {"database": url, "storage": tmp_path / "storage", "model": tiny_bundle, "threads": 1, "lease_s": 10.0}
        return Settings(**{**known, **changes})

    return build


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"waited {TIMEOUT_S:g} s for {what}")


def studies(store: Store) -> tuple[StudySummary, ...]:
    return store.studies(WorklistQuery(limit=1000))[0]


def ended(store: Store) -> bool:
    return all(one.state in (StudyState.DONE, StudyState.FAILED) for one in studies(store))


def busy_worker(store: Store) -> int | None:
    return next((worker.pid for worker in store.counts().workers if worker.upload_id and alive(worker.pid)), None)


def worker_with_a_job(store: Store, more: Callable[[], object]) -> int:
    """The process of a busy worker; ``more`` submits another upload if all were read before this process looked."""

    def look() -> int | None:
        if ended(store):
            more()
        return busy_worker(store)

    return int(until(look, "a worker with a job"))


def writable(database: str | None) -> bool:
    """Whether no process holds the write lock of an SQLite database."""
    assert database is not None
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"), timeout=0.0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


def frozen_worker(store: Store, database: str | None, more: Callable[[], object]) -> int:
    """The process of a worker that was stopped while it held a job, and no lock: its job never ends by itself."""

    def freeze() -> int | None:
        pid = worker_with_a_job(store, more)
        if not alive(pid):
            return None
        os.kill(pid, signal.SIGSTOP)
        if busy_worker(store) == pid and writable(database):
            return pid
        os.kill(pid, signal.SIGCONT)
        return None

    return int(until(freeze, "a worker that was stopped with a job"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def check_every_study_has_one_result(store: Store, query: Query, expected: set[str]) -> None:
    assert {(one.study_id, one.state) for one in studies(store)} == {(study, StudyState.DONE) for study in expected}
    assert sorted(row.study_id for row in query(store, tables.results.select())) == sorted(expected)
    for one in studies(store):
        found = store.get(one.study_id)
        assert found.geometry is not None
        assert len(found.geometry["probabilities"]) == 40
        assert len(store.pixels(one.study_id, 39)) == 128 * 128 * 2
        assert store.heatmap(one.study_id, 39, "any")


def kill_at_random(
    store: Store, settings: Settings, submit: Submit, query: Query, series: list[bytes], kills: int
) -> None:
    """Kill busy workers at random moments while uploads keep coming."""
    moments = random.Random(20260101)
    expected: set[str] = set()

    def more() -> None:
        expected.add(submit(store, series).study_id)

    with Supervisor(store, settings):
        for _ in range(kills):
            more()
            more()
            pid = worker_with_a_job(store, more)
            time.sleep(moments.uniform(0.0, 0.5))
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        until(lambda: ended(store), "every study to end")
    check_every_study_has_one_result(store, query, expected)


def test_workers_killed_at_random_moments_lose_no_study(
    opened: Callable[..., Store],
    settings: Callable[..., Settings],
    submit: Submit,
    query: Query,
    long_series: list[bytes],
) -> None:
    store = opened(lease_s=3.0, attempts=100)
    kill_at_random(store, settings(attempts=100, workers=2), submit, query, long_series, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_workers_killed_at_random_moments_lose_no_study(
    opened: Callable[..., Store],
    settings: Callable[..., Settings],
    submit: Submit,
    query: Query,
    long_series: list[bytes],
) -> None:
    store = opened(lease_s=3.0, attempts=100)
    kill_at_random(store, settings(attempts=100, workers=2), submit, query, long_series, kills=20)


def killed_while_it_reads(store: Store, upload_id: str) -> bool:
    """Kill the worker that reads an upload, if there is one now; it is stopped before it is asked what it reads."""
    for pid in [one.pid for one in store.counts().workers if alive(one.pid)]:
        os.kill(pid, signal.SIGSTOP)
        reads = any((one.pid, one.upload_id) == (pid, upload_id) for one in store.counts().workers)
        os.kill(pid, signal.SIGKILL if reads else signal.SIGCONT)
        if reads:
            until(lambda pid=pid: not alive(pid), "the killed worker to end")
            return True
    time.sleep(0.02)
    return False


@sqlite_alone
def test_an_upload_that_kills_three_workers_fails_with_a_code_and_others_are_read(
    store: Store, settings: Callable[..., Settings], submit: Submit, long_series: list[bytes]
) -> None:
    deadly, harmless = submit(store, long_series * 8), submit(store, long_series)
    with Supervisor(store, settings()):
        kills = 0
        while kills < 3:
            if store.get(deadly.study_id).state is StudyState.DONE:  # read before this process looked
                deadly, kills = submit(store, long_series * 8), 0
            kills += killed_while_it_reads(store, deadly.upload_id)
        until(lambda: ended(store), "the studies to end")
    failed = store.get(deadly.study_id)
    assert (failed.state, failed.error_code) == (StudyState.FAILED, "worker_killed")
    assert store.get(harmless.study_id).state is StudyState.DONE


@sqlite_alone
def test_a_bad_file_kills_no_worker(
    store: Store, settings: Callable[..., Settings], submit: Submit, long_series: list[bytes]
) -> None:
    with Supervisor(store, settings()):
        bad, good = submit(store, [b"\x00" * 500]), submit(store, long_series)
        until(lambda: ended(store), "both studies to end")
        (worker,) = store.counts().workers
        assert alive(worker.pid)
    assert store.get(bad.study_id).error_code == "not_dicom"
    assert store.get(good.study_id).state is StudyState.DONE
    assert not alive(worker.pid)
    assert store.counts().workers == ()


@sqlite_alone
def test_a_job_over_the_time_limit_fails_with_a_code_and_its_worker_is_replaced(
    store: Store, settings: Callable[..., Settings], submit: Submit, query: Query, long_series: list[bytes]
) -> None:
    limited = settings(time_limit_minutes=1e-5, lease_s=60.0)
    with Supervisor(store, limited):
        frozen_worker(store, limited.database, lambda: submit(store, long_series))
        until(lambda: ended(store), "the studies to end")
    assert sorted({(one.state, one.error_code) for one in studies(store)} - {(StudyState.DONE, None)}) == [
        (StudyState.FAILED, "time_limit")
    ]


SERVER = """
import sys, time
from pathlib import Path
from hemoscope.store.store import open_store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.settings import Settings
_, settings = Settings.from_line(sys.stdin.buffer.readline())
with Supervisor(open_store(settings), settings):
    time.sleep(600)
"""


@contextmanager
def server(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that supervises workers, as ``hemoscope serve`` does."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(settings.to_line("0" * 32))
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def test_workers_exit_with_a_killed_server_and_the_next_server_continues(
    store: Store, settings: Callable[..., Settings], submit: Submit, query: Query, long_series: list[bytes]
) -> None:
    entry = submit(store, long_series)
    submit(store, long_series)
    with server(settings()) as process:
        pid = worker_with_a_job(store, lambda: submit(store, long_series))
        process.kill()
        until(lambda: not alive(pid), "the orphan to end")
    with Supervisor(store, settings()):
        until(lambda: ended(store), "the studies to end")
    assert store.get(entry.study_id).state is StudyState.DONE
    assert len(query(store, tables.results.select())) == len(studies(store)) >= 2


@sqlite_alone
def test_a_study_too_large_for_the_memory_fails_with_a_code_and_the_worker_survives(
    store: Store, settings: Callable[..., Settings], submit: Submit, long_series: list[bytes]
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for number, content in enumerate(long_series[:12]):
            file.writestr(str(number), enlarged(content, 4096))  # 400 MB as a volume, next to nothing in the ZIP
    with Supervisor(store, settings(worker_memory_mib=300)):
        large, small = submit(store, [archive.getvalue()]), submit(store, long_series)
        until(lambda: ended(store), "both studies to end")
        (worker,) = store.counts().workers
        assert alive(worker.pid)
    assert store.get(large.study_id).error_code == "out_of_memory"
    assert store.get(small.study_id).state is StudyState.DONE


def enlarged(content: bytes, side: int) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.Rows = dataset.Columns = side
    dataset.PixelData = bytes(side * side * 2)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux's own")
def test_the_worker_is_killed_before_the_server_if_memory_runs_out() -> None:
    show = "print(open('/proc/self/oom_score_adj').read())"
    code = f"from hemoscope.store.worker import raise_oom_score; raise_oom_score(); {show}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) == 800 > int(Path("/proc/self/oom_score_adj").read_text())


@sqlite_alone
def test_a_worker_without_a_model_reports_it_and_exits(
    store: Store, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    command = [sys.executable, "-P", "-m", "hemoscope.store.worker_process", "text"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(settings(model=tmp_path / "nothing").to_line("1" * 32))
        worker.stdin.flush()
        assert worker.wait(TIMEOUT_S) == 1
        assert b"worker cannot start: model bundle: nothing: no such folder" in worker.stdout.read()


def test_settings_travel_to_the_worker_on_its_input() -> None:
    settings = Settings(
        database="sqlite:///x", storage=Path("/s"), model=Path("/m"), users=Path("/u"), allowed_host=("a", "b")
    )
    assert Settings.from_line(settings.to_line("a" * 32)) == ("a" * 32, settings)
    assert settings.to_line("a" * 32).count(b"\n") == 1


@sqlite_alone
def test_the_supervisor_deletes_studies_past_their_retention(
    store: Store, settings: Callable[..., Settings], submit: Submit, query: Query
) -> None:
    from datetime import UTC, datetime

    entry = submit(store, [b"x"])
    past = datetime.now(UTC) - timedelta(days=8)
    query(store, tables.studies.update().values(received_at=past))
    with Supervisor(store, settings(workers=0, retention_days=7)):
        until(lambda: not studies(store), "the old study to be deleted")
    assert not store.folder.upload(entry.upload_id).exists()
