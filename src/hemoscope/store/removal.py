"""Deletes studies on request and by age.

Files are first moved to the trash in one step, then the rows are deleted in one transaction, then the files. After a
crash in between, the trash holds a folder that names its study and who deletes it, and ``finish_deletions`` completes
the deletion.
"""

import re
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.errors import StoreError
from hemoscope.store import audit, outbox_of_readings, readings, tables
from hemoscope.store.audit_chain import DELETE
from hemoscope.store.database import Database, server_time
from hemoscope.store.for_each import for_each
from hemoscope.store.refusals import refusal
from hemoscope.store.storage import Storage
from hemoscope.store.study_row import find_study

_studies, _feedback, _jobs = tables.studies, tables.feedback, tables.jobs
# A study's folder in the trash, as ``delete_study`` names it: its id, who deletes it in hexadecimal digits, a token.
_DELETED = re.compile("([0-9a-f]{32})-((?:[0-9a-f]{2})*)-[0-9a-f]{8}")


def delete_study(database: Database, storage: Storage, study_id: str, *, by: str, detail: str = "") -> None:
    """Delete a study, and its upload if it was the last one.

    Raises:
        StoreError: ``no_such_study``, also if another process or thread deleted it in the same moment.
    """
    with database.reading() as connection:
        upload_id = str(find_study(connection, study_id).upload_id)
    aside = [storage.set_aside(storage.study(upload_id, study_id), f"{study_id}-{by.encode().hex()}")]
    with database.writing() as connection:
        deleted, last, idle = _delete_rows(connection, study_id, upload_id, by=by, detail=detail)
    if last:
        aside.append(storage.set_aside(storage.upload(upload_id), upload_id))
    elif idle:  # the files as uploaded hold this study too; a running job removes them when it ends
        aside.append(storage.set_aside(storage.source(upload_id), upload_id))
    for folder in [*filter(None, aside), *storage.swept.glob(f"*-{study_id}")]:
        storage.remove(folder)
    if not deleted:
        raise refusal("no_such_study", "the study was deleted in this moment")


def delete_older(database: Database, storage: Storage, *, days: int) -> int:
    """Delete the studies received more than ``days`` days ago, and return how many; other processes may do the same."""
    with database.reading() as connection:
        latest = server_time(connection) - timedelta(days=days)
        old = sa.select(_studies.c.study_id).where(_studies.c.received_at < latest)
        study_ids = connection.execute(old).scalars().all()
    deleted = for_each(
        study_ids,
        lambda study_id: _delete_if_there(database, storage, study_id, days),
        what="studies past their retention",
    )
    return sum(deleted)


def _delete_if_there(database: Database, storage: Storage, study_id: str, days: int) -> bool:
    try:
        delete_study(database, storage, study_id, by=audit.RETENTION, detail=f"after {days} days")
    except StoreError as error:
        if error.code != "no_such_study":
            raise
        return False  # another process or an administrator deleted it first
    return True


def finish_deletions(database: Database, storage: Storage) -> None:
    """Complete the deletions that a crash interrupted, which the trash names by study; remove what else is in it."""
    for_each(storage.trash.iterdir(), lambda folder: _finish(database, storage, folder), what="folders of the trash")


def _finish(database: Database, storage: Storage, folder: Path) -> None:
    if (named := _DELETED.fullmatch(folder.name)) is not None:
        study_id, user = named[1], bytes.fromhex(named[2]).decode(errors="replace")
        with database.writing() as connection:
            if (upload_id := _upload_of(connection, study_id)) is not None:
                _delete_rows(connection, study_id, upload_id, by=user, detail="completed by the sweep")
    storage.remove(folder)


def _delete_rows(
    connection: Connection, study_id: str, upload_id: str, *, by: str, detail: str
) -> tuple[bool, bool, bool]:
    """Delete a study's rows, keeping counts and the audit log without its ID.

    Returns:
        Whether the study was still there, whether its upload was deleted too, and whether no job reads the upload.
    """
    version = tables.tick(connection)
    study = connection.execute(_studies.select().where(_studies.c.study_id == study_id)).first()
    if study is None:
        return False, False, False
    of_study = _feedback.c.study_id == study_id
    given = sa.select(_feedback.c.verdict, sa.func.count()).where(of_study).group_by(_feedback.c.verdict)
    for verdict, count in connection.execute(given).all():
        tables.add_to_total(connection, f"feedback:{verdict}", count)
    tables.add_to_total(connection, "deleted")
    gone = {"study_id": study_id, "upload_id": upload_id, "version": version, "deleted_at": server_time(connection)}
    gone["source_sha256"] = study.source_sha256  # so that a job that reads its upload again does not bring it back
    connection.execute(tables.deletions.insert().values(**gone))
    audit.append(connection, user=by, action=DELETE, study_id=study_id, detail=detail)
    audit.forget_study(connection, study_id)
    connection.execute(_studies.delete().where(_studies.c.study_id == study_id))
    readings.settle(connection, study.study_instance_uid, version)
    if by != audit.RETENTION:  # what is too old to be kept here must still reach the archive
        outbox_of_readings.remove(connection, study_id, study.study_instance_uid, study.reading)
    others = sa.select(sa.func.count()).select_from(_studies).where(_studies.c.upload_id == upload_id)
    job = connection.execute(sa.select(_jobs.c.state).where(_jobs.c.upload_id == upload_id)).scalar()
    last = connection.execute(others).scalar_one() == 0
    if last:
        connection.execute(tables.uploads.delete().where(tables.uploads.c.upload_id == upload_id))
    return True, last, job not in ("queued", "running")


def _upload_of(connection: Connection, study_id: str) -> str | None:
    return connection.execute(sa.select(_studies.c.upload_id).where(_studies.c.study_id == study_id)).scalar()
