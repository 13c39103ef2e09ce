"""SQLite as the SuperLink uses it: one writer at a time, which waits for its turn instead of failing.

Flower begins its transactions with a read and asks for the write lock later. SQLite refuses such an upgrade at once,
whatever the busy timeout, where another connection wrote in between ("database is locked"; see
https://www.sqlite.org/rescode.html#busy_snapshot). So every transaction takes the write lock when it begins, which
waits. The events are those of SQLAlchemy's own recipe ("Transactions with SQLite and the sqlite3 driver").
"""

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.responses import JSONResponse

__all__ = ["OperationalError", "answer_unavailable", "wait_for_locks"]

BUSY_TIMEOUT = 60.0  # seconds; a transaction takes milliseconds, but a starved machine may hold one up


def wait_for_locks() -> None:
    """Configure all SQLite engines that this process makes from now on."""
    event.listen(Engine, "connect", _leave_begin_to_us)
    event.listen(Engine, "begin", _begin_immediate)


async def answer_unavailable(_request: Request, _error: Exception) -> JSONResponse:
    """Reply 503 to a request whose transaction failed and was rolled back: Flower's clients repeat it after a pause.

    In JSON: Flower turns any other reply into 500, after which its clients give up.
    """
    return JSONResponse({"detail": "the database is busy"}, status_code=503)


def _leave_begin_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # else the driver begins by itself, and without the lock


def _begin_immediate(connection: Connection) -> None:
    # Here, not when connecting: Flower sets a shorter timeout there.
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
