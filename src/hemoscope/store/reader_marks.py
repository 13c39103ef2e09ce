"""Who reads a study at this moment (a claim), who has reviewed it, and the initials by which readers are shown.

A claim tells the other readers, and locks nothing. It ends when the reader leaves the study or logs out, when somebody
takes over, or some time after the reader's page gave its last sign of life.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.store import audit, tables
from hemoscope.store.database import Database, server_time, storable
from hemoscope.store.refusals import refusal
from hemoscope.store.study_row import find_study
from hemoscope.store.values import Claim, Review

_claims, _reviews, _initials, _studies = tables.claims, tables.reviews, tables.initials, tables.studies
_LONGEST_INITIALS = 4


class ReaderMarks:
    """The readers' side of the store. ``lasting`` is how long a claim lasts without a sign of life."""

    def __init__(self, database: Database, *, lasting: timedelta) -> None:
        """Write to this database."""
        self.lasting = lasting
        self._database = database

    def claim(self, study_id: str, *, by: str, take_over: bool = False) -> Claim:
        """Claim a study, or give a sign of life; return whose it is by now, which may be another reader.

        Args:
            study_id: the study.
            by: the reader.
            take_over: also from another reader.

        Raises:
            StoreError: ``no_such_study``.
        """
        by = storable(by)
        # No change that another page would see, so the version stays; one that is lost is made again a moment later.
        with self._database.writing(flushed=False) as connection:
            moment = server_time(connection)
            alive = _claims.c.study_id == study_id, _claims.c.until > moment
            held = connection.execute(sa.select(_claims).where(*alive)).first()
            if held is not None and (held.by_user == by or not take_over):
                own = _claims.update().where(*alive, _claims.c.by_user == by)
                connection.execute(own.values(until=moment + self.lasting))
                return _claim(held)
        return self._take(study_id, by=by, take_over=take_over)

    def _take(self, study_id: str, *, by: str, take_over: bool) -> Claim:
        with self._database.writing() as connection:
            version = tables.tick(connection)
            find_study(connection, study_id)
            moment = server_time(connection)
            alive = _claims.c.study_id == study_id, _claims.c.until > moment
            held = connection.execute(sa.select(_claims).where(*alive)).first()
            if held is not None and (held.by_user == by or not take_over):
                return _claim(held)  # another page was faster
            connection.execute(_claims.delete().where(_claims.c.study_id == study_id))
            row = {"study_id": study_id, "by_user": by, "since": moment, "until": moment + self.lasting}
            made = connection.execute(_claims.insert().values(**row).returning(*_claims.c)).one()
            _changed(connection, [study_id], version)
            action, detail = ("claim", "") if held is None else ("take over", f"from {held.by_user}")
            audit.append(connection, user=by, action=action, study_id=study_id, detail=detail)
        return _claim(made)

    def release(self, study_id: str, *, by: str) -> None:
        """End a reader's own claim; without one, nothing happens. Raises StoreError ``no_such_study``."""
        with self._database.writing() as connection:
            version = tables.tick(connection)
            find_study(connection, study_id)
            own = _claims.c.study_id == study_id, _claims.c.by_user == storable(by)
            if connection.execute(_claims.delete().where(*own)).rowcount:
                _changed(connection, [study_id], version)
                audit.append(connection, user=by, action="release", study_id=study_id)

    def end_abandoned(self) -> int:
        """End the claims whose readers gave no sign of life for too long, and return how many."""
        with self._database.reading() as connection:
            if connection.execute(sa.select(_claims.c.study_id).where(~_alive(connection))).first() is None:
                return 0
        with self._database.writing() as connection:
            version = tables.tick(connection)
            return _end(connection, ~_alive(connection), version, detail="no sign of life")

    def release_all(self, *, by: str) -> None:
        """End all claims of a reader who has logged out."""
        with self._database.writing() as connection:
            _end(connection, _claims.c.by_user == storable(by), tables.tick(connection), detail="logout")

    def review(self, study_id: str, *, by: str) -> Review:
        """Note a reader's review of a study; a second time changes nothing. Raises StoreError ``no_such_study``."""
        by = storable(by)
        with self._database.writing() as connection:
            version = tables.tick(connection)
            find_study(connection, study_id)
            own = sa.select(_reviews).where(_reviews.c.study_id == study_id, _reviews.c.by_user == by)
            row = connection.execute(own).first()
            if row is None:
                values = {"study_id": study_id, "by_user": by, "at": server_time(connection)}
                row = connection.execute(_reviews.insert().values(**values).returning(*_reviews.c)).one()
                _changed(connection, [study_id], version)
                audit.append(connection, user=by, action="review", study_id=study_id)
        return Review(by=row.by_user, at=row.at)

    def withdraw_review(self, study_id: str, *, by: str) -> None:
        """Take back a reader's own review; without one, nothing happens. Raises StoreError ``no_such_study``."""
        with self._database.writing() as connection:
            version = tables.tick(connection)
            find_study(connection, study_id)
            own = _reviews.c.study_id == study_id, _reviews.c.by_user == storable(by)
            if connection.execute(_reviews.delete().where(*own)).rowcount:
                _changed(connection, [study_id], version)
                audit.append(connection, user=by, action="withdraw review", study_id=study_id)

    def set_initials(self, initials: str, *, by: str) -> None:
        """Keep a user's initials. Raises StoreError ``bad_initials`` unless they are one to four letters or digits."""
        if not 1 <= len(initials) <= _LONGEST_INITIALS or not initials.isalnum() or storable(initials) != initials:
            raise refusal("bad_initials", "these are no initials")
        by = storable(by)
        with self._database.writing() as connection:
            tables.tick(connection)  # two writers of a new name would both insert it otherwise
            own = _initials.update().where(_initials.c.user_name == by).values(initials=initials)
            if connection.execute(own).rowcount == 0:
                connection.execute(_initials.insert().values(user_name=by, initials=initials))
            audit.append(connection, user=by, action="set initials")

    def initials_of(self, name: str) -> str:
        """Return a user's initials, as chosen or by the name."""
        with self._database.reading() as connection:
            return initials(connection, [name])[name]


