"""A database that cannot serve for a while, for real: nothing ends, nothing is lost, and all is well soon after."""

import secrets
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from hemoscope.errors import StoreError
from hemoscope.inference.predictor import Predictor
from hemoscope.store import background, database, tables, worker
from hemoscope.store.background import BackgroundLoop
from hemoscope.store.found_studies import FoundStudy
from hemoscope.store.jobs import UploadJob
from hemoscope.store.reading import UploadReader
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store, open_store_patiently
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.values import StudyState, StudySummary

from .conftest import PORT, Cluster

Submit = Callable[..., StudySummary]
pytestmark = pytest.mark.reference_tool
WAIT_S = 180.0  # on an idle machine it is ready again within 30 s; tests share the processors
FAULT_S = 2.0


@pytest.fixture
def settings(cluster: Cluster, tmp_path: Path, tiny_bundle: Path) -> Settings:
    engine = sa.create_engine(database.database_url(cluster.url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return Settings(database=cluster.url, storage=tmp_path / "s", model=tiny_bundle, threads=1, lease_s=3.0)


@pytest.fixture
def site(settings: Settings) -> Iterator[Store]:
    store = open_store(settings)
    yield store
    store.close()


def fault_of(cluster: Cluster, name: str) -> AbstractContextManager[None]:
    return cluster.recovering() if name == "57P03" else cluster.exhausted()


def until(condition: Callable[[], Any], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not reached(condition):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def reached(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except StoreError:
        return False


@pytest.mark.parametrize("sqlstate", ["57P03", "53300"])
def test_a_database_that_cannot_serve_is_unreachable_by_its_sqlstate(
    cluster: Cluster, settings: Settings, site: Store, sqlstate: str
) -> None:
    site.close()  # no connection is kept
    with fault_of(cluster, sqlstate):
        with pytest.raises(StoreError, match=rf"does not answer .SQLSTATE {sqlstate}.") as unreachable:
            reported(site, sqlstate)
        assert unreachable.value.code == "database_unreachable"
    until(site.counts, WAIT_S)


def reported(store: Store, sqlstate: str) -> None:
    """Ask until the database has reached the state: it refuses in other words while it starts."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            store.counts()
            store.close()
        except StoreError as error:
            if sqlstate in str(error):
                raise
        time.sleep(0.02)


@pytest.mark.parametrize("sqlstate", ["57P03", "53300"])
def test_supervisor_and_workers_outlive_the_fault_and_read_all_that_was_accepted(
    cluster: Cluster, settings: Settings, site: Store, submit: Submit, series: list[bytes], sqlstate: str
) -> None:
    with Supervisor(site, settings) as supervisor:
        pid = the_worker(site)
        before = [submit(site, series) for _ in range(3)]
        site.close()
        with fault_of(cluster, sqlstate):
            time.sleep(FAULT_S)
            assert [one.fault for one in supervisor.vitals] == [None, None]
        the_worker(site)
        accepted = [*before, submit(site, series)]
        until(lambda: all(one.state is StudyState.DONE for one in site.studies()[0]), WAIT_S)
        assert {one.study_id for one in site.studies()[0]} == {one.study_id for one in accepted}
        assert the_worker(site) == pid, "the worker survived"


def the_worker(site: Store) -> int:
    """The process of the worker, once it shows signs of life: on a busy machine they come late."""
    alive = list[int]()

    def found() -> bool:
        alive[:] = [one.pid for one in site.counts().workers]
        return bool(alive)

    until(found, WAIT_S)
    (pid,) = alive
    return pid


def test_a_connection_that_the_server_ended_is_replaced_unnoticed(cluster: Cluster, site: Store) -> None:
    site.counts()
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    engine = sa.create_engine(database.database_url(cluster.url))
    with engine.connect() as connection:
        connection.execute(sa.text(f"{others} AND pid <> pg_backend_pid()"))
    engine.dispose()
    site.counts()


@pytest.mark.parametrize("kept", [1, 5])
def test_connections_that_were_reset_are_replaced_unnoticed(cluster: Cluster, tmp_path: Path, kept: int) -> None:
    """A server or a firewall that resets a connection answers the next statement, which was sent, with a reset."""
    home = Path(tempfile.mkdtemp(prefix="hemoscope-relay-"))  # a socket's path must be short
    with resetting_relay(cluster.home / f".s.PGSQL.{PORT}", home / f".s.PGSQL.{PORT}") as reset:
        base = database.Database(f"postgresql://hemoscope@/postgres?host={home}&port={PORT}")
        with ExitStack() as stack:
            for _ in range(kept):
                stack.enter_context(base.reading())
        reset.set()
        for _ in range(kept):
            with base.reading() as connection:
                assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1
        base.close()
    shutil.rmtree(home)


@contextmanager
def resetting_relay(server: Path, address: Path) -> Iterator[threading.Event]:
    """Relay connections to ``server``; those open when the event is set are reset when their next byte comes."""
    reset, listener = threading.Event(), socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()

    def relay(client: socket.socket) -> None:
        doomed = not reset.is_set()
        with client, socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(str(server))
            while True:
                for ready in select.select([client, upstream], [], [])[0]:
                    if doomed and reset.is_set() and ready is client:
                        return  # closed with bytes unread: the kernel resets the connection
                    block = ready.recv(65536)
                    if not block:
                        return
                    (upstream if ready is client else client).sendall(block)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=relay, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield reset
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_an_error_of_this_program_is_not_called_a_fault_of_the_database(store: Store) -> None:
    row = {"worker_id": "1" * 32, "host": "", "pid": 1, "started_at": database.now(), "beat_at": database.now()}
    with pytest.raises(IntegrityError), store._database.writing() as connection:
        connection.execute(tables.workers.insert().values([row, row]))


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [("53100", "database_full"), ("25006", "database_unreachable"), ("28P01", "database_unreachable"), ("42P01", None)],
)
def test_sqlstates_decide_whatever_the_class(store: Store, sqlstate: str, code: str | None) -> None:
    def fail() -> None:
        with store._database.reading():
            raise DBAPIError("", {}, Exception({"C": sqlstate, "M": "secret"}))

    with pytest.raises(StoreError if code else DBAPIError) as error:
        fail()
    assert getattr(error.value, "code", None) == (code or "dbapi")
    assert code is None or "secret" not in str(error.value)


def test_a_socket_that_breaks_is_a_fault_of_the_database(store: Store) -> None:
    with pytest.raises(StoreError, match=r"lost .BrokenPipeError") as error, store._database.reading():
        raise BrokenPipeError
    assert error.value.code == "database_unreachable"


def test_a_start_waits_for_its_database_and_says_so(
    cluster: Cluster, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[Store] = []
    with cluster.recovering():
        with pytest.raises(StoreError, match="does not answer"):
            open_store_patiently(settings, limit_s=0)
        thread = threading.Thread(target=lambda: opened.append(open_store_patiently(settings, limit_s=2 * WAIT_S)))
        thread.start()
        until(lambda: "waiting: the database does not answer" in caplog.text, WAIT_S)
    thread.join(WAIT_S)
    (store,) = opened
    assert store.counts().queue_depth == 0
    store.close()


def test_a_wait_for_the_database_ends_when_it_is_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    settings = Settings(database="postgresql://me@127.0.0.1:1/db", storage=tmp_path / "s")
    with pytest.raises(SystemExit):
        open_store_patiently(settings, limit_s=60, stop=stop)


def test_a_fault_of_the_database_while_a_study_is_read_costs_no_attempt(
    store: Store, submit: Submit, series: list[bytes], predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = submit(store, series)
    reader, worker_id = UploadReader(store, predictor, keep_identity=False, deidentify=False), secrets.token_hex(16)
    away = iter([True] * 3)

    @contextmanager
    def now_and_then(self: database.Database) -> Iterator[Any]:
        if next(away, False):
            raise StoreError(code="database_unreachable", reason="away", remedy="wait")
        with writing(self) as connection:
            yield connection

    def fail(*_arguments: Any, **_options: Any) -> None:
        monkeypatch.setattr(database.Database, "writing", now_and_then)
        store.results.begin(*_arguments)

    writing = database.Database.writing
    for _ in range(store.jobs.attempts + 1):
        away = iter([True] * 3)
        with monkeypatch.context() as patch:
            patch.setattr(reader, "read", lambda job: fail(job, [FoundStudy(instances=1)]))
            with pytest.raises(StoreError, match="away"):  # so that the worker waits
                worker.work_once(store, reader, worker_id)
        monkeypatch.undo()
    assert store.get(entry.study_id).state is StudyState.QUEUED
    assert worker.work_once(store, reader, worker_id)
    assert store.get(entry.study_id).state is StudyState.DONE


def test_a_loop_outlives_any_error_and_is_logged_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    errors = [MemoryError(), ValueError("secret"), sa.exc.ProgrammingError("secret", {}, Exception("secret"))]
    done = threading.Event()

    def step() -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    loop = BackgroundLoop("a-loop", step, every_s=0.01, stuck_after_s=60)
    assert loop.vitals.fault == "not started"
    loop.start()
    assert done.wait(WAIT_S)
    assert loop.vitals.fault is None
    loop.stop()
    loop.join()
    assert loop.vitals.fault == "ended"
    assert caplog.text.count("a-loop: tried again after") == 3
    assert "secret" not in caplog.text


def test_a_loop_whose_step_does_not_return_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        release.wait(WAIT_S)

    loop = BackgroundLoop("a-loop", step, every_s=0.0, stuck_after_s=60)
    loop.start()
    assert begun.wait(WAIT_S)
    assert loop.vitals.fault is None
    monkeypatch.setattr(background, "monotonic", lambda: time.monotonic() + 66)
    until(lambda: loop.vitals.fault == "stuck", WAIT_S)
    release.set()
    loop.stop()
    loop.join()


def test_a_job_is_not_over_the_time_limit_because_the_clock_was_set(
    settings: Settings, site: Store, submit: Submit, set_clock: Callable[[float], None]
) -> None:
    entry = submit(site, [b"x"])
    supervisor = Supervisor(site, settings)
    slot = supervisor._slots[0]
    slot.worker_id, slot.process = "1" * 32, object()  # type: ignore[assignment]  # never asked
    site.jobs.lease(slot.worker_id)
    supervisor._end_overdue()
    set_clock(1)
    supervisor._end_overdue()
    assert site.get(entry.study_id).error_code is None


def test_a_database_that_was_away_for_longer_than_the_time_limit_fails_no_study(
    settings: Settings, site: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, time_limit_minutes=1.0)
    entry = submit(site, [b"x"])
    supervisor, moment, killed = Supervisor(site, settings), time.monotonic(), list[int]()
    monkeypatch.setattr("hemoscope.store.supervisor.monotonic", lambda: moment)
    slot = supervisor._slots[0]
    slot.worker_id, slot.process = "1" * 32, Worker(killed)  # type: ignore[assignment]
    site.jobs.lease(slot.worker_id)
    supervisor._end_overdue()
    with monkeypatch.context() as away:
        away.setattr(site.jobs, "held_by", unreachable)
        for _ in range(20):
            moment += 6
            with pytest.raises(StoreError, match="away"):
                supervisor._end_overdue()
    supervisor._end_overdue()
    assert (site.get(entry.study_id).error_code, killed) == (None, [])
    for _ in range(11):  # from now on the limit counts
        moment += 6
        supervisor._end_overdue()
    assert (site.get(entry.study_id).error_code, killed) == ("time_limit", [1])


class Worker:
    """A worker's process that notes that it was killed."""

    pid = 1

    def __init__(self, killed: list[int]) -> None:
        self._killed = killed

    def kill(self) -> None:
        self._killed.append(self.pid)

    def wait(self) -> None:
        """It has ended."""


def unreachable(_workers: object) -> frozenset[UploadJob]:
    raise StoreError(code="database_unreachable", reason="away", remedy="wait")
