"""Attempts to log in, counted by address and by account for all web processes together: token buckets in the database.

A row is of use for a minute, after which its bucket is full. What is typed as a name may be a password: of a name that
no user has, the table gets three digits of a hash.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta

import sqlalchemy as sa

from hemoscope.store import tables
from hemoscope.store.database import Database, server_time

_FULL_AFTER = timedelta(minutes=1)
_attempts = tables.login_attempts


def account_name(account: str, *, known: bool) -> str:
    """What an account is counted under.

    Examples:
        >>> account_name("agnes", known=True), account_name("correct horse battery", known=False)
        ('account agnes', 'no account 902')
    """
    hashed = hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()
    return f"account {account}" if known else f"no account {hashed[:3]}"


def count_attempt(database: Database, per_minute: Mapping[str, int]) -> float:
    """Count an attempt under each name; return 0, or the seconds until all of them allow one, which then costs nothing.

    A clock that is set fills the buckets that it makes older than a minute, or later than now.

    Args:
        database: that the processes share.
        per_minute: attempts that each name has in a minute.
    """
    with database.writing() as connection:
        connection.execute(sa.select(tables.clock.c.version).with_for_update())  # one process at a time
        moment = server_time(connection)
        of_use = _attempts.c.at.between(moment - _FULL_AFTER, moment)
        connection.execute(_attempts.delete().where(sa.not_(of_use)))
        counted = sa.select(_attempts).where(_attempts.c.name.in_(per_minute))
        known = {row.name: (row.attempts_left, row.at) for row in connection.execute(counted)}
        levels = {}
        for name, limit in per_minute.items():
            left, since = known.get(name, (float(limit), moment))
            levels[name] = min(float(limit), left + (moment - since).total_seconds() * limit / 60)
        wait_s: float = max((1 - level) * 60 / per_minute[name] for name, level in levels.items())
        if wait_s > 0:
            return wait_s
        connection.execute(_attempts.delete().where(_attempts.c.name.in_(per_minute)))
        rows = [{"name": name, "attempts_left": level - 1, "at": moment} for name, level in levels.items()]
        connection.execute(_attempts.insert(), rows)
    return 0.0
