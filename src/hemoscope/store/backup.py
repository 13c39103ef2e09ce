"""A consistent copy of a store, database and folder, while the site works.

The rows are those of one moment. Files are copied after them, and meanwhile studies are read and deleted: what the rows
of that moment need and the copy lacks is looked for again with the rows of a later moment, until nothing is missing.
Files of an upload or study never change once they have their names, so a copy that is there stays right.
Received images that were not handed over are copied before the rows: one that is handed over meanwhile is then new in
the copy or has its rows, and at worst it is read twice. The other way round a restored site would never read it.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.errors import ConfigError
from hemoscope.files import atomic_folder, write_text
from hemoscope.store.backup_files import SUMS, copy_file, files_below, private_file, sha256_of, sums_text, writable
from hemoscope.store.backup_tables import kept_tables, reflected, revision_of, write_rows
from hemoscope.store.database import Database, server_time
from hemoscope.store.migrate import known_revisions
from hemoscope.store.storage import MAPS, VOLUME, Storage, series_file
from hemoscope.version import __version__

SCHEMA = "hemoscope.backup/1"
MANIFEST, TABLES, FOLDER = "manifest.json", "tables", "storage"
_SOURCES = ("source", "clean")
# A deletion moves the files away before it deletes the rows: what is missing is looked for again, with these pauses.
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
_ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds.

    Attributes:
        revision: of the database's schema.
        made_at: the moment of the rows, by the database's clock.
        store_id: of the store, None for one from before there were ids.
        rows: their number by table.
        missing: what the rows name and the storage folder lacks: ``UPLOAD`` for the files of an upload that waits,
            ``UPLOAD/STUDY/FILE`` for an array.
    """

    schema: str = SCHEMA
    hemoscope: str = __version__
    revision: str
    made_at: str
    store_id: str | None
    rows: dict[str, int]
    missing: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The manifest as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(slots=True, kw_only=True)
class _Needed:
    """What the rows need of an upload's folder: the uploaded files, and the arrays of each study."""

    waits: bool = False
    arrays: dict[str, list[str]] = field(default_factory=dict)


def make_backup(database: Database, storage: Storage, target: Path) -> Manifest:
    """Copy rows and files into a new folder, which appears complete or not at all; the site may be at work.

    Args:
        database: of the store; it is not migrated.
        storage: its folder.
        target: does not exist, or is an empty folder.

    Raises:
        ConfigError: the target is not empty, or folder and database do not belong together.
        DataError: the target cannot be written.
        StoreError: ``database_unreachable``.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target.name} exists and is not empty. A backup is made into a new folder: give another name"
        raise ConfigError(msg)
    with writable(target.name), atomic_folder(target.absolute(), mode=0o700) as draft:
        copy = _Copy(storage, draft / FOLDER)
        copy.take_received()
        manifest, needed = _rows_and_files(database, storage, draft / TABLES, copy)
        copy.finish(needed)
        write_text(draft / MANIFEST, manifest.to_json(), mode=0o600)
        sums = {f"{FOLDER}/{name}": digest for name, digest in copy.sums.items()}
        for path in [MANIFEST, *(f"{TABLES}/{name}" for name in files_below(draft / TABLES))]:
            sums[path] = sha256_of(draft / path)
        write_text(draft / SUMS, sums_text(sums), mode=0o600)
    return manifest


def _rows_and_files(
    database: Database, storage: Storage, tables: Path, copy: "_Copy"
) -> tuple[Manifest, dict[str, _Needed]]:
    """Write the rows of a moment whose files could all be copied, or of the last one tried."""
    before, pauses = list[str](), iter(_PAUSES_S)
    for _ in range(_ROUNDS):
        manifest, needed = _write_tables(database, storage, tables)
        missing = copy.fill(needed)
        if missing and missing != before:  # the site went on: at once again
            before, pauses = missing, iter(_PAUSES_S)
        elif missing and (pause_s := next(pauses, None)) is not None:
            sleep(pause_s)
        else:
            break
    return replace(manifest, missing=tuple(missing)), needed


def _write_tables(database: Database, storage: Storage, folder: Path) -> tuple[Manifest, dict[str, _Needed]]:
    """Write the rows of this moment; return what they are, and which files they need."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    with database.snapshot() as connection, writable("the backup"):
        revision = revision_of(connection)
        if revision is None or revision not in known_revisions():
            msg = f"database {database.name} is none of this Hemoscope (revision {revision}). Check --database"
            raise ConfigError(msg)
        metadata, rows = reflected(connection), {}
        for table in kept_tables(metadata):
            with private_file(folder / f"{table.name}.jsonl") as file:
                rows[table.name] = write_rows(connection, table, file)
        moment = server_time(connection).isoformat()
        store_id = _store_id(connection, metadata, database, storage)
        return Manifest(revision=revision, made_at=moment, store_id=store_id, rows=rows), _needed(connection, metadata)


def _store_id(connection: Connection, metadata: sa.MetaData, database: Database, storage: Storage) -> str | None:
    """The id that database and folder share. Raises ConfigError if they differ."""
    here, pairing = storage.store_id(), metadata.tables.get("pairing")
    known = None if pairing is None else connection.execute(sa.select(pairing.c.store_id)).scalar()
    if known != here:
        ids = " and ".join("no id" if one is None else one[:8] for one in (here, known))
        msg = f"storage folder {storage.root.name} and database {database.name} do not belong together (ids: {ids})"
        raise ConfigError(f"{msg}. Give --storage and --database of one site")
    return here


