"""What became of the results in the outbox, for people: numbers, a list, one study; and sending again on request."""

import errno
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from hemoscope.checksums import ChecksumError
from hemoscope.files import UNREADABLE
from hemoscope.store import audit, tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.outbox import WAITING, Delivery, Outbox, OutgoingObject, object_of
from hemoscope.store.refusals import refusal
from hemoscope.store.values import DeliveryState, OutboxCounts, Resent, SentResults

_outbox = tables.outbox
_NOT_KEPT = "not kept any more: made again when the study is read again"
_MOST_LISTED = 1000
_NOTIFICATION = "webhook"  # the kind of what is no result for a PACS


class Deliveries:
    """Looks at the outbox, and queues anew what somebody asks for."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        """Use the outbox of this database."""
        self._database = database
        self._outbox = outbox

    def counts(self) -> OutboxCounts:
        """Return the numbers of objects by what became of them, and the age of the oldest that waits."""
        committed = _outbox.c.committed_at.is_not(None)
        grouped = sa.select(_outbox.c.state, committed, sa.func.count()).group_by(_outbox.c.state, committed)
        oldest = sa.select(sa.func.min(_outbox.c.created_at)).where(_outbox.c.state.in_(WAITING))
        with self._database.reading() as connection:
            found = {(state, bool(kept)): int(count) for state, kept, count in connection.execute(grouped)}
            since, now = connection.execute(oldest).scalar(), server_time(connection)

        def of(state: Delivery) -> int:
            return found.get((state, False), 0) + found.get((state, True), 0)

        return OutboxCounts(
            waiting=of(Delivery.QUEUED),
            sent=of(Delivery.SENT),
            delivered=found.get((Delivery.DELIVERED, False), 0),
            committed=found.get((Delivery.DELIVERED, True), 0),
            failed=of(Delivery.EXPIRED),
            oldest_waiting_s=None if since is None else max(0.0, (now - since).total_seconds()),
        )

    def listed(self) -> tuple[SentResults, ...]:
        """Return what became of the results of each study at each destination, the newest study first."""
        newest = sa.select(_outbox).order_by(_outbox.c.object_id.desc()).limit(_MOST_LISTED)
        with self._database.reading() as connection:
            rows = connection.execute(newest).all()
        return _grouped(rows)

    def resend(self, *, study_id: str | None, destination: str | None, known: Sequence[str], by: str) -> Resent:
        """Queue results again: of a study, or all that failed without one; at once, without the pauses of retries.

        Args:
            study_id: None for everything that was given up, or that waits after a failure.
            destination: None for each that the results were for; one that was added later gets those of a study too.
            known: the destinations that there are; results for others would wait in vain.
            by: who asks, for the audit log.

        Raises:
            StoreError: ``no_such_destination``, or ``no_results``: the study has none.
        """
        if destination is not None and destination not in known:
            raise refusal("no_such_destination", f"no destination is called {destination!r:.40}")
        useless = self._useless_files(study_id)
        with self._database.writing() as connection:
            tables.tick(connection)
            rows = connection.execute(_wanted(study_id, destination)).all()
            if study_id is not None and destination is not None and not rows:
                rows = _added(connection, study_id, destination)
            if study_id is not None and not rows:
                raise refusal("no_results", "nothing was made to be sent of this study")
            kept = [row for row in rows if row.file not in useless]
            gone = [row for row in rows if row not in kept]
            _queue(connection, kept)
            _forget(connection, gone)
            where = destination or "all destinations"
            detail = f"{len(kept)} results to {where}, {len(gone)} not kept"
            audit.append(connection, user=by, action="resend", study_id=study_id, detail=detail)
        return Resent(queued=len(kept), gone=len(gone))

    def _useless_files(self, study_id: str | None) -> frozenset[str]:
        """The files of what may be wanted that are gone or damaged; read before the transaction: they may be many."""
        with self._database.reading() as connection:
            objects = {row.file: object_of(row) for row in connection.execute(_wanted(study_id, None))}
        return frozenset(file for file, one in objects.items() if not self._is_whole(one)) | {""}

    def _is_whole(self, one: OutgoingObject) -> bool:
        """Whether the file of an object is there and as it was written; so too if that is not known at the moment."""
        try:
            self._outbox.read(one)
        except ChecksumError:
            return False
        except OSError as error:
            return error.errno not in (errno.ENOENT, *UNREADABLE)
        return True


def deliveries_of(connection: Connection, study_id: str) -> tuple[SentResults, ...]:
    """Return what became of a study's results at each destination."""
    asked = sa.select(_outbox).where(_outbox.c.study_id == study_id, _outbox.c.kind != _NOTIFICATION)
    return _grouped(connection.execute(asked.order_by(_outbox.c.destination, _outbox.c.object_id)).all())


