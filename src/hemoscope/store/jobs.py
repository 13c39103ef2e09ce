"""The job queue: which worker reads which upload, with leases, heartbeats and counted attempts.

A worker takes an upload that waits, or one whose lease ran out, and keeps the lease by its heartbeat. Those who submit
take turns: next is whose last turn was the longest ago, with the oldest upload of theirs. So nobody waits for all that
another one sent before. The PACS, with all its senders, is one of them. Before all others comes more of a study whose
earlier reading found something immediate, since its results may wait for the later reading.

A lease that runs out is a failed attempt; after three the studies fail with a code. A worker that is asked to stop
gives its job back, and the attempt does not count. A worker that lost its lease can no longer write a result. After an
error of the system, which may pass, the next attempt waits: some minutes, or seconds if a disk cannot read a file. It
waits, uncounted, if no decoder can be started.

A lease has run out if nobody renewed it while another process watched it for the time of a lease, by its monotonic
clock: clocks that are wrong, differ or are set make no lease shorter or longer.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.errors import HemoscopeError
from hemoscope.inference.findings import Triage
from hemoscope.store import tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.uploads import FAILED_RANK
from hemoscope.store.values import StudyState

_LOOKS_AT_LEAST = 0.5  # of the time of a lease: who looks more rarely may have missed what all others missed
FIRST_PAUSE = timedelta(minutes=1)
# All studies of an upload wait for a file that a disk cannot read: nobody knows which it belongs to.
FIRST_PAUSE_OF_A_FILE = timedelta(seconds=8)
_LONGEST_PAUSE = timedelta(minutes=16)
FINAL = (StudyState.DONE, StudyState.FAILED)
_jobs, _workers, _studies = tables.jobs, tables.workers, tables.studies
_uploads, _turns = tables.uploads, tables.turns


class LeaseLostError(HemoscopeError):
    """Another worker has the job, or it was deleted: this worker must not write its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadJob:
    """One upload to read, held by one worker for one attempt."""

    upload_id: str
    worker_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Renewal:
    """A lease as it was last renewed; ``lease_until`` differs after every renewal, and means nothing else here."""

    upload_id: str
    attempts: int
    lease_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why a job failed, as a stable code and in words for the reader, and the remedy."""

    code: str
    message: str
    remedy: str


class Jobs:
    """The queue, for workers and their supervisor."""

    def __init__(self, database: Database, *, lease: timedelta, attempts: int) -> None:
        """Set how long a lease lasts without a heartbeat, and how many attempts a job has."""
        self.lease_time = lease
        self.attempts = attempts
        self._database = database
        self._first_seen: dict[_Renewal, float] = {}
        self._looked = float("-inf")
        self._joined: dict[str, dict[str, Any]] = {}

    def join(self, worker_id: str, *, host: str, pid: int) -> None:
        """Register a worker of this process; its heartbeats register it again if its row is gone."""
        with self._database.writing() as connection:
            moment = server_time(connection)
            row = {"worker_id": worker_id, "host": host, "pid": pid, "started_at": moment}
            connection.execute(_workers.insert().values(**row, beat_at=moment))
        self._joined[worker_id] = row

    def lease(self, worker_id: str) -> UploadJob | None:
        """Take the upload whose turn it is, or None; uploads that have used all attempts fail."""
        with self._database.reading() as connection:
            free = _free(self._ended_leases(connection), server_time(connection))
            if connection.execute(sa.select(_jobs.c.upload_id).where(free).limit(1)).first() is None:
                return None
        with self._database.writing() as connection:
            version = tables.tick(connection)
            while (found := _next_free(connection, free)) is not None:
                if found.attempts < self.attempts:
                    _end_turn(connection, found.submitted_by, version)
                    return self._take(connection, found.upload_id, found.attempts + 1, worker_id)
                fail(connection, found.upload_id, _killed(found.attempts))
        return None

    def _watch_leases(self, connection: Connection) -> None:
        """Note since when this process has seen each lease unchanged.

        After a pause in its looks it begins anew: while the database was away nobody could renew a lease.
        """
        leases = sa.select(_jobs.c.upload_id, _jobs.c.attempts, _jobs.c.lease_until).where(_jobs.c.state == "running")
        held, moment = [_Renewal(**row) for row in connection.execute(leases).mappings()], monotonic()
        rarely = moment - self._looked >= _LOOKS_AT_LEAST * self.lease_time.total_seconds()
        seen = {} if rarely else self._first_seen
        self._first_seen, self._looked = {one: seen.get(one, moment) for one in held}, moment

    def _ended_leases(self, connection: Connection) -> list[_Renewal]:
        """The leases that this process has seen unchanged for the time of a lease."""
        self._watch_leases(connection)
        limit = self.lease_time.total_seconds()
        return [one for one, since in self._first_seen.items() if self._looked - since >= limit]

    def _take(self, connection: Connection, upload_id: str, attempt: int, worker_id: str) -> UploadJob:
        moment = server_time(connection)
        values = {
            "state": "running",
            "attempts": attempt,
            "worker_id": worker_id,
            "started_at": moment,
            "lease_until": moment + self.lease_time,
        }
        connection.execute(_jobs.update().where(_jobs.c.upload_id == upload_id).values(**values))
        connection.execute(_workers.update().where(_workers.c.worker_id == worker_id).values(upload_id=upload_id))
        return UploadJob(upload_id=upload_id, worker_id=worker_id, attempt=attempt)

    def heartbeat(self, worker_id: str, job: UploadJob | None) -> bool:
        """Record that a worker is alive and extend its lease; False if the job is no longer its own.

        A worker that is busy looks here, not in ``lease``, at the leases of others, which may have died.
        """
        with self._database.writing(flushed=False) as connection:
            moment = server_time(connection)
            longer = {"lease_until": moment + self.lease_time}
            kept = job is None or connection.execute(_jobs.update().where(_held(job)).values(**longer)).rowcount == 1
            alive = {"beat_at": moment, "upload_id": job.upload_id if job else None}
            own = _workers.update().where(_workers.c.worker_id == worker_id)
            if connection.execute(own.values(**alive)).rowcount == 0 and worker_id in self._joined:
                # The sweep of another process removed it: the database was away, or a clock was set.
                connection.execute(_workers.insert().values(**self._joined[worker_id], **alive))
            self._watch_leases(connection)
            return kept

    def give_back(self, job: UploadJob, *, paused: bool = False) -> None:
        """Put a job back into the queue as if this attempt had not been made, for a worker that is asked to stop.

        If it is ``paused``, the next attempt waits a minute: others of its submitter are read meanwhile.

        Raises:
            LeaseLostError: it is no longer the caller's.
        """
        with self._database.writing() as connection:
            tables.tick(connection)
            check_held(connection, job)
            _requeue(connection, job.upload_id, attempts=job.attempt - 1)
            if paused:
                _pause(connection, job, FIRST_PAUSE)

    def worker_died(self, worker_id: str) -> None:
        """Free the job of a worker that is known to be dead, without waiting for its lease to run out."""
        self._joined.pop(worker_id, None)
        with self._database.writing() as connection:
            tables.tick(connection)
            held = _jobs.c.worker_id == worker_id, _jobs.c.state == "running"
            for row in connection.execute(sa.select(_jobs.c.upload_id, _jobs.c.attempts).where(*held)).all():
                self._retry_or_fail(connection, row.upload_id, row.attempts, _killed(row.attempts))
            connection.execute(_workers.delete().where(_workers.c.worker_id == worker_id))

    def retry(self, job: UploadJob, failure: JobFailure, *, first_pause: timedelta = timedelta(0)) -> None:
        """Put a job back after an unexpected error; once its attempts are used up it fails.

        The second attempt waits for ``first_pause``, each further one four times as long, 16 minutes at most.

        Raises:
            LeaseLostError: it is no longer the caller's.
        """
        with self._database.writing() as connection:
            tables.tick(connection)
            check_held(connection, job)
            self._retry_or_fail(connection, job.upload_id, job.attempt, failure)
            if first_pause:
                _pause(connection, job, min(first_pause * 4 ** (job.attempt - 1), _LONGEST_PAUSE))

    def _retry_or_fail(self, connection: Connection, upload_id: str, attempts: int, failure: JobFailure) -> None:
        if attempts >= self.attempts:
            fail(connection, upload_id, failure)
            return
        _requeue(connection, upload_id, attempts=attempts)

    def held_by(self, worker_ids: Collection[str]) -> frozenset[UploadJob]:
        """The jobs that these workers hold."""
        held = _jobs.c.worker_id.in_(worker_ids), _jobs.c.state == "running"
        columns = _jobs.c.upload_id, _jobs.c.worker_id, _jobs.c.attempts.label("attempt")
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(*columns).where(*held)).mappings().all()
        return frozenset(UploadJob(**row) for row in rows)

    def fail_overdue(self, job: UploadJob, *, limit: timedelta) -> bool:
        """Fail a job that has run longer than ``limit``, as its supervisor measured; False if it ended meanwhile."""
        with self._database.writing() as connection:
            tables.tick(connection)
            if connection.execute(sa.select(_jobs.c.upload_id).where(_held(job)).with_for_update()).first() is None:
                return False
            fail(connection, job.upload_id, _too_slow(limit))
        return True


def _killed(attempts: int) -> JobFailure:
    message = f"Reading this study ended the program {attempts} times. It may be damaged or too large for the memory"
    remedy = "Check the files, or give the workers more memory, and upload it again"
    return JobFailure(code="worker_killed", message=message, remedy=remedy)


def _too_slow(limit: timedelta) -> JobFailure:
    message = f"Reading took longer than {limit.total_seconds():g} s"
    return JobFailure(
        code="time_limit", message=message, remedy="Upload one study at a time, or raise --time-limit-minutes"
    )


def _free(ended: Sequence[_Renewal], now: datetime) -> sa.ColumnElement[bool]:
    """Jobs that wait, and jobs whose lease ran out and was not renewed since it was looked at.

    A pause that would end later than any pause lasts is over: the clock was ahead when it was written.
    """
    unchanged = (
        sa.and_(
            _jobs.c.upload_id == one.upload_id,
            _jobs.c.attempts == one.attempts,
            _jobs.c.lease_until == one.lease_until,
            _jobs.c.state == "running",
        )
        for one in ended
    )
    over = _jobs.c.not_before.is_(None), _jobs.c.not_before <= now, _jobs.c.not_before > now + _LONGEST_PAUSE
    return sa.or_(sa.and_(_jobs.c.state == "queued", sa.or_(*over)), *unchanged)


def _next_free(connection: Connection, free: sa.ColumnElement[bool]) -> Any:
    """The free job whose turn it is, as a row with who submitted it; None if there is none."""
    submitted = _jobs.join(_uploads, _uploads.c.upload_id == _jobs.c.upload_id)
    had = submitted.outerjoin(_turns, _turns.c.submitted_by == _uploads.c.submitted_by)
    last_turn = sa.func.coalesce(_turns.c.version, 0)
    found = sa.select(_jobs.c.upload_id, _jobs.c.attempts, _uploads.c.submitted_by).select_from(had).where(free)
    ordered = found.order_by(~_immediate_before(), last_turn, _jobs.c.queued_at, _jobs.c.upload_id).limit(1)
    # SKIP LOCKED is PostgreSQL's; SQLite, where BEGIN IMMEDIATE keeps other writers out, omits it.
    return connection.execute(ordered.with_for_update(skip_locked=True, of=_jobs)).first()


def _immediate_before() -> sa.ColumnElement[bool]:
    """Whether an earlier reading of a job's study found something immediate."""
    waiting, earlier = _studies.alias(), _studies.alias()
    return sa.exists().where(
        waiting.c.upload_id == _jobs.c.upload_id,
        earlier.c.study_instance_uid == waiting.c.study_instance_uid,
        earlier.c.state == StudyState.DONE,
        earlier.c.urgency == Triage.IMMEDIATE,
    )