def _needed(connection: Connection, metadata: sa.MetaData) -> dict[str, _Needed]:
    jobs, studies = metadata.tables["jobs"], metadata.tables["studies"]
    needed = {
        upload_id: _Needed(waits=state in ("queued", "running"))
        for upload_id, state in connection.execute(sa.select(jobs.c.upload_id, jobs.c.state)).all()
    }
    columns = studies.c.upload_id, studies.c.study_id, studies.c.has_pixels, studies.c.has_maps
    for row in connection.execute(sa.select(*columns)):
        arrays = [name for name, there in ((VOLUME, row.has_pixels), (MAPS, row.has_maps)) if there]
        needed.setdefault(row.upload_id, _Needed()).arrays[row.study_id] = arrays
    kept = metadata.tables.get("kept_series")
    if kept is not None:
        found = sa.select(studies.c.upload_id, kept.c.study_id, kept.c.number).join(kept)
        for upload_id, study_id, number in connection.execute(found):
            needed[upload_id].arrays[study_id].append(series_file(number))
    return needed


class _Copy:
    """The copy of a storage folder, filled in several rounds."""

    def __init__(self, storage: Storage, target: Path) -> None:
        self.sums: dict[str, str] = {}
        self._storage = storage
        self._target = target
        self._stamps: dict[Path, tuple[int, int]] = {}
        target.mkdir(mode=0o700)

    def take_received(self) -> None:
        """Copy the images that the DICOM node received."""
        self._copy_tree(self._storage.received)

    def fill(self, needed: dict[str, _Needed]) -> list[str]:
        """Copy what is not copied yet; return what is needed and neither copied nor in the storage folder."""
        missing = []
        for upload_id in sorted(needed, key=lambda one: not needed[one].waits):  # those that may be read soon, first
            one, folder = needed[upload_id], self._storage.upload(upload_id)
            if one.waits and not any(self._copy_whole(folder / name) for name in _SOURCES):
                missing.append(upload_id)
            for study_id, names in one.arrays.items():
                self._copy_arrays(folder / study_id)
                missing += [
                    f"{upload_id}/{study_id}/{name}"
                    for name in names
                    if f"{upload_id}/{study_id}/{name}" not in self.sums
                ]
        return missing

    def finish(self, needed: dict[str, _Needed]) -> None:
        """Copy what is of no upload, and drop what the last rows do not need: deleted studies, files that were read."""
        received = self._target / self._storage.received.name
        for folder in [one for one in self._target.iterdir() if one != received]:
            one = needed.get(folder.name, _Needed())
            kept = (*one.arrays, *(_SOURCES if one.waits else ()))
            for part in list(folder.iterdir()):
                if part.name not in kept:
                    shutil.rmtree(part)
        for upload_id, one in needed.items():
            if not one.waits:  # what a site keeps after it was read, which may be de-identified copies by now
                self._copy_tree(self._storage.source(upload_id))
        for path in self._storage.kept_beside_uploads():
            if path.is_dir():
                self._copy_tree(path)
            else:
                self._copy(path)
        copied = {path.as_posix() for path in files_below(self._target)}
        self.sums = {name: digest for name, digest in self.sums.items() if name in copied}

    def _copy_whole(self, folder: Path) -> bool:
        """Copy uploaded files, all or none, since a worker may remove them now; return whether the copy has them."""
        copy = self._target / folder.relative_to(self._storage.root)
        if copy.exists():
            return True
        if not self._copy_tree(folder):
            shutil.rmtree(copy, ignore_errors=True)
            return False
        return copy.exists()

    def _copy_tree(self, folder: Path) -> bool:
        """Copy every file in a folder; False if some vanished meanwhile."""
        there = True
        for name in files_below(folder):
            there = self._copy(folder / name) and there
        return there and folder.is_dir()

    def _copy_arrays(self, study: Path) -> None:
        """Copy the files of a study that have their final names."""
        names = [path for path in study.glob("[!.]*") if path.is_file()] if study.is_dir() else []
        for path in names:
            self._copy(path)

    def _copy(self, path: Path) -> bool:
        """Copy a file, unless the same was copied before; False if it vanished."""
        name = path.relative_to(self._storage.root)
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns)
            if self._stamps.get(name) != stamp or not (self._target / name).exists():
                (self._target / name).unlink(missing_ok=True)
                self.sums[name.as_posix()] = copy_file(path, self._target / name)
                self._stamps[name] = stamp
        except FileNotFoundError:
            return False
        return True


def read_manifest(backup: Path) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        ConfigError: it was made by a newer Hemoscope.
    """
    document: dict[str, Any] = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA or document.get("revision") not in known_revisions():
        by = f"{document.get('hemoscope')}, revision {document.get('revision')}"
        msg = f"{backup.name} was made by a newer Hemoscope ({by}). Install that version, or a later one"
        raise ConfigError(msg)
    return Manifest(**{**document, "missing": tuple(document["missing"])})
