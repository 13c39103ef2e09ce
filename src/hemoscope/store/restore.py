"""Makes a store of a backup: a new folder and a new database, of any kind, both checked against the backup's sums.

The restored pair gets a new id, so that neither of its halves can meet the other half of the site that was backed up,
which is of another time.
"""

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from hemoscope.errors import ConfigError
from hemoscope.files import publish, sync_folder
from hemoscope.store.backup import FOLDER, TABLES, Manifest, read_manifest
from hemoscope.store.backup_files import copy_file, damaged, read_sums, sha256_of, writable
from hemoscope.store.backup_tables import load_rows, reflected
from hemoscope.store.database import Database, database_url
from hemoscope.store.migrate import migrate
from hemoscope.store.settings import Settings
from hemoscope.store.storage import Storage
from hemoscope.store.store import open_store

# Files beside an SQLite database that SQLite would take for its own; a log of another database is replayed unasked.
_BESIDE = ("", "-wal", "-shm", "-journal")


def check_backup(backup: Path) -> Manifest:
    """Compare every file of a backup with its SHA-256, and return what it holds.

    Raises:
        DataError: a file is missing, changed or was added.
        ConfigError: it was made by a newer Hemoscope.
    """
    sums = read_sums(backup)
    with writable(backup.name):
        if wrong := [name for name, digest in sums.items() if sha256_of(backup / name) != digest]:
            raise damaged(backup, "changed since the backup was made (SHA-256)", wrong)
    return read_manifest(backup)


def restore(backup: Path, settings: Settings) -> Manifest:
    """Fill an empty folder and an empty database from a backup, and migrate them to this version.

    The folder may be a mount point, or one that the service manager made. Until it is complete no server starts on it.

    Raises:
        ConfigError: folder or database hold something already, or the backup was made by a newer Hemoscope.
        DataError: the backup is damaged, or the folder cannot be written.
        StoreError: ``database_unreachable``.
    """
    manifest, sums = check_backup(backup), read_sums(backup)
    _check_free(settings, f"backup {backup.name} of {manifest.made_at[:16]} (id {(manifest.store_id or 'none')[:8]})")
    store_id = secrets.token_hex(16)
    with writable(settings.folder.name), _draft_in(settings.folder, _sqlite_file(settings)) as draft:
        _copy_files(backup, draft, sums)
        storage = Storage(draft)
        if "pairing" in manifest.rows:
            storage.write_store_id(store_id)
        _load(backup, _within(draft, settings), manifest, store_id)
    open_store(settings).close()
    return manifest


@contextmanager
def _draft_in(folder: Path, database: Path | None) -> Iterator[Path]:
    """Yield a folder whose content moves into ``folder`` when the block ends, an SQLite file last."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft, whole = folder / ".restore.part", folder / ".restore"
    draft.mkdir(mode=0o700)
    try:
        yield draft
        publish(draft, whole)
        for path in sorted(whole.iterdir(), key=lambda one: database == folder / one.name):
            path.rename(folder / path.name)
        whole.rmdir()
        sync_folder(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _copy_files(backup: Path, draft: Path, sums: Mapping[str, str]) -> None:
    for name, digest in sums.items():
        if name.startswith(f"{FOLDER}/") and copy_file(backup / name, draft / Path(name).relative_to(FOLDER)) != digest:
            raise damaged(backup, "changed while it was restored (SHA-256)", [name])


def _load(backup: Path, url: str, manifest: Manifest, store_id: str) -> None:
    """Make the tables as they were, and fill them in one transaction."""
    database = Database(url)
    try:
        migrate(database, revision=manifest.revision)
        with database.writing() as connection:
            files = {name: backup / TABLES / f"{name}.jsonl" for name in manifest.rows}
            load_rows(connection, files, store_id=store_id)
    finally:
        database.close()


def _within(draft: Path, settings: Settings) -> str:
    """The URL of the database, in the draft of the folder if its file lies in the folder."""
    file = _sqlite_file(settings)
    if file is None or not file.is_relative_to(settings.folder):
        return settings.database_url
    return f"sqlite:///{draft / file.relative_to(settings.folder)}"


def _sqlite_file(settings: Settings) -> Path | None:
    url = database_url(settings.database_url)
    return Path(str(url.database)).absolute() if url.get_backend_name() == "sqlite" else None


def _check_free(settings: Settings, what: str) -> None:
    """Refuse to write over anything. Raises ConfigError that names both sides."""
    folder = settings.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _taken(what, f"storage folder {folder.name} is not empty{_described(folder)}")
    file = _sqlite_file(settings)
    if file is None:
        _check_empty(settings, what)
        return
    for suffix in _BESIDE:
        if (left := file.with_name(file.name + suffix)).exists():
            raise _taken(what, f"the file {left.name} exists")


def _described(folder: Path) -> str:
    """What the folder holds, for a message, if it is a store."""
    if not (folder / ".store-id").exists():
        return ""
    storage = Storage(folder)
    return f" ({sum(1 for _ in storage.uploads())} uploads, id {(storage.store_id() or 'none')[:8]})"


def _check_empty(settings: Settings, what: str) -> None:
    database = Database(settings.database_url)
    try:
        with database.reading() as connection:
            tables = reflected(connection).tables
            if "studies" in tables:
                studies = connection.execute(sa.select(sa.func.count()).select_from(tables["studies"])).scalar_one()
                raise _taken(what, f"database {database.name} has Hemoscope's tables already ({studies} studies)")
    finally:
        database.close()


def _taken(what: str, found: str) -> ConfigError:
    msg = f"{what} is not restored: {found}. Nothing was changed. Give a new --storage and a new --database"
    return ConfigError(msg)
