"""Brings a database to the tables of this program; safe where several processes start at once.

On PostgreSQL an advisory lock, on SQLite a lock on a file beside the database lets one process migrate while the others
wait; each migration is part of one transaction, so that a crash leaves the old tables.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from hemoscope.errors import ConfigError
from hemoscope.store.database import Database, database_url

_MIGRATIONS = Path(__file__).parent / "migrations"
# Any number will do, as long as no other program takes the same one in this database.
_ADVISORY_LOCK = 0x68656D6F73636F70


def migrate(database: Database, *, revision: str = "head") -> None:
    """Run the migrations that are still missing, up to ``revision``.

    Raises:
        ConfigError: the database was made by a newer Hemoscope, or the SQLite file is none.
        StoreError: ``database_unreachable``.
    """
    with _file_lock(database.file):
        database.use_wal()
    with start_lock(database) as connection:
        _upgrade(connection, revision)


def open_migrated(url: str) -> Database:
    """Open a database as it is, for a program that only reads; the caller closes it.

    Raises:
        ConfigError: there is none, or it has the tables of an earlier or a later Hemoscope.
        StoreError: ``database_unreachable``.
    """
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
        msg = f"there is no database {Path(str(parsed.database)).name}. Give the --storage or --database of the server"
        raise ConfigError(msg)
    database = Database(url)
    script = ScriptDirectory(str(_MIGRATIONS))
    with database.reading() as connection:
        _refuse_newer(connection, script)
        current = MigrationContext.configure(connection).get_current_revision()
    if current != script.get_current_head():
        database.close()
        msg = f"the database {database.name} is of an earlier Hemoscope. Start hemoscope serve once, which migrates it"
        raise ConfigError(msg)
    return database


@contextmanager
def start_lock(database: Database) -> Iterator[Connection]:
    """Yield a writing transaction that only one process at a time is in, for what a start may have to make.

    Raises:
        StoreError: ``database_unreachable``.
    """
    with _file_lock(database.file), database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        yield connection


def known_revisions() -> list[str]:
    """The revisions of the schema that this program knows, oldest first."""
    return [one.revision for one in _script(Config()).walk_revisions()][::-1]


def _script(config: Config) -> ScriptDirectory:
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return ScriptDirectory.from_config(config)


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    script = _script(config)
    _refuse_newer(connection, script)

    def steps(current: object, _context: MigrationContext) -> list[object]:
        return list(script._upgrade_revs(revision, current))  # type: ignore[arg-type]  # as alembic's own upgrade does

    with EnvironmentContext(config, script, fn=steps, destination_rev=revision) as environment:
        environment.configure(connection=connection)
        with environment.begin_transaction():
            environment.run_migrations()


def _refuse_newer(connection: Connection, script: ScriptDirectory) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {one.revision for one in script.walk_revisions()}
    if current is not None and current not in known:
        msg = f"the database was made by a newer Hemoscope (revision {current}). Install that version, or a later one"
        raise ConfigError(msg)


@contextmanager
def _file_lock(file: Path | None) -> Iterator[None]:
    """Hold the lock beside an SQLite file; the lock ends with the process, so a crash leaves none."""
    if file is None:
        yield
        return
    descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