def claims(connection: Connection, study_ids: Sequence[str]) -> dict[str, Claim]:
    """Return the claims on these studies, by study."""
    asked = sa.select(_claims).where(_claims.c.study_id.in_(study_ids), _alive(connection))
    return {row.study_id: _claim(row) for row in connection.execute(asked)}


def reviews(connection: Connection, study_ids: Sequence[str]) -> dict[str, tuple[Review, ...]]:
    """Return the reviews of these studies, oldest first, by study."""
    found: dict[str, tuple[Review, ...]] = {}
    asked = sa.select(_reviews).where(_reviews.c.study_id.in_(study_ids)).order_by(_reviews.c.at, _reviews.c.by_user)
    for row in connection.execute(asked):
        found[row.study_id] = (*found.get(row.study_id, ()), Review(by=row.by_user, at=row.at))
    return found


def initials(connection: Connection, names: Collection[str]) -> dict[str, str]:
    """Return the initials of users, by name."""
    if not names:
        return {}
    rows = connection.execute(sa.select(_initials).where(_initials.c.user_name.in_(names)))
    chosen = {row.user_name: row.initials for row in rows}
    return {name: chosen.get(name, initials_by_name(name)) for name in names}


def initials_by_name(name: str) -> str:
    """Initials of a user who chose none.

    Examples:
        >>> [initials_by_name(name) for name in ("Anna Larsen", "anna.larsen", "agnes", "")]
        ['AL', 'AL', 'AG', '']
    """
    words = "".join(letter if letter.isalnum() else " " for letter in name).split()
    return (words[0][0] + words[-1][0] if len(words) > 1 else "".join(words)[:2]).upper()


def _alive(connection: Connection) -> sa.ColumnElement[bool]:
    return _claims.c.until > server_time(connection)


def _end(connection: Connection, which: sa.ColumnElement[bool], version: int, *, detail: str) -> int:
    """End claims and return how many."""
    ended = _claims.delete().where(which).returning(_claims.c.study_id, _claims.c.by_user)
    rows = connection.execute(ended).all()
    _changed(connection, [row.study_id for row in rows], version)
    for row in rows:
        audit.append(connection, user=row.by_user, action="release", study_id=row.study_id, detail=detail)
    return len(rows)


def _changed(connection: Connection, study_ids: Sequence[str], version: int) -> None:
    connection.execute(_studies.update().where(_studies.c.study_id.in_(study_ids)).values(version=version))


def _claim(row: Any) -> Claim:
    return Claim(by=row.by_user, since=row.since)