def _end_turn(connection: Connection, submitted_by: str, version: int) -> None:
    """Put somebody behind all others; the version's lock lets one worker at a time do so."""
    turn = _turns.update().where(_turns.c.submitted_by == submitted_by).values(version=version)
    if not connection.execute(turn).rowcount:
        connection.execute(_turns.insert().values(submitted_by=submitted_by, version=version))


def _held(job: UploadJob) -> sa.ColumnElement[bool]:
    return sa.and_(
        _jobs.c.upload_id == job.upload_id,
        _jobs.c.worker_id == job.worker_id,
        _jobs.c.attempts == job.attempt,
        _jobs.c.state == "running",
    )


def check_held(connection: Connection, job: UploadJob) -> None:
    """Raise LeaseLostError unless the job is this worker's; the row stays locked until the transaction ends."""
    if connection.execute(sa.select(_jobs.c.upload_id).where(_held(job)).with_for_update()).first() is None:
        msg = "the job was given to another worker or deleted. Nothing to do: the result is discarded"
        raise LeaseLostError(msg)


def _requeue(connection: Connection, upload_id: str, *, attempts: int) -> None:
    waiting = {"state": "queued", "attempts": attempts, "worker_id": None, "lease_until": None}
    connection.execute(_jobs.update().where(_jobs.c.upload_id == upload_id).values(**waiting))
    again = {"state": StudyState.QUEUED, "stage_done": 0, "stage_total": 0, "version": tables.tick(connection)}
    unfinished = _studies.c.upload_id == upload_id, _studies.c.state.not_in(FINAL)
    connection.execute(_studies.update().where(*unfinished).values(**again))


