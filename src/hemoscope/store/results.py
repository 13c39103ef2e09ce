"""What a worker writes while it reads an upload; every transaction first checks that the job is still its own.

A study's result is one row in ``results``, written once, in one transaction with its state: a job that is retried after
a crash skips the studies that are done.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.errors import HemoscopeError
from hemoscope.store import outbox_of_readings, readings, tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.found_studies import FoundStudy, StudyRows
from hemoscope.store.jobs import FINAL, JobFailure, UploadJob, check_held, finish
from hemoscope.store.outbox import NOTHING, Outgoing
from hemoscope.store.uploads import FAILED_RANK, rank_of
from hemoscope.store.values import Geometry, Identity, StudyState

_studies, _deletions = tables.studies, tables.deletions


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """The result of one study, ready to be stored: ``findings`` is JSON text, ``urgency`` one of ``URGENCIES``.

    ``unread`` says what of the head was not read, None if the whole head was.
    """

    findings: str
    geometry: Geometry
    urgency: str
    suspected: tuple[str, ...]
    not_established: tuple[str, ...]
    unread: str | None = None


class StudyGoneError(HemoscopeError):
    """The study was deleted while it was read: its result must not be written; the upload's other studies continue."""


class Results:
    """The worker's side of the store."""

    def __init__(self, database: Database) -> None:
        """Write to this database."""
        self._database = database

    def begin(self, job: UploadJob, found: Sequence[FoundStudy]) -> tuple[str | None, ...]:
        """Make a row for each study of an upload; return the ids to read, None for those done or deleted before.

        A study without a result that an earlier attempt found and this one does not fails: its files were lost. Nothing
        is returned where an earlier version began the rows and found another number of studies: whose rows the others
        are is not certain then. What has no result yet fails, and the job ends.

        Args:
            job: held by the caller.
            found: the studies; of those that the DICOM node received the Study Instance UID is kept.

        Raises:
            LeaseLostError: the job is no longer the caller's.
        """
        with self._database.writing() as connection:
            version = tables.tick(connection)
            check_held(connection, job)
            begun = StudyRows(connection, job.upload_id, version).begin(found)
            for study_id, one in zip(begun, found, strict=False):  # none if it is not certain
                _name_reading(connection, study_id, one.study_instance_uid)
            return begun

    def reading_number(self, study_id: str) -> int:
        """Return which reading of its study this is, from 1."""
        with self._database.reading() as connection:
            asked = sa.select(_studies.c.reading).where(_studies.c.study_id == study_id)
            return int(connection.execute(asked).scalar() or 1)

    def progress(self, job: UploadJob, study_id: str | None, *, state: StudyState, done: int, total: int) -> None:
        """Record the progress of a study; None stands for the first one. Raises LeaseLostError."""
        known = _studies.c.study_id == study_id if study_id else _studies.c.ordinal == 0
        self._change(job, known, state=state, stage_done=done, stage_total=total)

    def pixels_ready(
        self,
        job: UploadJob,
        study_id: str,
        *,
        geometry: Geometry,
        acquired_at: datetime | None,
        who: Identity | None,
        pixels_sha256: str | None = None,
    ) -> None:
        """Make the slices viewable before there is a result. Raises LeaseLostError or StudyGoneError."""
        slices = len(geometry["sop_instance_uids"])
        values: dict[str, Any] = {"acquired_at": acquired_at, "instances": slices, "stage_total": slices}
        if who is not None:
            search = " ".join((study_id, who.name, who.id)).casefold()
            values |= {"patient_name": who.name, "patient_id": who.id, "search_text": search}
        document = json.dumps(geometry, allow_nan=False)
        values |= {"has_pixels": True, "geometry": document, "state": StudyState.SCORING, "stage_done": 0}
        values["pixels_sha256"] = pixels_sha256
        if not self._change(job, _studies.c.study_id == study_id, **values):
            raise _gone()

    def finish_study(self, job: UploadJob, study_id: str, result: StudyResult, outgoing: Outgoing = NOTHING) -> None:
        """Write a study's result, once, and queue what is to be sent; earlier readings give way to it.

        Raises:
            LeaseLostError: the job is no longer the caller's.
            StudyGoneError: the study was deleted.
        """
        with self._database.writing() as connection:
            version = tables.tick(connection)
            check_held(connection, job)
            _insert_result(connection, job, study_id, result.findings)
            words = " ".join((result.urgency, *result.suspected))
            values = {
                "state": StudyState.DONE,
                "stage_done": _studies.c.stage_total,
                "urgency": result.urgency,
                "urgency_rank": rank_of(result.urgency),
                "suspected": json.dumps(result.suspected),
                "not_established": json.dumps(result.not_established),
                "has_maps": True,
                "unread": result.unread,
                "geometry": json.dumps(result.geometry, allow_nan=False),
                "search_text": _studies.c.search_text + f" {words}",
                "version": version,
            }
            connection.execute(_studies.update().where(_studies.c.study_id == study_id).values(**values))
            readings.settle(connection, _uid_of(connection, study_id), version)
            outbox_of_readings.insert(connection, study_id, outgoing)

    def fail_study(self, job: UploadJob, study_id: str, failure: JobFailure, *, findings: str) -> None:
        """Record once that a study cannot be read, with the reasons. Raises LeaseLostError or StudyGoneError."""
        with self._database.writing() as connection:
            version = tables.tick(connection)
            check_held(connection, job)
            _insert_result(connection, job, study_id, findings)
            values = {
                "state": StudyState.FAILED,
                "urgency_rank": FAILED_RANK,
                "error_code": failure.code,
                "error_message": failure.message,
                "error_cure": failure.remedy,
                "search_text": _studies.c.search_text + f" {failure.code}",
                "version": version,
            }
            connection.execute(_studies.update().where(_studies.c.study_id == study_id).values(**values))
            readings.settle(connection, _uid_of(connection, study_id), version)

    def finish_job(self, job: UploadJob) -> bool:
        """End a job; True if a study of the upload was deleted, so that no source may be kept.

        Raises:
            LeaseLostError: the job is no longer the caller's.
        """
        with self._database.writing() as connection:
            tables.tick(connection)
            check_held(connection, job)
            finish(connection, job.upload_id, state="done")
            deleted = sa.select(_deletions.c.study_id).where(_deletions.c.upload_id == job.upload_id)
            return connection.execute(deleted).first() is not None

    def _change(self, job: UploadJob, known: sa.ColumnElement[bool], **values: Any) -> bool:
        with self._database.writing(flushed=False) as connection:
            version = tables.tick(connection)
            check_held(connection, job)
            unfinished = _studies.c.upload_id == job.upload_id, known, _studies.c.state.not_in(FINAL)
            changed = connection.execute(_studies.update().where(*unfinished).values(**values, version=version))
            return changed.rowcount > 0


def _name_reading(connection: Connection, study_id: str | None, uid: str | None) -> None:
    """Note UID and number of a reading of what the node received; the files may have other UIDs by now, or none."""
    if study_id is None or _uid_of(connection, study_id) is None:
        return
    values = {"study_instance_uid": uid or None, "reading": readings.number(connection, study_id, uid)}
    connection.execute(_studies.update().where(_studies.c.study_id == study_id).values(**values))


def _uid_of(connection: Connection, study_id: str) -> str | None:
    asked = sa.select(_studies.c.study_instance_uid).where(_studies.c.study_id == study_id)
    uid: str | None = connection.execute(asked).scalar()
    return uid


def _insert_result(connection: Connection, job: UploadJob, study_id: str, findings: str) -> None:
    known = sa.select(_studies.c.study_id).where(_studies.c.study_id == study_id)
    if connection.execute(known).first() is None:
        raise _gone()
    row = {"study_id": study_id, "attempt": job.attempt, "finished_at": server_time(connection), "findings": findings}
    connection.execute(tables.results.insert().values(**row))


def _gone() -> StudyGoneError:
    return StudyGoneError("the study was deleted while it was read. Nothing to do: the result is discarded")
