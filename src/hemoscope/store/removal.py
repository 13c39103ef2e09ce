"""Deletes studies on request and by age.

Files are first moved to the trash in one step, then the rows are deleted in one transaction, then the files. After a
crash in between, the trash holds a folder that names its study, and ``finish_deletions`` completes the deletion.
"""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.errors import StoreError
from hemoscope.store import tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.storage import Storage
from hemoscope.store.worklist import find_study

_studies, _feedback, _audit, _jobs = tables.studies, tables.feedback, tables.audit, tables.jobs


def delete_study(database: Database, storage: Storage, study_id: str) -> None:
    """Delete a study, and its upload if it was the last one. Raises StoreError ``no_such_study``."""
    with database.reading() as connection:
        upload_id = str(find_study(connection, study_id).upload_id)
    aside = [storage.set_aside(storage.study(upload_id, study_id), study_id)]
    with database.writing() as connection:
        last, idle = _delete_rows(connection, study_id, upload_id)
    if last:
        aside.append(storage.set_aside(storage.upload(upload_id), upload_id))
    elif idle:  # the files as uploaded hold this study too; a running job removes them when it ends
        aside.append(storage.set_aside(storage.source(upload_id), upload_id))
    for folder in [*filter(None, aside), *storage.swept.glob(f"*-{study_id}")]:
        storage.remove(folder)


def delete_older(database: Database, storage: Storage, *, days: int) -> int:
    """Delete the studies received more than ``days`` days ago, and return how many; other processes may do the same."""
    with database.reading() as connection:
        latest = server_time(connection) - timedelta(days=days)
        old = sa.select(_studies.c.study_id).where(_studies.c.received_at < latest)
        study_ids = connection.execute(old).scalars().all()
    return sum(_delete_if_there(database, storage, study_id) for study_id in study_ids)


def _delete_if_there(database: Database, storage: Storage, study_id: str) -> bool:
    try:
        delete_study(database, storage, study_id)
    except StoreError as error:
        if error.code != "no_such_study":
            raise
        return False  # another process or an administrator deleted it first
    return True


def finish_deletions(database: Database, storage: Storage) -> None:
    """Complete the deletions that a crash interrupted, which the trash names by study."""
    for folder in list(storage.trash.iterdir()):
        name = folder.name.split("-")[0]
        with database.writing() as connection:
            if (upload_id := _upload_of(connection, name)) is not None:
                _delete_rows(connection, name, upload_id)
        storage.remove(folder)


def _delete_rows(connection: Connection, study_id: str, upload_id: str) -> tuple[bool, bool]:
    """Delete a study's rows, keeping counts; return whether its upload was deleted too, and whether no job reads it."""
    version = tables.tick(connection)
    if connection.execute(_studies.select().where(_studies.c.study_id == study_id)).first() is None:
        return False, False
    of_study = _feedback.c.study_id == study_id
    given = sa.select(_feedback.c.verdict, sa.func.count()).where(of_study).group_by(_feedback.c.verdict)
    for verdict, count in connection.execute(given).all():
        tables.add_to_total(connection, f"feedback:{verdict}", count)
    tables.add_to_total(connection, "deleted")
    gone = {"study_id": study_id, "upload_id": upload_id, "version": version, "deleted_at": server_time(connection)}
    connection.execute(tables.deletions.insert().values(**gone))
    connection.execute(_audit.update().where(_audit.c.study_id == study_id).values(study_id=None))
    connection.execute(_studies.delete().where(_studies.c.study_id == study_id))
    others = sa.select(sa.func.count()).select_from(_studies).where(_studies.c.upload_id == upload_id)
    job = connection.execute(sa.select(_jobs.c.state).where(_jobs.c.upload_id == upload_id)).scalar()
    last = connection.execute(others).scalar_one() == 0
    if last:
        connection.execute(tables.uploads.delete().where(tables.uploads.c.upload_id == upload_id))
    return last, job not in ("queued", "running")


def _upload_of(connection: Connection, study_id: str) -> str | None:
    return connection.execute(sa.select(_studies.c.upload_id).where(_studies.c.study_id == study_id)).scalar()