def _pause(connection: Connection, job: UploadJob, pause: timedelta) -> None:
    own = _jobs.update().where(_jobs.c.upload_id == job.upload_id)
    connection.execute(own.values(not_before=server_time(connection) + pause))


def finish(connection: Connection, upload_id: str, *, state: str) -> None:
    """End a job; call ``check_held`` first, or hold its row locked."""
    ended = {"state": state, "finished_at": server_time(connection), "worker_id": None, "lease_until": None}
    connection.execute(_jobs.update().where(_jobs.c.upload_id == upload_id).values(**ended))


def fail(connection: Connection, upload_id: str, failure: JobFailure) -> None:
    """End a job and every study of the upload that has no result yet, with the failure's code."""
    finish(connection, upload_id, state="failed")
    fail_studies(connection, upload_id, failure)


def fail_studies(connection: Connection, upload_id: str, failure: JobFailure, *which: sa.ColumnElement[bool]) -> None:
    """End the studies of an upload that have no result yet, all or those that ``which`` selects."""
    unfinished = _studies.c.upload_id == upload_id, _studies.c.state.not_in(FINAL), *which
    connection.execute(
        _studies.update()
        .where(*unfinished)
        .values(
            state=StudyState.FAILED,
            urgency_rank=FAILED_RANK,
            error_code=failure.code,
            error_message=failure.message,
            error_cure=failure.remedy,
            search_text=_studies.c.search_text + f" {failure.code}",
            version=tables.tick(connection),
        )
    )
