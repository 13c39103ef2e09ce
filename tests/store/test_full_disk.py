"""A disk that is really full: no attempt is counted, no upload is lost, and the fault has its right name."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from hemoscope.errors import StoreError
from hemoscope.inference.predictor import Predictor
from hemoscope.store import tables
from hemoscope.store.database import Database, database_url
from hemoscope.store.migrate import migrate
from hemoscope.store.reading import UploadReader
from hemoscope.store.settings import Settings
from hemoscope.store.store import open_store
from hemoscope.store.values import StudyState, StudySummary
from hemoscope.store.worker import work_once

from .conftest import Cluster

MIB = 1 << 20


class SmallDisk:
    """A file system of its own that can be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, *, leave: int = 0) -> None:
        """Fill it but for so many bytes."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                file.truncate(file.tell() - leave)

    def free(self) -> None:
        (self.folder / "filler").unlink()


@contextmanager
def mounted(folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={2 * MIB},mode=0755", "none", folder)
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system, and not in every container")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(("umount", "--lazy", folder), check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("deidentify", [False, True])
def test_a_full_storage_costs_no_attempt_and_no_upload(
    disk: SmallDisk,
    url: str,
    submit: Callable[..., StudySummary],
    series: list[bytes],
    predictor: Predictor,
    deidentify: bool,
) -> None:
    settings = Settings(database=url, storage=disk.folder / "storage")
    store = open_store(settings)
    entry = submit(store, series)
    source = store.folder.source(entry.upload_id)
    before = sorted(path.read_bytes() for path in source.iterdir())
    reader = UploadReader(store, predictor, keep_identity=False, deidentify=deidentify)
    worker_id = secrets.token_hex(16)
    for leave in (0, 0, 4096, 24_576, 24_576):
        disk.fill(leave=leave)
        with pytest.raises(StoreError, match="no space left where studies are stored") as full:
            work_once(store, reader, worker_id)
        assert full.value.code == "storage_full"
        store.sweep()
        disk.free()
    assert store.get(entry.study_id).state is StudyState.QUEUED
    assert deidentify or sorted(path.read_bytes() for path in source.iterdir()) == before
    assert work_once(store, reader, worker_id)
    assert store.get(entry.study_id).state is StudyState.DONE
    with store._database.reading() as connection:
        assert connection.execute(sa.select(tables.jobs.c.attempts)).scalar_one() == 1
    store.close()


@pytest.mark.parametrize("leave", [0, 4096, 8192, 20_000])
def test_a_full_disk_of_sqlite_is_named(disk: SmallDisk, leave: int) -> None:
    url = f"sqlite:///{disk.folder}/site.sqlite3"
    disk.fill(leave=leave)
    check_full(url)
    for left in disk.folder.glob("site*"):
        left.unlink()
    disk.free()
    database = Database(url)
    migrate(database)
    disk.fill(leave=leave)
    check_full(url, database)
    database.close()
    check_full(url)
    disk.free()
    migrate(Database(url))


def check_full(url: str, database: Database | None = None) -> None:
    """Write until the disk is full, through this database, or through one that is opened now."""
    used = database or Database(url)

    def write() -> None:
        for _ in range(3):
            if database is None:
                migrate(used)
            with used.writing() as connection:
                tables.tick(connection)
                row = {"name": secrets.token_hex(8), "value": "x" * 30_000}
                connection.execute(tables.settings.insert().values(**row))

    with pytest.raises(StoreError, match=r"disk .*full") as full:
        write()
    assert full.value.code == "database_full"
    used.close()


@pytest.mark.reference_tool
def test_a_full_disk_of_postgresql_is_named(cluster: Cluster, tmp_path: Path) -> None:
    with mounted(cluster.home / "small") as disk:
        files = disk.folder / "files"
        files.mkdir()
        shutil.chown(files, "nobody")
        check_postgresql(cluster, disk, files, tmp_path / "storage")


def check_postgresql(cluster: Cluster, disk: SmallDisk, files: Path, storage: Path) -> None:
    """Fill the disk of one table."""
    engine = sa.create_engine(database_url(cluster.url), isolation_level="AUTOCOMMIT")
    words = ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", f"CREATE TABLESPACE small LOCATION '{files}'")
    with engine.connect() as connection:
        for statement in words:
            connection.execute(sa.text(statement))
        store = open_store(Settings(database=cluster.url, storage=storage))
        connection.execute(sa.text("ALTER TABLE audit SET TABLESPACE small"))
    disk.fill()

    def write() -> None:
        for _ in range(100):
            store.audit(user="tester", action="try", detail="x" * 1000)

    with pytest.raises(StoreError, match=r"disk is full .SQLSTATE 53100.") as full:
        write()
    assert full.value.code == "database_full"
    disk.free()
    store.audit(user="tester", action="try", detail="x" * 10_000)
    store.close()
    with engine.connect() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
        connection.execute(sa.text("DROP TABLESPACE small"))
    engine.dispose()
