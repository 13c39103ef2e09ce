"""Removes stored identity from a store whose site no longer keeps it: names and IDs in rows, and the uploaded files.

What the reading room shows stays: pixels, heat maps, findings, UIDs, feedback. Nothing else in a store comes from a
patient's name: file names are never stored, and the audit log names users and study ids.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.dicom.wording import counted
from hemoscope.errors import StoreError
from hemoscope.store import tables
from hemoscope.store.for_each import for_each
from hemoscope.store.storage import Storage
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState

_studies, _jobs = tables.studies, tables.jobs
# As the store names folders: random ids, times, and who deleted a study, in hexadecimal digits. Others name anything.
_OWN_NAME = re.compile(r"(\.swept/|\.trash/(swept-)?)?[0-9a-f-]+(/source|/clean)?")
_NAMED = sa.or_(_studies.c.patient_name.is_not(None), _studies.c.patient_id.is_not(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How much identity a store holds.

    Attributes:
        names: studies with a stored name or ID.
        sources: uploads that were read and whose files are kept.
        swept: folders in the trash with uploaded files.
        waiting: uploads that must still be read; their files are removed then.
        node: images that the DICOM node received, and results that wait to be sent; they go when their time is over.
        notes: feedback entries with free text, which nobody checks.
    """

    names: int
    sources: int
    swept: int
    waiting: int
    node: int
    notes: int


def stored_identity(store: Store) -> Identity:
    """Count what ``purge_identity`` would remove, and what it would leave."""
    with store.database.reading() as connection:
        names = connection.execute(sa.select(sa.func.count()).select_from(_studies).where(_NAMED)).scalar_one()
        noted = sa.select(sa.func.count()).select_from(tables.feedback).where(tables.feedback.c.note != "")
        notes = connection.execute(noted).scalar_one()
        read, waiting = _uploads(connection, read=True), _uploads(connection, read=False)
    return Identity(
        names=int(names),
        sources=sum(1 for _ in _sources(store.folder, read)),
        swept=sum(1 for _ in _swept_sources(store.folder)),
        waiting=len(waiting),
        node=sum(1 for _ in store.folder.node_files()),
        notes=int(notes),
    )


def purge_identity(store: Store) -> Identity:
    """Remove stored identity, so that no page of the database file holds it either; return what was removed.

    Raises:
        StoreError: ``database_unreachable``, also if another process uses the SQLite file: stop the server first; and
            ``storage_unusable``, with the folders that cannot be removed, after everything else is.
    """
    found = stored_identity(store)
    with store.database.writing() as connection:
        version = tables.tick(connection)
        for row in connection.execute(sa.select(_studies).where(_NAMED)).all():
            changed = {"patient_name": None, "patient_id": None, "search_text": _nameless(row), "version": version}
            connection.execute(_studies.update().where(_studies.c.study_id == row.study_id).values(**changed))
        read = _uploads(connection, read=True)
    left = _remove_files(store.folder, read)
    done = f"{found.names} studies, {found.sources} uploads" + (f", {len(left)} folders left" if left else "")
    store.audit(user="purge-identity", action="purge", detail=done)
    store.database.compact()
    if left:
        raise _identity_left(store.folder, left)
    return found


def _remove_files(storage: Storage, read: list[str]) -> list[Path]:
    """Remove the uploaded files of these uploads, and those in the trash; return the folders that are still there."""
    sources, others = _sources(storage, read), chain(_swept_sources(storage), storage.trash.iterdir())
    removals = [partial(storage.remove_aside, folder, folder.parent.name) for folder in sources]
    removals += [partial(storage.remove, folder) for folder in others]
    for_each(removals, lambda remove: remove(), what="folders of uploaded files")
    return [*_sources(storage, read), *_swept_sources(storage), *storage.trash.iterdir()]


def _identity_left(storage: Storage, left: list[Path]) -> StoreError:
    names = [str(folder.relative_to(storage.root)) for folder in left]
    shown = ", ".join(name if _OWN_NAME.fullmatch(name) else "one with a name of its own" for name in names)
    folders = f"{counted(len(left), 'folder')} with uploaded files"
    return StoreError(
        code="storage_unusable",
        reason=f"{folders} could not be removed: {shown}. All else was removed",
        remedy="Check the disk of the storage folder, and that this user may write to it, and run the command again",
    )


def _nameless(row: sa.Row[Any]) -> str:
    """The search text of a study as it would be without name and ID."""
    if row.state == StudyState.FAILED:
        return f"{row.study_id} {row.error_code}"
    return " ".join((row.study_id, *([row.urgency] if row.urgency else []), *json.loads(row.suspected)))


def _uploads(connection: Connection, *, read: bool) -> list[str]:
    ended = _jobs.c.state.in_(("done", "failed"))
    return list(connection.execute(sa.select(_jobs.c.upload_id).where(ended if read else ~ended)).scalars())


def _sources(storage: Storage, upload_ids: list[str]) -> Iterator[Path]:
    """The uploaded files of uploads that were read, and what a crash left of their de-identified copies."""
    folders = (storage.upload(one) / name for one in upload_ids for name in ("source", "clean"))
    return _there(folders)


def _swept_sources(storage: Storage) -> Iterator[Path]:
    """Uploaded files of uploads that the database does not know."""
    folders = (swept / name for swept in storage.swept.iterdir() for name in ("source", "clean"))
    return _there(folders)


def _there(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders that exist, those among them that nobody can look at."""
    for folder in folders:
        try:
            there = folder.is_dir()
        except OSError:
            there = True
        if there:
            yield folder