def _grouped(rows: Sequence[Row[Any]]) -> tuple[SentResults, ...]:
    groups: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in rows:
        groups.setdefault((row.study_id, row.destination), []).append(row)
    return tuple(_together(group) for group in groups.values())


def _together(rows: Sequence[Row[Any]]) -> SentResults:
    """Say of several objects what the worst of them says."""
    states = [_state(row) for row in rows]
    worst = next(state for state in DeliveryState if state in states)
    sent = [row.sent_at for row in rows if row.sent_at is not None]
    return SentResults(
        study_id=rows[0].study_id,
        destination=rows[0].destination,
        objects=len(rows),
        state=worst,
        made_at=min(row.created_at for row in rows),
        sent_at=max(sent) if sent else None,
        error=next((row.error for row in rows if row.error), ""),
    )


def _state(row: Row[Any]) -> DeliveryState:
    if row.state == Delivery.EXPIRED:
        return DeliveryState.FAILED
    if row.state == Delivery.QUEUED:
        return DeliveryState.WAITING
    if row.state == Delivery.SENT:
        return DeliveryState.SENT
    return DeliveryState.DELIVERED if row.committed_at is None else DeliveryState.COMMITTED


def _wanted(study_id: str | None, destination: str | None) -> sa.Select[Any]:
    failed = sa.or_(
        _outbox.c.state == Delivery.EXPIRED, sa.and_(_outbox.c.state == Delivery.QUEUED, _outbox.c.attempts > 0)
    )
    conditions = [failed if study_id is None else _outbox.c.study_id == study_id]
    if destination is not None:
        conditions.append(_outbox.c.destination == destination)
    return sa.select(_outbox).where(*conditions).order_by(_outbox.c.object_id)


def _added(connection: Connection, study_id: str, destination: str) -> Sequence[Row[Any]]:
    """Make rows for a destination that a study's results were not for; return them."""
    others = sa.select(_outbox).where(_outbox.c.study_id == study_id, _outbox.c.kind != _NOTIFICATION)
    once = {row.sop_instance_uid: row for row in connection.execute(others.order_by(_outbox.c.object_id)).all()}
    for row in once.values():
        values = {name: value for name, value in row._mapping.items() if name != "object_id"}
        times = dict.fromkeys(("claimed_at", "sent_at", "committed_at", "ended_at"))
        connection.execute(_outbox.insert().values(**values | times | {"destination": destination}))
    return connection.execute(_wanted(study_id, destination)).all()


def _queue(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    now = server_time(connection)
    values: dict[str, Any] = {"state": Delivery.QUEUED, "attempts": 0, "error": "", "created_at": now, "next_at": now}
    values |= dict.fromkeys(("sent_at", "committed_at", "ended_at"))
    ids = [row.object_id for row in rows]
    connection.execute(_outbox.update().where(_outbox.c.object_id.in_(ids)).values(**values))


def _forget(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    """Let a reading of the study make these objects again; without that, it would not say the same twice."""
    values = {"state": Delivery.EXPIRED, "error": _NOT_KEPT, "file": "", "ended_at": server_time(connection)}
    ids = [row.object_id for row in rows]
    connection.execute(_outbox.update().where(_outbox.c.object_id.in_(ids)).values(**values))
