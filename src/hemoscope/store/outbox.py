"""Results that wait to be sent: the objects in a private folder, and a row for each object and destination.

The files are written before the transaction that stores a study's result, and their rows in it, so a result is never
stored without its objects. They hold the patient's identity, as the images did, and are removed once delivered.
"""

import hashlib
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from hemoscope.checksums import read_checked
from hemoscope.files import write_bytes
from hemoscope.store import tables
from hemoscope.store.clock_watch import ClockWatch
from hemoscope.store.database import Database, server_time
from hemoscope.store.jobs import FINAL
from hemoscope.store.storage import usable

_log = logging.getLogger("hemoscope.store")
_outbox = tables.outbox
_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=30)
_CLAIM = timedelta(minutes=10)
_AWAITED = timedelta(hours=1)
_LONGEST_HOLD = timedelta(minutes=30)
_REMOVED_KEEP_DAYS = 14.0
_destination = attrgetter("destination")
_DAMAGED = "damaged on the disk: made again when the study is read again"
REJECTION = "rejection"  # the kind of a note that marks earlier results as rejected


class Delivery(StrEnum):
    """What becomes of an object: ``SENT`` was accepted and waits for storage commitment."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    EXPIRED = "expired"


WAITING = (Delivery.QUEUED, Delivery.SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingObject:
    """One object for one destination; ``content_uid`` names what it says, whatever report it follows.

    ``sha256`` is that of its file, empty for objects of earlier versions.
    """

    destination: str
    kind: str
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    content_uid: str
    file: str
    sha256: str = ""
    reading: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """What a reading of a study adds to the outbox, and after how long it is sent at the earliest.

    ``contents`` are the content UIDs of all that the reading says, also of what was sent before.
    """

    study_instance_uid: str = ""
    objects: tuple[OutgoingObject, ...] = ()
    contents: tuple[str, ...] = ()
    held: timedelta = timedelta(0)


NOTHING = Outgoing()


@dataclass(frozen=True, slots=True, kw_only=True)
class SentObject:
    """An object as it was sent before, when it was made, and what became of it."""

    outgoing: OutgoingObject
    created_at: datetime
    state: str


class Outbox:
    """The folder and the table. Several processes may use it at once: an object is claimed before it is sent.

    ``keep_ended`` is for how long the file of an object is kept that was delivered or given up, so that it can be sent
    again; ``longest_hold``, for how long results may be held (``hold``, ``Outgoing.held``).
    """

    def __init__(self, database: Database, folder: Path) -> None:
        """Use the folder, which is made with the first object."""
        self._database = database
        self.folder = folder
        self.keep_ended = timedelta(0)
        self.longest_hold = timedelta(0)
        self._clock = ClockWatch(database)

    def write(self, content: bytes) -> tuple[str, str]:
        """Write an object's file, durably, and return its name and SHA-256.

        Raises:
            StoreError: ``storage_full`` or ``storage_unusable``.
        """
        name = f"{secrets.token_hex(16)}.dcm"
        with usable():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            write_bytes(self.folder / name, content, mode=0o600)
        return name, hashlib.sha256(content).hexdigest()

    def discard(self, names: Sequence[str]) -> None:
        """Remove files that got no row."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def said(self, study_instance_uid: str, content_uid: str) -> tuple[SentObject, ...]:
        """Return the objects that say this of a study and were sent, or tried: the oldest first.

        What no destination can have seen does not count.
        """
        return self._sent(study_instance_uid, _outbox.c.content_uid == content_uid)

    def latest(self, study_instance_uid: str, kind: str, *, before: str) -> SentObject | None:
        """Return the newest object of a kind of a study that was sent and says something else than ``before``.

        If ``before`` was sent already, the object is older than that.
        """
        sent = self._sent(study_instance_uid, _outbox.c.kind == kind)
        contents = [one.outgoing.content_uid for one in sent]
        earlier = sent[: contents.index(before)] if before in contents else sent
        return earlier[-1] if earlier else None

    def reached(self, study_instance_uid: str, destination: str | None = None) -> tuple[OutgoingObject, ...]:
        """Return what a destination, or any, may have of a study."""
        found = self._sent(study_instance_uid, _outbox.c.study_instance_uid != "")
        return tuple(one.outgoing for one in found if destination in (None, one.outgoing.destination))

    def _sent(self, study_instance_uid: str, wanted: sa.ColumnElement[bool]) -> tuple[SentObject, ...]:
        known = _outbox.c.study_instance_uid == study_instance_uid, _outbox.c.claimed_at.is_not(None)
        asked = sa.select(_outbox).where(*known, wanted).order_by(_outbox.c.object_id)
        with self._database.reading() as connection:
            rows = connection.execute(asked).all()
        return tuple(SentObject(outgoing=object_of(row), created_at=row.created_at, state=row.state) for row in rows)

    def claim(self, destination: str) -> tuple[tuple[int, OutgoingObject], ...]:
        """Return what is due for a destination, with ids, oldest first; for ten minutes it is the caller's.

        An object that was sent and whose commitment did not come in an hour is due again. A result that nobody has seen
        waits, half an hour at most, while its study is read again: the later reading takes its place. A rejection
        note waits until what replaces the rejected objects is there. What would be due later than anything has to wait
        is due at once: the clock was ahead when that was written, and has been set right.
        """
        with self._database.writing() as connection:
            tables.tick(connection)
            now = server_time(connection)
            due = sa.and_(
                _outbox.c.destination == destination,
                _outbox.c.state.in_(WAITING),
                sa.or_(_outbox.c.next_at <= now, _outbox.c.next_at > now + max(_AWAITED, self.longest_hold)),
                sa.or_(
                    _outbox.c.claimed_at.is_not(None),
                    _outbox.c.created_at < now - _LONGEST_HOLD,
                    ~_read_again(),
                ),
                sa.or_(_outbox.c.kind != REJECTION, ~_replacement_waits()),
            )
            rows = connection.execute(sa.select(_outbox).where(due).order_by(_outbox.c.object_id).limit(100)).all()
            claimed = _outbox.update().where(_outbox.c.object_id.in_([row.object_id for row in rows]))
            first = sa.func.coalesce(_outbox.c.claimed_at, now)
            connection.execute(claimed.values(next_at=now + _CLAIM, claimed_at=first))
        return tuple((row.object_id, object_of(row)) for row in rows)

    def release_claims(self) -> None:
        """Make everything due that was tried and is not at its destination; call it when nobody sends.

        What a sender had claimed that was killed would else wait until its claim ends.
        """
        with self._database.writing() as connection:
            tables.tick(connection)
            tried = _outbox.c.state == Delivery.QUEUED, _outbox.c.claimed_at.is_not(None)
            connection.execute(_outbox.update().where(*tried).values(next_at=server_time(connection)))

    def hold(self, study_instance_uid: str, seconds: float) -> None:
        """Keep the results of a study that nobody has seen back for so long: more of its images are coming."""
        with self._database.writing() as connection:
            tables.tick(connection)
            until = server_time(connection) + timedelta(seconds=seconds)
            waiting = unseen(study_instance_uid), _outbox.c.next_at < until
            connection.execute(_outbox.update().where(*waiting).values(next_at=until))

    def read(self, outgoing: OutgoingObject) -> bytes:
        """Return the bytes of an object's file.

        Raises:
            ChecksumError: they are not those that were written.
            OSError: the file cannot be read.
        """
        return read_checked(self.folder / outgoing.file, {outgoing.file: outgoing.sha256} if outgoing.sha256 else None)

    def delivered(self, object_id: int) -> None:
        """Note that the destination has an object, and remove its file."""
        self._end(object_id, Delivery.DELIVERED, "")

    def damaged(self, object_id: int) -> None:
        """Give up an object whose file is not as it was written; the next reading of its study makes it again."""
        self._end(object_id, Delivery.EXPIRED, _DAMAGED, keep=False)

    def sent(self, object_id: int) -> None:
        """Note that the destination accepted an object, and that its commitment is awaited."""
        with self._database.writing() as connection:
            version, now = tables.tick(connection), server_time(connection)
            values = {"state": Delivery.SENT, "error": "", "sent_at": now, "next_at": now + _AWAITED}
            connection.execute(_outbox.update().where(_outbox.c.object_id == object_id).values(**values))
            _announce(connection, object_id, version)

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
            self._end(object_id, Delivery.DELIVERED, "", committed=True)

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
        """Give up what could not be delivered in time, and remove files that no row names or whose time is over.

        Objects of a destination without a time are given up too, after two weeks: the site removed it. For a day after
        the clock was set, nothing is given up.
        """
        with self._database.reading() as connection:
            now = server_time(connection)
            asked = sa.select(_outbox.c.object_id, _outbox.c.destination, _outbox.c.created_at)
            rows = connection.execute(asked.where(_outbox.c.state.in_(WAITING))).all()
        if not self._clock.steady(now):
            rows = []
        for destination, found in groupby(sorted(rows, key=_destination), key=_destination):
            days = keep_days.get(destination, _REMOVED_KEEP_DAYS)
            late = [row.object_id for row in found if row.created_at < now - timedelta(days=days)]
            for object_id in late:
                self._end(object_id, Delivery.EXPIRED, "not delivered in time")
            if late:
                _log.error("%d results for %s are given up after %g days", len(late), destination, days)
        self._forget_ended()
        self._remove_unknown()

    def _forget_ended(self) -> None:
        """Forget the files of what ended long enough ago, and the whole of it where the study is gone."""
        gone = ~sa.exists().where(tables.studies.c.study_id == _outbox.c.study_id)
        with self._database.reading() as connection:
            ended = _outbox.c.state.not_in(WAITING), _outbox.c.ended_at <= server_time(connection) - self.keep_ended
            asked = sa.select(_outbox.c.object_id, _outbox.c.file, gone.label("gone"))
            rows = connection.execute(asked.where(*ended, sa.or_(gone, _outbox.c.file != ""))).all()
        if not rows:
            return
        with self._database.writing() as connection:
            tables.tick(connection)
            lost = [row.object_id for row in rows if row.gone]
            connection.execute(_outbox.delete().where(_outbox.c.object_id.in_(lost)))
            kept = [row.object_id for row in rows if not row.gone]
            connection.execute(_outbox.update().where(_outbox.c.object_id.in_(kept)).values(file=""))
        self._remove_unused({row.file for row in rows})

    def _remove_unused(self, names: Iterable[str]) -> None:
        """Remove files that no row names any more."""
        with self._database.reading() as connection:
            used = set(connection.execute(sa.select(_outbox.c.file).where(_outbox.c.file.in_(list(names)))).scalars())
        self.discard([name for name in names if name and name not in used])

    def _remove_unknown(self) -> None:
        """Remove files without a row: of a reading that was cut short, or of a study that was deleted."""
        with self._database.reading() as connection:
            latest = (server_time(connection) - timedelta(hours=1)).timestamp()
        self._remove_unused([path.name for path in self.folder.glob("*.dcm") if path.stat().st_mtime < latest])

    def counts(self) -> dict[str, int]:
        """Return how many objects are in each state."""
        grouped = sa.select(_outbox.c.state, sa.func.count()).group_by(_outbox.c.state)
        with self._database.reading() as connection:
            found = {state: int(count) for state, count in connection.execute(grouped).all()}
        return {state.value: found.get(state.value, 0) for state in Delivery}

    def _end(self, object_id: int, state: Delivery, error: str, *, committed: bool = False, keep: bool = True) -> None:
        keep = keep and self.keep_ended > timedelta(0)
        with self._database.writing() as connection:
            version = tables.tick(connection)
            row = connection.execute(sa.select(_outbox).where(_outbox.c.object_id == object_id)).first()
            if row is None:
                return
            now = server_time(connection)
            values: dict[str, object] = {"state": state, "error": error, "ended_at": now}
            values |= {} if keep else {"file": ""}
            if state is Delivery.DELIVERED:
                values |= {"sent_at": row.sent_at or now, "committed_at": now if committed else row.committed_at}
            connection.execute(_outbox.update().where(_outbox.c.object_id == object_id).values(**values))
            _announce(connection, object_id, version)
        if not keep:
            self._remove_unused([row.file])


