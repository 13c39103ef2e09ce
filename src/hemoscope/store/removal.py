"""Deletes studies on request and by age, and removes what crashes left behind.

Files are first moved to the trash in one step, then the rows are deleted in one transaction, then the files. After a
crash in between, the trash holds a folder that names its study, and ``sweep`` completes the deletion.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import time

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.errors import StoreError
from hemoscope.store import tables
from hemoscope.store.database import Database, now
from hemoscope.store.storage import Storage
from hemoscope.store.worklist import find_study

_FORGOTTEN_AFTER = timedelta(days=7)
_ABANDONED_AFTER = timedelta(hours=1)
_WORKER_GONE_AFTER = timedelta(minutes=10)
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
    for folder in filter(None, aside):
        storage.remove(folder)


def delete_older(database: Database, storage: Storage, *, days: int) -> int:
    """Delete the studies received more than ``days`` days ago, and return how many; other processes may do the same."""
    old = sa.select(_studies.c.study_id).where(_studies.c.received_at < now() - timedelta(days=days))
    with database.reading() as connection:
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


def sweep(database: Database, storage: Storage, *, keep_source: bool) -> None:
    """Complete interrupted deletions; remove folders without rows, finished sources and expired rows."""
    for folder in list(storage.trash.iterdir()):
        name = folder.name.split("-")[0]
        with database.writing() as connection:
            if (upload_id := _upload_of(connection, name)) is not None:
                _delete_rows(connection, name, upload_id)
        storage.remove(folder)
    for folder in [*_orphans(database, storage), *_finished_sources(database, storage, keep_source=keep_source)]:
        storage.remove_aside(folder, folder.name)
    _delete_expired(database)


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
    gone = {"study_id": study_id, "upload_id": upload_id, "version": version, "deleted_at": now()}
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


def _orphans(database: Database, storage: Storage) -> Iterator[Path]:
    """Yield folders of uploads never accepted and of deleted studies, if nothing was written there for an hour."""
    for folder in storage.root.iterdir():
        if folder == storage.trash or not folder.is_dir() or time() - _last_written(folder) < _abandoned_s():
            continue
        with database.reading() as connection:
            rows = connection.execute(sa.select(_studies.c.study_id).where(_studies.c.upload_id == folder.name))
            known = set(rows.scalars())
        if not known:
            yield folder
            continue
        yield from (one for one in folder.iterdir() if one.is_dir() and one.name not in known | {"source", "clean"})


def _finished_sources(database: Database, storage: Storage, *, keep_source: bool) -> Iterator[Path]:
    """Yield the source folders of finished jobs: those that failed, or whose worker died right after finishing."""
    finished = sa.select(_jobs.c.upload_id).where(_jobs.c.state.in_(("done", "failed")))
    partly_deleted = _jobs.c.upload_id.in_(sa.select(tables.deletions.c.upload_id))
    with database.reading() as connection:
        rows = connection.execute(finished.where(partly_deleted) if keep_source else finished).scalars().all()
    yield from (source for source in map(storage.source, rows) if source.is_dir())


def _abandoned_s() -> float:
    return _ABANDONED_AFTER.total_seconds()


def _last_written(folder: Path) -> float:
    """When anything in a folder was last written, including the files of an upload that is still arriving."""
    try:
        inside = [*folder.iterdir(), *(folder / "source").glob("*")]
        return max([folder.stat().st_mtime, *(one.stat().st_mtime for one in inside)])
    except FileNotFoundError:  # another process is removing it
        return time()


def _delete_expired(database: Database) -> None:
    deletions, sessions, workers = tables.deletions, tables.sessions, tables.workers
    with database.writing() as connection:
        connection.execute(deletions.delete().where(deletions.c.deleted_at < now() - _FORGOTTEN_AFTER))
        connection.execute(sessions.delete().where(sessions.c.expires_at < now()))
        connection.execute(workers.delete().where(workers.c.beat_at < now() - _WORKER_GONE_AFTER))
