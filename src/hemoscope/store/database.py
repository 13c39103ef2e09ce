"""Connections and transactions, on SQLite and PostgreSQL; no other module depends on which one it is.

SQLite runs in WAL mode with a busy timeout, and every writing transaction begins with BEGIN IMMEDIATE, so that two
writers wait for each other instead of failing halfway. The PostgreSQL driver is pg8000.
"""

import os
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect, Engine, ExceptionContext
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from hemoscope.errors import ConfigError, StoreError
from hemoscope.store.refusals import refusal

_BUSY_MS = 30_000
_ANSWER_S = 20
# An error must not quote the values of its statement: names of patients may be among them.
_POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 40, "hide_parameters": True}
# SQLSTATEs, or their first two characters (PostgreSQL, appendix A), of a server that cannot serve now: no connection,
# wrong password, no such database, standby (25006), no resources, in use, shutting down or starting, its own I/O fails.
_AWAY = ("08", "28", "3D", "25006", "53", "55006", "55P03", "57", "58")
_FULL = ("53100",)
# A disk that is full when SQLite makes its shared memory file is reported as an I/O error.
_FULL_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_GONE = ("08", "57P")  # the connection that reported it is of no use any more
# Without SQLSTATE, that is from a socket, the pool or SQLite, the class is all there is.
_AWAY_CLASSES = (OperationalError, InterfaceError, DisconnectionError, PoolTimeoutError)
_AWAY_SQLITE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_URLS = "Give sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A moment in UTC: PostgreSQL keeps the zone, SQLite does not, Python always sees it."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn any aware moment into UTC, without its zone for SQLite."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Restore the time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Database:
    """A pool of connections. ``reading`` and ``writing`` are the only ways to access it."""

    def __init__(self, url: str) -> None:
        """Prepare the pool; nothing connects yet. Raises ConfigError for a URL of another database."""
        self._url = database_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _make_private_file(Path(str(self._url.database)))
        self._engine = _engine(self._url)

    @property
    def name(self) -> str:
        """The database for messages: the file's name, or ``host/database``; no folder, user or password."""
        if self.is_sqlite:
            return Path(str(self._url.database)).name
        return f"{self._url.host or 'this machine'}/{self._url.database}"

    @property
    def file(self) -> Path | None:
        """The SQLite file, or None."""
        return Path(str(self._url.database)) if self.is_sqlite else None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection in one consistent transaction. Raises StoreError ``database_unreachable``."""
        with _explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection that sees the database at one moment, however long it is read; errors as ``reading``."""
        with _explained(), self._engine.connect() as plain:
            repeatable = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
            connection = plain.execution_options(**repeatable)
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self, *, flushed: bool = True) -> Iterator[Connection]:
        """Yield a connection whose changes are kept together, or after an error not at all; errors as ``reading``.

        Changes that are not ``flushed`` are seen by all at once and wait for no disk; if the machine loses its power,
        the last of them may be undone in SQLite. They are for what is done again then, as a reading with its progress.
        """
        with _explained(), self._engine.connect() as plain:
            connection = plain.execution_options(hemoscope_writes=True, hemoscope_flushed=flushed)
            with connection.begin():
                yield connection

    def use_wal(self) -> None:
        """Turn SQLite's write-ahead log on; the setting is kept in the file, which no other process may use meanwhile.

        Raises:
            ConfigError: the file is not an SQLite database.
        """
        if not self.is_sqlite:
            return
        try:
            with _explained(), closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise refusal("database_full", "the disk of the database file is full") from error
            raise refusal("database_unreachable", "the database file is in use") from error
        except sqlite3.DatabaseError as error:
            msg = f"the file {self.file.name if self.file else ''} is not an SQLite database. {_URLS}"
            raise ConfigError(msg) from error

    def compact(self) -> None:
        """Rewrite the files of the tables, so that none holds a value that was deleted; errors as ``reading``.

        Raises:
            StoreError: ``database_unreachable``, also if another process reads the SQLite file.
        """
        if not self.is_sqlite:
            with _explained(), self._engine.connect() as connection:
                connection.connection.rollback()  # checking it began one, in which VACUUM cannot run
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("VACUUM (FULL)"))
            return
        try:
            with closing(self._engine.raw_connection()) as raw:
                cursor = raw.cursor()
                cursor.execute("VACUUM")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                busy = cursor.fetchall()[0][0]
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise refusal("database_full", "the disk of the database file is full") from error
            busy = True
        if busy:
            raise refusal("database_unreachable", "another process uses the database file")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def now() -> datetime:
    """The time of this machine's clock, UTC. Ages are counted by ``server_time``."""
    return datetime.now(UTC)


def server_time(connection: Connection) -> datetime:
    """The time of the database's clock, UTC: the same for all processes, however their machines' clocks differ.

    SQLite has no clock but that of its machine.
    """
    if connection.dialect.name == "sqlite":
        return now()
    moment = connection.execute(sa.select(sa.func.clock_timestamp(type_=UtcTime()))).scalar_one()
    assert isinstance(moment, datetime)
    return moment


def storable(text: str) -> str:
    """Return text that every database accepts: controls and lone surrogates become U+FFFD, blanks a space."""
    return "".join(_storable(character) for character in text)


def _storable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return " " if character.isspace() else "\ufffd"


