"""Sessions and the settings that administrators change at run time; each change with its entry in the audit log."""

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from hemoscope.store import audit, tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.refusals import refusal
from hemoscope.store.values import Role, Session, User

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_sessions, _settings = tables.sessions, tables.settings


def open_session(database: Database, user: User, *, lasting: timedelta, detail: str) -> tuple[str, Session]:
    """Begin a session; the token is returned to the caller only, the database keeps its hash. ``detail`` is audited."""
    token, csrf = secrets.token_urlsafe(32), secrets.token_hex(32)
    row = {"token_hash": _hash(token), "user_name": user.name, "role": user.role.value, "csrf": csrf}
    with database.writing() as connection:
        expires_at = server_time(connection) + lasting
        connection.execute(_sessions.insert().values(**row, expires_at=expires_at))
        audit.append(connection, user=user.name, action="login", detail=detail)
    return token, Session(user=user, csrf=csrf, expires_at=expires_at)


def find_session(database: Database, token: str) -> Session | None:
    """Return the session of a token, or None if it is unknown or expired."""
    known = sa.select(_sessions).where(_sessions.c.token_hash == _hash(token))
    with database.reading() as connection:
        row = connection.execute(known).first()
        moment = server_time(connection)
    if row is None or row.expires_at <= moment:
        return None
    return Session(user=User(name=row.user_name, role=Role(row.role)), csrf=row.csrf, expires_at=row.expires_at)


def close_session(database: Database, token: str) -> None:
    """End a session; an unknown token is no error."""
    closed = _sessions.delete().where(_sessions.c.token_hash == _hash(token)).returning(_sessions.c.user_name)
    with database.writing() as connection:
        for user in connection.execute(closed).scalars().all():
            audit.append(connection, user=user, action="logout")


def close_sessions_of(database: Database, names: Collection[str]) -> None:
    """End all sessions of these users, whose entries were removed or changed; only those still valid are audited."""
    if names:
        ended = _sessions.delete().where(_sessions.c.user_name.in_(sorted(names)))
        with database.writing() as connection:
            rows = connection.execute(ended.returning(_sessions.c.user_name, _sessions.c.expires_at)).all()
            moment = server_time(connection)
            for user in sorted(row.user_name for row in rows if row.expires_at > moment):
                detail = "the user was removed, or has another role, password or token"
                audit.append(connection, user=user, action="session ended", detail=detail)


def read_settings(database: Database) -> Mapping[str, Any]:
    """Return all settings as a mapping from name to value."""
    with database.reading() as connection:
        return {row.name: json.loads(row.value) for row in connection.execute(sa.select(_settings))}


def write_setting(database: Database, name: str, value: Any, *, by: str) -> None:
    """Keep a JSON value under a name. Raises StoreError ``bad_setting``."""
    if not _NAME.fullmatch(name):
        raise refusal("bad_setting", f"a setting cannot be named {name!r:.80}")
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise refusal("bad_setting", f"{name} is not a JSON value") from error
    with database.writing() as connection:
        tables.tick(connection)  # two writers of a new name would both insert it otherwise
        if connection.execute(_settings.update().where(_settings.c.name == name).values(value=text)).rowcount == 0:
            connection.execute(_settings.insert().values(name=name, value=text))
        audit.append(connection, user=by, action=f"set {name}", detail=text)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
