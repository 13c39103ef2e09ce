"""The audit log: what happened, written in the transaction in which it happened, as a chain (``audit_chain``).

The row of ``audit_chain`` holds the last number and hash. It is locked from the moment an entry is added until the
commit, so that writers follow each other; it comes after ``tables.tick``, which is first in every transaction.
"""

import secrets
from collections.abc import Iterator
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from hemoscope.store import tables
from hemoscope.store.audit_chain import BEFORE_FIRST, Anchor, ChainCheck, check, entry_hash, study_digest
from hemoscope.store.database import Database, server_time, storable
from hemoscope.store.values import AuditEntry, ChainedAuditEntry

RETENTION = "retention"  # who deletes by age
_audit, _chain, _studies = tables.audit, tables.audit_chain, tables.studies
_STREAMED = {"yield_per": 1000}
_NO_END = "the number and hash of the last entry, which the table audit_chain holds, were removed"


def append(connection: Connection, *, user: str, action: str, study_id: str | None = None, detail: str = "") -> None:
    """Add an entry to the log in the caller's transaction. A study that is gone by then is not named."""
    last = connection.execute(sa.select(_chain).with_for_update()).one()
    study_id, salt = _study(connection, study_id)
    entry: dict[str, Any] = {
        "audit_id": last.last_id + 1,
        "at": server_time(connection),
        "action": storable(action)[:64],
        "detail": storable(detail),
    }
    user, digest = storable(user), None if study_id is None else study_digest(salt, study_id)
    hashed = entry_hash(previous=last.last_hash, user=user, digest=digest, **entry)
    of_study = {"study_id": study_id, "study_salt": salt or None, "study_digest": digest}
    hashes = {"previous_hash": last.last_hash, "entry_hash": hashed}
    connection.execute(_audit.insert().values(**entry, **of_study, **hashes, user_name=user))
    connection.execute(_chain.update().values(last_id=entry["audit_id"], last_hash=hashed))


def record(database: Database, *, user: str, action: str, study_id: str | None, detail: str) -> None:
    """Add an entry on something that changed no table, such as a view."""
    with database.writing() as connection:
        append(connection, user=user, action=action, study_id=study_id, detail=detail)


def forget_study(connection: Connection, study_id: str) -> None:
    """Remove a study's ID from the log. Its entries stay, and no longer show whose they are."""
    of_study = _audit.update().where(_audit.c.study_id == study_id)
    connection.execute(of_study.values(study_id=None, study_salt=None))


def audit_log(database: Database, *, limit: int, before: int | None) -> tuple[AuditEntry, ...]:
    """Return entries, newest first."""
    newest = sa.select(*_columns(AuditEntry)).order_by(_audit.c.audit_id.desc()).limit(limit)
    with database.reading() as connection:
        rows = connection.execute(newest if before is None else newest.where(_audit.c.audit_id < before)).mappings()
        return tuple(AuditEntry(**row) for row in rows)


def chained_entries(database: Database) -> Iterator[ChainedAuditEntry]:
    """Yield the whole log with its hashes, oldest first, as of one moment."""
    with database.reading() as connection:
        in_order = sa.select(*_columns(ChainedAuditEntry)).order_by(_audit.c.audit_id)
        for row in connection.execute(in_order, execution_options=_STREAMED).mappings():
            yield ChainedAuditEntry(**row)


def check_log(database: Database, *, anchor: Anchor | None = None) -> ChainCheck:
    """Follow the chain of the whole log to its first fault; others may write meanwhile."""
    # One statement, since PostgreSQL shows each one its own moment: the noted end stands beside every entry.
    columns = (*_columns(ChainedAuditEntry), _chain.c.last_id, _chain.c.last_hash)
    joined = sa.select(*columns).select_from(_chain.outerjoin(_audit, sa.true())).order_by(_audit.c.audit_id)
    with database.reading() as connection:
        rows = iter(connection.execute(joined, execution_options=_STREAMED).mappings())
        first = next(rows, None)
        if first is None:
            return ChainCheck(entries=0, last=BEFORE_FIRST, fault=_NO_END)
        end = Anchor(audit_id=first["last_id"], entry_hash=first["last_hash"])
        return check(map(_chained, chain([first], rows)) if first["audit_id"] else (), anchor=anchor, end=end)


def _chained(row: RowMapping) -> ChainedAuditEntry:
    return ChainedAuditEntry(**{name: row[name] for name in ChainedAuditEntry.model_fields})


def _columns(kind: type[AuditEntry]) -> list[sa.ColumnElement[Any]]:
    """The columns of the log under the names of the values' fields."""
    return [_audit.c["user_name" if name == "user" else name].label(name) for name in kind.model_fields]


def _study(connection: Connection, study_id: str | None) -> tuple[str | None, str]:
    """A study's ID and the salt of its entries; None and nothing if there is no such study, or not any more."""
    known = sa.select(_studies.c.study_id).where(_studies.c.study_id == study_id)
    if study_id is None or connection.execute(known).first() is None:
        return None, ""
    salted = sa.select(_audit.c.study_salt).where(_audit.c.study_id == study_id).limit(1)
    return study_id, connection.execute(salted).scalar() or secrets.token_hex(16)