def _announce(connection: Connection, object_id: int, version: int) -> None:
    """Let open pages of the object's study know that something became of it."""
    study = sa.select(_outbox.c.study_id).where(_outbox.c.object_id == object_id).scalar_subquery()
    changed = tables.studies.update().where(tables.studies.c.study_id == study)
    connection.execute(changed.values(version=version))


def unseen(study_instance_uid: str) -> sa.ColumnElement[bool]:
    """What is queued of a study and was never tried."""
    return sa.and_(
        _outbox.c.study_instance_uid == study_instance_uid,
        _outbox.c.state == Delivery.QUEUED,
        _outbox.c.claimed_at.is_(None),
    )


def _read_again() -> sa.ColumnElement[bool]:
    """Whether a later reading of an object's study waits or is being made."""
    studies, own = tables.studies, tables.studies.alias()
    received = sa.select(own.c.received_at).where(own.c.study_id == _outbox.c.study_id).scalar_subquery()
    return sa.exists().where(
        studies.c.study_instance_uid == _outbox.c.study_instance_uid,
        studies.c.received_at > received,
        studies.c.state.not_in(FINAL),
    )


def _replacement_waits() -> sa.ColumnElement[bool]:
    """Whether a destination still lacks an object of the reading that a rejection note belongs to."""
    other = _outbox.alias()
    return sa.exists().where(
        other.c.destination == _outbox.c.destination,
        other.c.study_id == _outbox.c.study_id,
        other.c.kind != REJECTION,
        other.c.state.in_(WAITING),
    )


FIELDS = (
    "destination",
    "kind",
    "study_instance_uid",
    "series_instance_uid",
    "sop_class_uid",
    "sop_instance_uid",
    "content_uid",
    "file",
    "sha256",
    "reading",
)


def object_of(row: Row[Any]) -> OutgoingObject:
    """Return the object of a row."""
    return OutgoingObject(**{field: getattr(row, field) for field in FIELDS})
