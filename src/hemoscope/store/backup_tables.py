"""The rows of a store as JSON lines: one file a table, the same for every database system and every schema so far.

Tables are read and written as the database has them, not as this program's code would: a backup that an earlier version
made is loaded into the schema of that version, and then migrated. Times are UTC in ISO 8601.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from hemoscope.errors import DataError

# Who is logged in or tried to, who reads what, and which processes run, is of its moment alone; the revision stands
# in the manifest.
_LEFT_OUT = ("sessions", "login_attempts", "claims", "workers", "alembic_version")
_AT_ONCE = 200


def reflected(connection: Connection) -> sa.MetaData:
    """The tables as the database has them."""
    metadata = sa.MetaData()
    metadata.reflect(bind=connection)
    return metadata


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema, None for a database without tables of Hemoscope."""
    return MigrationContext.configure(connection).get_current_revision()


def kept_tables(metadata: sa.MetaData) -> list[sa.Table]:
    """The tables whose rows are kept, so that rows come before those that refer to them."""
    return [table for table in metadata.sorted_tables if table.name not in _LEFT_OUT]


def write_rows(connection: Connection, table: sa.Table, file: BinaryIO) -> int:
    """Write a table's rows, in the order of its key, and return their number."""
    rows = connection.execution_options(yield_per=_AT_ONCE).execute(sa.select(table).order_by(*table.primary_key))
    count = 0
    for row in rows.mappings():
        values = {name: _as_json(value) for name, value in row.items()}
        file.write(json.dumps(values, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n")
        count += 1
    return count


def load_rows(connection: Connection, tables: Mapping[str, Path], *, store_id: str) -> None:
    """Fill the tables of an empty database from files that ``write_rows`` wrote.

    Readings that were under way are queued again, and the attempt does not count.

    Args:
        connection: in a transaction.
        tables: the file of each table.
        store_id: the new id of database and folder.

    Raises:
        DataError: a table or column is unknown.
    """
    metadata = reflected(connection)
    for table in reversed(metadata.sorted_tables):
        if table.name != "alembic_version":
            connection.execute(table.delete())
    if unknown := sorted(tables.keys() - {table.name for table in kept_tables(metadata)}):
        msg = f"the backup has a table that this schema lacks: {', '.join(unknown)}. It is damaged, or was changed"
        raise DataError(msg)
    for table in kept_tables(metadata):
        if table.name in tables:
            for rows in _batches(_rows(tables[table.name], table)):
                connection.execute(table.insert(), rows)
            _set_sequence(connection, table)
    if "pairing" in metadata.tables:
        connection.execute(metadata.tables["pairing"].update().values(store_id=store_id))
    _queue_again(connection, metadata)


def _queue_again(connection: Connection, metadata: sa.MetaData) -> None:
    jobs, studies = metadata.tables["jobs"], metadata.tables["studies"]
    running = sa.select(jobs.c.upload_id).where(jobs.c.state == "running")
    unfinished = studies.c.upload_id.in_(running), studies.c.state.not_in(("done", "failed"))
    connection.execute(studies.update().where(*unfinished).values(state="queued", stage_done=0, stage_total=0))
    waiting = {"state": "queued", "attempts": jobs.c.attempts - 1, "worker_id": None, "lease_until": None}
    connection.execute(jobs.update().where(jobs.c.state == "running").values(**waiting))


def _rows(file: Path, table: sa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as the table takes them."""
    with file.open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            if unknown := sorted(row.keys() - set(table.c.keys())):
                msg = f"{file.name} has a column that this schema lacks: {', '.join(unknown)}. It was changed"
                raise DataError(msg)
            yield {name: _as_stored(value, table.c[name]) for name, value in row.items()}


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _AT_ONCE)):
        yield batch


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):  # SQLite keeps no zone: all its times are UTC
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value


def _as_stored(value: Any, column: sa.Column[Any]) -> Any:
    if value is None or not isinstance(column.type, sa.DateTime):
        return value
    moment = datetime.fromisoformat(value)
    return moment if column.type.timezone else moment.replace(tzinfo=None)


def _set_sequence(connection: Connection, table: sa.Table) -> None:
    """Let PostgreSQL number new rows after the loaded ones; SQLite does."""
    if connection.dialect.name == "sqlite":
        return
    for column in table.primary_key:
        sequence = connection.execute(sa.select(sa.func.pg_get_serial_sequence(table.name, column.name))).scalar()
        if sequence is not None:
            highest = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
            connection.execute(sa.select(sa.func.setval(sequence, highest, False)))