def database_url(text: str) -> URL:
    """Parse a database URL; a plain ``postgresql://`` means pg8000, and libpq's socket folder is understood.

    Raises:
        ConfigError: it is not a URL, names another database, or SQLite without a file.
    """
    try:
        url = sa.make_url(text)
    except ArgumentError as error:
        msg = f"the database URL cannot be parsed. {_URLS}"
        raise ConfigError(msg) from error
    if url.drivername in ("postgresql", "postgres", "postgresql+pg8000"):
        return _socket_of(url.set(drivername="postgresql+pg8000"))
    if url.drivername != "sqlite" or url.database in (None, "", ":memory:") or url.query:
        msg = f"{url.drivername} without a file, or another database: not supported. {_URLS}"
        raise ConfigError(msg)
    return url


def _socket_of(url: URL) -> URL:
    """Turn libpq's ``?host=/folder`` into pg8000's path of the socket."""
    folder = url.query.get("host")
    if not isinstance(folder, str) or not folder.startswith("/"):
        return url
    socket = f"{folder}/.s.PGSQL.{url.query.get('port', url.port or 5432)}"
    return url.difference_update_query(["host", "port"]).update_query_dict({"unix_sock": socket})


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_MS / 1000}, **_POOL)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    arguments: dict[str, Any] = {"timeout": _ANSWER_S}
    mode = url.query.get("sslmode", "prefer")
    if mode in ("require", "verify-ca", "verify-full"):
        arguments["ssl_context"] = _ssl_context(str(mode))
    url = url.difference_update_query(["sslmode"])
    engine = sa.create_engine(url, connect_args=arguments, **_POOL)
    event.listen(engine, "handle_error", _note_lost_connection)
    event.listen(engine, "connect", _note_new_connection)
    event.listen(engine, "checkout", partial(_replace_lost_connection, (OSError, engine.dialect.loaded_dbapi.Error)))
    return engine


def _ssl_context(mode: str) -> ssl.SSLContext:
    """TLS as libpq's sslmode defines it: ``require`` encrypts without verifying the server."""
    context = ssl.create_default_context()
    if mode != "verify-full":
        context.check_hostname = False
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # Python's sqlite3 begins no transaction by itself: _begin_sqlite does
    cursor = connection.cursor()
    for pragma in (f"busy_timeout = {_BUSY_MS}", "foreign_keys = ON", "synchronous = FULL", "secure_delete = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("hemoscope_writes"):
        # In WAL mode, NORMAL leaves the flush to the next FULL commit or checkpoint, and keeps the order.
        level = "FULL" if options["hemoscope_flushed"] else "NORMAL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    connection.exec_driver_sql("BEGIN")


def _make_private_file(path: Path) -> None:
    """Make the database file readable only by its owner before SQLite would make it readable by all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        msg = f"the database file cannot be opened ({error.strerror}). Give a path that you may write to"
        raise ConfigError(msg) from error


@contextmanager
def _explained() -> Iterator[None]:
    """Report a database that cannot serve, without the driver's message, which may hold the URL or values."""
    try:
        yield
    except (DBAPIError, DisconnectionError, PoolTimeoutError) as error:
        known = _refusal_of(error)
        if known is None:
            raise
        raise known from error
    except OSError as error:  # pg8000 passes some of its socket's errors on as they are
        reason = f"the connection to the database was lost ({type(error).__name__})"
        raise refusal("database_unreachable", reason) from error


def _refusal_of(error: Exception) -> StoreError | None:
    """The one place that classifies database errors; None for an error of this program, such as a broken constraint."""
    state = _sqlstate(error)
    cause = f"SQLSTATE {state}" if state else type(getattr(error, "orig", None) or error).__name__
    if _is_full(error):
        return refusal("database_full", f"the database's disk is full ({cause})")
    if state.startswith(_AWAY) if state else isinstance(error, _AWAY_CLASSES) or _sqlite_code(error) in _AWAY_SQLITE:
        return refusal("database_unreachable", f"the database does not answer ({cause})")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return refusal("database_unreachable", f"the connection to the database was lost ({cause})")
    return None


def _sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE of a driver's error, which pg8000 gives as field C of the server's message; None if it has none."""
    fields = getattr(getattr(error, "orig", error), "args", ())
    return str(fields[0]["C"]) if fields and isinstance(fields[0], dict) and "C" in fields[0] else None


def _is_full(error: Exception) -> bool:
    """Whether the disk of the database is full."""
    extended = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    return extended in _FULL_SQLITE or _sqlite_code(error) in _FULL_SQLITE or (_sqlstate(error) or "").startswith(_FULL)


def _sqlite_code(error: Exception) -> int | None:
    """SQLite's primary result code."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _note_lost_connection(context: ExceptionContext) -> None:
    """Let the pool replace connections of a server that ended them; SQLAlchemy knows only closed sockets as such."""
    state = _sqlstate(context.original_exception)
    if state is not None and state.startswith(_GONE):
        context.is_disconnect = True


def _note_new_connection(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["new"] = True


def _replace_lost_connection(
    errors: tuple[type[Exception], ...], connection: Any, record: ConnectionPoolEntry, _proxy: object
) -> None:
    """Let the pool replace its connections if this one has died since it was last used.

    SQLAlchemy's own check (``pool_pre_ping``) expects errors of the driver, but pg8000 passes on those of its socket: a
    server that resets the connection instead of closing it would fail the statement that comes next.
    """
    if record.info.pop("new", False):
        return  # it was made a moment ago
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
    except errors as error:
        raise InvalidatePoolError from error
