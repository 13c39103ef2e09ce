"""Results that wait to be sent: the objects in a private folder, and a row for each object and destination.

The files are written before the transaction that stores a study's result, and their rows in it, so a result is never
stored without its objects. They hold the patient's identity, as the images did, and are removed once delivered.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from hemoscope.files import write_bytes
from hemoscope.store import tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.storage import full_disk_refused
from hemoscope.store.sweep import ClockWatch

_log = logging.getLogger("hemoscope.store")
_outbox = tables.outbox
_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=30)
_CLAIM = timedelta(minutes=10)
_AWAITED = timedelta(hours=1)
_REMOVED_KEEP_DAYS = 14.0
_destination = attrgetter("destination")


class Delivery(StrEnum):
    """What becomes of an object: ``SENT`` was accepted and waits for storage commitment."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingObject:
    """One object for one destination; ``content_uid`` names what it says, whatever report it follows."""

    destination: str
    kind: str
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    content_uid: str
    file: str


class Outbox:
    """The folder and the table. Several processes may use it at once: an object is claimed before it is sent."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Use the folder, which is made with the first object."""
        self._database = database
        self.folder = folder
        self._clock = ClockWatch()

    def write(self, content: bytes) -> str:
        """Write an object's file, durably, and return its name. Raises StoreError ``storage_full``."""
        name = f"{secrets.token_hex(16)}.dcm"
        with full_disk_refused():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            write_bytes(self.folder / name, content, mode=0o600)
        return name

    def discard(self, names: Sequence[str]) -> None:
        """Remove files that got no row."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def known(self, study_instance_uid: str, content_uid: str) -> bool:
        """Whether an object that says this was made for this study before, whatever became of it."""
        asked = sa.select(_outbox.c.object_id).where(
            _outbox.c.study_instance_uid == study_instance_uid, _outbox.c.content_uid == content_uid
        )
        with self._database.reading() as connection:
            return connection.execute(asked.limit(1)).first() is not None

    def latest(self, study_instance_uid: str, kind: str) -> OutgoingObject | None:
        """Return the newest object of a kind that was made for a study; None if there is none."""
        asked = (
            sa.select(_outbox)
            .where(_outbox.c.study_instance_uid == study_instance_uid, _outbox.c.kind == kind)
            .order_by(_outbox.c.object_id.desc())
        )
        with self._database.reading() as connection:
            row = connection.execute(asked.limit(1)).first()
        return None if row is None else _object(row)

    def claim(self, destination: str) -> tuple[tuple[int, OutgoingObject], ...]:
        """Return what is due for a destination, with ids, oldest first; for ten minutes it is the caller's.

        An object that was sent and whose commitment did not come in an hour is due again.
        """
        with self._database.writing() as connection:
            tables.tick(connection)
            now = server_time(connection)
            due = sa.and_(
                _outbox.c.destination == destination,
                _outbox.c.state.in_((Delivery.QUEUED, Delivery.SENT)),
                _outbox.c.next_at <= now,
            )
            rows = connection.execute(sa.select(_outbox).where(due).order_by(_outbox.c.object_id).limit(100)).all()
            ids = [row.object_id for row in rows]
            connection.execute(_outbox.update().where(_outbox.c.object_id.in_(ids)).values(next_at=now + _CLAIM))
        return tuple((row.object_id, _object(row)) for row in rows)

    def read(self, outgoing: OutgoingObject) -> bytes:
        """Return the bytes of an object's file. Raises OSError."""
        return (self.folder / outgoing.file).read_bytes()

    def delivered(self, object_id: int) -> None:
        """Note that the destination has an object, and remove its file."""
        self._end(object_id, Delivery.DELIVERED, "")

    def sent(self, object_id: int) -> None:
        """Note that the destination accepted an object, and that its commitment is awaited."""
        with self._database.writing() as connection:
            tables.tick(connection)
            values = {"state": Delivery.SENT, "error": "", "next_at": server_time(connection) + _AWAITED}
            connection.execute(_outbox.update().where(_outbox.c.object_id == object_id).values(**values))

    def failed(self, object_id: int, error: str) -> None:
        """Note why an object could not be sent; it is tried again, after pauses that grow to half an hour."""
        with self._database.writing() as connection:
            tables.tick(connection)
            row = connection.execute(sa.select(_outbox).where(_outbox.c.object_id == object_id)).first()
            if row is None:
                return
            pause = min(_FIRST_PAUSE * 2 ** min(row.attempts, 12), _LONGEST_PAUSE)
            values = {
                "state": Delivery.QUEUED,
                "attempts": row.attempts + 1,
                "error": error,
                "next_at": server_time(connection) + pause,
            }
            connection.execute(_outbox.update().where(_outbox.c.object_id == object_id).values(**values))

    def committed(self, destination: str, sop_instance_uid: str) -> None:
        """Note that a destination has committed itself to keep an object; an unknown one is no error."""
        asked = sa.select(_outbox.c.object_id).where(
            _outbox.c.destination == destination, _outbox.c.sop_instance_uid == sop_instance_uid
        )
        with self._database.reading() as connection:
            object_id = connection.execute(asked).scalar()
        if object_id is not None:
            self.delivered(object_id)

    def not_committed(self, destination: str, sop_instance_uid: str) -> None:
        """Note that a destination does not keep an object that it accepted: it is sent again."""
        asked = sa.select(_outbox.c.object_id).where(
            _outbox.c.destination == destination,
            _outbox.c.sop_instance_uid == sop_instance_uid,
            _outbox.c.state == Delivery.SENT,  # what ended has no file any more
        )
        with self._database.reading() as connection:
            object_id = connection.execute(asked).scalar()
        if object_id is not None:
            self.failed(object_id, "not committed")

    def tidy(self, keep_days: Mapping[str, float]) -> None:
        """Give up what could not be delivered in time, and remove files that no row names.

        Objects of a destination without a time are given up too, after two weeks: the site removed it. For a day after
        the clock was set, nothing is given up.
        """
        waiting = _outbox.c.state.in_((Delivery.QUEUED, Delivery.SENT))
        with self._database.reading() as connection:
            now = server_time(connection)
            asked = sa.select(_outbox.c.object_id, _outbox.c.destination, _outbox.c.created_at).where(waiting)
            rows = connection.execute(asked).all() if self._clock.steady(now) else []
        for destination, found in groupby(sorted(rows, key=_destination), key=_destination):
            days = keep_days.get(destination, _REMOVED_KEEP_DAYS)
            late = [row.object_id for row in found if row.created_at < now - timedelta(days=days)]
            for object_id in late:
                self._end(object_id, Delivery.EXPIRED, "not delivered in time")
            if late:
                _log.error("%d results for %s are given up after %g days", len(late), destination, days)
        self._remove_unknown()

    def _remove_unknown(self) -> None:
        files = {path.name: path for path in self.folder.glob("*.dcm")}
        with self._database.reading() as connection:
            latest = server_time(connection) - timedelta(hours=1)
            known = connection.execute(sa.select(_outbox.c.file).where(_outbox.c.file.in_(list(files)))).scalars()
            kept = set(known)
        for name, path in files.items():
            if name not in kept and path.stat().st_mtime < latest.timestamp():
                path.unlink(missing_ok=True)

    def counts(self) -> dict[str, int]:
        """Return how many objects are in each state."""
        grouped = sa.select(_outbox.c.state, sa.func.count()).group_by(_outbox.c.state)
        with self._database.reading() as connection:
            found = {state: int(count) for state, count in connection.execute(grouped).all()}
        return {state.value: found.get(state.value, 0) for state in Delivery}

    def _end(self, object_id: int, state: Delivery, error: str) -> None:
        with self._database.writing() as connection:
            tables.tick(connection)
            row = connection.execute(sa.select(_outbox).where(_outbox.c.object_id == object_id)).first()
            if row is None:
                return
            values = {"state": state, "error": error, "file": ""}
            connection.execute(_outbox.update().where(_outbox.c.object_id == object_id).values(**values))
            shared = sa.select(_outbox.c.object_id).where(_outbox.c.file == row.file)
            last = connection.execute(shared.limit(1)).first() is None
        if last and row.file:
            (self.folder / row.file).unlink(missing_ok=True)


def insert(connection: Connection, study_id: str, objects: Sequence[OutgoingObject]) -> None:
    """Queue the objects of a study, in the transaction that stores its result; one that is there already stays."""
    now = server_time(connection)
    for one in objects:
        there = sa.select(_outbox.c.object_id).where(
            _outbox.c.destination == one.destination, _outbox.c.sop_instance_uid == one.sop_instance_uid
        )
        if connection.execute(there).first() is None:
            values = {field: getattr(one, field) for field in _FIELDS}
            times = {"created_at": now, "next_at": now}
            state = {"state": Delivery.QUEUED, "attempts": 0, "error": ""}
            connection.execute(_outbox.insert().values(study_id=study_id, **values, **times, **state))


_FIELDS = (
    "destination",
    "kind",
    "study_instance_uid",
    "series_instance_uid",
    "sop_class_uid",
    "sop_instance_uid",
    "content_uid",
    "file",
)


def _object(row: Row[tuple[object, ...]]) -> OutgoingObject:
    return OutgoingObject(**{field: getattr(row, field) for field in _FIELDS})
