"""Removes what crashes left behind, and keeps for days what only seems to be left behind.

What the database does not know is moved into ``.swept`` under the time and its ids, since the database may be wrong: it
may have been restored from an old backup. It is moved back once the database knows it, and deleted after days.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from time import monotonic

import sqlalchemy as sa

from hemoscope.store import tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.for_each import for_each
from hemoscope.store.pairing import check_paired
from hemoscope.store.removal import finish_deletions
from hemoscope.store.storage import VOLUME, Storage

_log = logging.getLogger("hemoscope.store")
_FORGOTTEN_AFTER = timedelta(days=7)
_WORKER_GONE_AFTER = timedelta(minutes=10)
_UNCHANGED_S = 3600.0
_NAMED = 20
_studies, _jobs = tables.studies, tables.jobs


class Sweep:
    """The sweep of one process; it remembers how long a folder that nobody knows has not changed."""

    def __init__(
        self, database: Database, storage: Storage, *, store_id: str, keep_source: bool, kept: timedelta
    ) -> None:
        """Prepare; ``kept`` is how long what was swept can be taken back."""
        self._database = database
        self._storage = storage
        self._store_id = store_id
        self._keep_source = keep_source
        self._kept = kept
        self._unchanged: dict[Path, tuple[float, float]] = {}

    def run(self) -> None:
        """Complete deletions, put back what is known again, set aside what is unknown, remove sources that were read.

        Raises:
            StoreError: ``database_unreachable``, or ``storage_unusable``, also if the folder is another one by now.
        """
        check_paired(self._storage, self._store_id)
        steps = (self._finish_deletions, self._put_back, self._set_aside, self._remove_sources, self._forget)
        for_each(steps, lambda step: step(), what="steps of the sweep")

    def empty(self) -> None:
        """Delete what was swept longer ago than it is kept."""
        with self._database.reading() as connection:
            latest = server_time(connection) - self._kept
        old = [one for one in self._storage.swept.iterdir() if (at := _swept_at(one)) is not None and at < latest]
        # Under a name without ids: this is no deletion that ``finish_deletions`` has to complete.
        deleted = for_each(old, lambda folder: self._remove(folder, "swept"), what="folders in .swept")
        _report("deleted for good", deleted, f"after {self._kept.days} days")

    def _finish_deletions(self) -> None:
        finish_deletions(self._database, self._storage)

    def _remove(self, folder: Path, name: str) -> Path:
        self._storage.remove_aside(folder, name)
        return folder

    def _set_aside(self) -> None:
        """Move folders of uploads never accepted, and of studies that are not listed, into ``.swept``."""
        checked = for_each(self._unknown(), lambda one: (one, self._was_deleted(one)), what="unknown folders")
        unknown = [one for one, deleted in checked if not deleted]
        self._unchanged = {folder: self._since(folder) for folder in unknown}
        settled = [one for one in unknown if monotonic() - self._unchanged[one][1] >= _UNCHANGED_S]
        with self._database.reading() as connection:
            stamp = int(server_time(connection).timestamp())
        moved = for_each(settled, lambda folder: self._move(folder, stamp), what="unknown folders")
        _report("moved into .swept", moved, f"unknown to the database; kept for {self._kept.days} days")
        self._put_back()  # what was accepted in this moment

    def _move(self, folder: Path, stamp: int) -> Path:
        ids = folder.relative_to(self._storage.root).parts
        with suppress(FileNotFoundError):  # another process swept it
            folder.rename(self._storage.swept / "-".join((str(stamp), *ids)))
        return folder

    def _unknown(self) -> Iterator[Path]:
        folders = list(self._storage.uploads())  # before the rows: whatever is accepted meanwhile is known
        known = self._known()
        found = for_each(folders, lambda folder: _unknown_in(folder, known.get(folder.name)), what="uploads")
        return chain.from_iterable(found)

    def _was_deleted(self, folder: Path) -> bool:
        """Remove what is left of a study or upload whose deletion the database remembers; True if it was one."""
        deletions = tables.deletions
        either = sa.or_(deletions.c.study_id == folder.name, deletions.c.upload_id == folder.name)
        with self._database.reading() as connection:
            if connection.execute(sa.select(deletions.c.study_id).where(either)).first() is None:
                return False
        self._storage.remove_aside(folder, folder.name)
        return True

    def _known(self) -> dict[str, set[str]]:
        known: dict[str, set[str]] = {}
        with self._database.reading() as connection:
            for upload_id in connection.execute(sa.select(tables.uploads.c.upload_id)).scalars():
                known[upload_id] = set()
            for upload_id, study_id in connection.execute(sa.select(_studies.c.upload_id, _studies.c.study_id)):
                known.setdefault(upload_id, set()).add(study_id)
        return known

    def _since(self, folder: Path) -> tuple[float, float]:
        """When a folder was last written, and since when this process has seen it so: no clock can shorten that."""
        written = _last_written(folder)
        before = self._unchanged.get(folder)
        return before if before is not None and before[0] == written else (written, monotonic())

    def _put_back(self) -> None:
        """Move back what was swept and is listed: by a database that was restored, or an upload just accepted."""
        swept = [one for one in self._storage.swept.iterdir() if _swept_at(one) is not None]
        if not swept:
            return
        known = self._known()
        back = for_each(swept, lambda folder: self._put_back_one(folder, known), what="folders in .swept")
        _report("moved back from .swept", filter(None, back), "the database lists them")

    def _put_back_one(self, folder: Path, known: Mapping[str, set[str]]) -> Path | None:
        """Move a folder back and return its place; None if it is not listed, or is there already."""
        _stamp, upload_id, *study = folder.name.split("-")
        place = self._storage.root.joinpath(upload_id, *study)
        if set(study) <= known.get(upload_id, set()) and upload_id in known and not place.exists():
            with suppress(FileNotFoundError):  # another process moved it back
                folder.rename(place)
                return place
        return None

    def _remove_sources(self) -> None:
        """Remove the source folders of finished jobs: those that failed, or whose worker died right after finishing."""
        finished = sa.select(_jobs.c.upload_id).where(_jobs.c.state.in_(("done", "failed")))
        partly_deleted = _jobs.c.upload_id.in_(sa.select(tables.deletions.c.upload_id))
        shown = sa.select(_studies.c.upload_id, _studies.c.study_id).where(_studies.c.has_pixels)
        with self._database.reading() as connection:
            wanted = finished.where(partly_deleted) if self._keep_source else finished
            sources = {one: self._storage.source(one) for one in connection.execute(wanted).scalars()}
            pixels = connection.execute(shown).all()
        sources = {upload_id: source for upload_id, source in sources.items() if source.is_dir()}
        # A folder older than its database has sources instead of the pixels that were made of them: keep the only copy.
        lacking = {
            upload_id
            for upload_id, study_id in pixels
            if upload_id in sources and not (self._storage.study(upload_id, study_id) / VOLUME).exists()
        }
        read = sources.keys() - lacking
        for_each(read, lambda one: self._remove(sources[one], one), what="sources of uploads that were read")
        _report("kept as source", [self._storage.upload(one) for one in sorted(lacking)], "their pixels are missing")

    def _forget(self) -> None:
        deletions, sessions, workers = tables.deletions, tables.sessions, tables.workers
        with self._database.writing() as connection:
            moment = server_time(connection)
            connection.execute(deletions.delete().where(deletions.c.deleted_at < moment - _FORGOTTEN_AFTER))
            connection.execute(sessions.delete().where(sessions.c.expires_at < moment))
            connection.execute(workers.delete().where(workers.c.beat_at < moment - _WORKER_GONE_AFTER))


def _unknown_in(upload: Path, studies: set[str] | None) -> list[Path]:
    """What is unknown of an upload with these studies: the whole of it if the database does not know it (None)."""
    if studies is None:
        return [upload]
    return [one for one in upload.iterdir() if one.is_dir() and one.name not in studies | {"source", "clean"}]


def _swept_at(folder: Path) -> datetime | None:
    """When a folder was swept; None for what the sweep did not put there."""
    stamp = folder.name.partition("-")[0]
    return datetime.fromtimestamp(int(stamp), UTC) if stamp.isdecimal() else None


def _last_written(folder: Path) -> float:
    """When anything in a folder was last written, including the files of an upload that is still arriving."""
    try:
        inside = [*folder.iterdir(), *(folder / "source").glob("*")]
        return max([folder.stat().st_mtime, *(one.stat().st_mtime for one in inside)])
    except FileNotFoundError:  # another process is removing it
        return -1.0


def _report(what: str, folders: Iterable[Path], why: str) -> None:
    """Log how many folders, and their random ids."""
    names = [folder.name for folder in folders]
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        _log.warning("%d folders %s (%s): %s%s", len(names), what, why, ", ".join(names[:_NAMED]), more)
