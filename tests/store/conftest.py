"""One suite over two databases: SQLite in a file, and a private PostgreSQL cluster if Debian's package is installed."""

import io
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pg8000.dbapi
import pytest
import sqlalchemy as sa

from hemoscope.inference.predictor import Predictor
from hemoscope.labels import Hemorrhage
from hemoscope.store import audit, audit_and_sessions, database, jobs, removal, results, sweep, uploads, worklist
from hemoscope.store import store as store_module
from hemoscope.store.reading import UploadReader
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store
from hemoscope.store.values import StudySummary
from hemoscope.store.worker import work_once
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

PORT = "5432"


def postgresql_programs() -> Path:
    """The folder of initdb and pg_ctl; skips if PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return folders[-1]


def unprivileged(home: Path) -> dict[str, Any]:
    """What makes subprocess run a program as another user, who gets ``home``: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(home, "nobody")
    return {"user": "nobody", "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """``postgresql()``: the URL of a database, emptied by each call, in a cluster that listens on a socket alone."""
    programs = postgresql_programs()
    home = Path(tempfile.mkdtemp(prefix="hemoscope-pg-"))
    user = unprivileged(home)

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=home, timeout=120, **user)

    data = home / "data"
    run(programs / "initdb", "-D", data, "-U", "hemoscope", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    options = f"-k {home} -p {PORT} -c listen_addresses= -c fsync=off -c max_connections=200"
    run(programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", home / "log", "start")
    server = sa.create_engine(
        f"postgresql+pg8000://hemoscope@/postgres?unix_sock={home}/.s.PGSQL.{PORT}", isolation_level="AUTOCOMMIT"
    )

    def create() -> str:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        with server.connect() as connection:
            connection.execute(sa.text(f"{others} AND pid <> pg_backend_pid()"))
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        return f"postgresql://hemoscope@/postgres?host={home}&port={PORT}"

    try:
        yield create
    finally:
        server.dispose()
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home)


class Cluster:
    """A PostgreSQL of its own that can be put into recovery and run out of connections."""

    def __init__(self, home: Path) -> None:
        self.home, self._data = home, home / "data"
        self._programs, self._user = postgresql_programs(), unprivileged(home)
        self.url = f"postgresql://hemoscope@/postgres?host={home}&port={PORT}"
        initdb = ("initdb", "-D", self._data, "-U", "hemoscope", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._run(*initdb)

    def _run(self, program: str, *words: str | Path) -> None:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": self.home, "timeout": 120}
        subprocess.run((self._programs / program, *words), check=True, **quiet, **self._user)

    def start(self, *settings: str, wait: bool = True) -> None:
        options = ("listen_addresses=", "fsync=off", "max_connections=30", *settings)
        words = " ".join(("-k", str(self.home), "-p", PORT, *(f"-c {one}" for one in options)))
        waiting = "-w" if wait else "-W"
        self._run("pg_ctl", "-D", self._data, waiting, "-o", words, "-l", self.home / "log", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "fast", "stop")

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """Restart as a standby that accepts no connection (57P03); at the end restart as it was."""
        signal = self._data / "standby.signal"
        self.stop()
        signal.touch()
        self.start("hot_standby=off", wait=False)
        try:
            yield
        finally:
            signal.unlink()
            self.stop()
            self.start()

    @contextmanager
    def exhausted(self) -> Iterator[None]:
        """Take every connection from those who have it, and every one that becomes free (53300)."""
        taken = [self._connection()]
        ended = threading.Event()
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"

        def take() -> None:
            while not ended.is_set():
                try:
                    taken.append(self._connection())
                except pg8000.dbapi.Error:
                    taken[0].cursor().execute(f"{others} AND application_name <> 'taker'")
                    ended.wait(0.02)

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for one in taken:
                one.close()

    def _connection(self) -> Any:
        socket = f"{self.home}/.s.PGSQL.{PORT}"
        connection = pg8000.dbapi.connect("hemoscope", unix_sock=socket, database="postgres", application_name="taker")
        connection.autocommit = True
        return connection


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster that tests may break; it runs again at the end of each."""
    home = Path(tempfile.mkdtemp(prefix="hemoscope-pg-"))
    broken = Cluster(home)
    broken.start()
    try:
        yield broken
    finally:
        broken.stop()
        shutil.rmtree(home)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.reference_tool)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite"
    return str(request.getfixturevalue("postgresql")())


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """``opened(...)``: a store with these settings; each call is what one more process would hold."""
    stores: list[Store] = []

    def build(**options: Any) -> Store:
        stores.append(open_store(Settings(database=url, storage=tmp_path / "storage", **options)))
        return stores[-1]

    yield build
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened()


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Five small slices of one study."""
    return series_bytes(tmp_path_factory.mktemp("series"), seed=1)


def series_bytes(folder: Path, *, seed: int, slices: int = 5, size: int = 64, **options: Any) -> list[bytes]:
    phantom = make_phantom(seed=seed, shape=(slices, size, size), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    return [path.read_bytes() for path in write_series(phantom, folder, seed=seed, **options)]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``set_clock(hours)``: this machine's clock, and the database's, are so many hours ahead from now on."""
    right = database.server_time

    def build(hours: float) -> None:
        modules = (audit, audit_and_sessions, jobs, removal, results, store_module, sweep, uploads, worklist)
        for module in modules:
            monkeypatch.setattr(module, "server_time", lambda connection: right(connection) + timedelta(hours=hours))

    return build


@pytest.fixture
def submit() -> Callable[..., StudySummary]:
    """``submit(store, files)``: an accepted upload."""

    def build(store: Store, files: list[bytes], *, by: str = "tester", uid: str | None = None) -> StudySummary:
        with store.begin_upload() as upload:
            for content in files:
                upload.add_file(io.BytesIO(content))
            return store.accept(upload, submitted_by=by, study_instance_uid=uid)

    return build


@pytest.fixture
def work(predictor: Predictor) -> Callable[..., int]:
    """``work(store)``: read all that waits, in this process; returns how many uploads there were."""

    def build(store: Store, *, keep_identity: bool = False, deidentify: bool = False) -> int:
        reader = UploadReader(store, predictor, keep_identity=keep_identity, deidentify=deidentify)
        worker_id = secrets.token_hex(16)
        store.jobs.join(worker_id, host="here", pid=os.getpid())
        count = 0
        while work_once(store, reader, worker_id):
            count += 1
        return count

    return build


@pytest.fixture
def query() -> Callable[..., list[Any]]:
    """``query(store, statement)``: rows straight from the tables."""

    def run(store: Store, statement: Any) -> list[Any]:
        with store._database.writing() as connection:
            result = connection.execute(statement)
            return list(result.all()) if result.returns_rows else []

    return run
