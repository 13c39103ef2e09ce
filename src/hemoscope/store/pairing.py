"""Storage folder and database belong together: both hold one random id, which every start compares.

What one of them does not know is deleted from the other, so a database of another folder, or an empty one, would empty
the folder. A pair without ids (new, or from before there were ids) gets one if both are empty or know each other.
"""

import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.errors import ConfigError
from hemoscope.store import tables
from hemoscope.store.database import Database
from hemoscope.store.migrate import start_lock
from hemoscope.store.refusals import refusal
from hemoscope.store.storage import VOLUME, Storage

_ANOTHER = (
    "Give --storage and --database that were used together; if both are right, restore both from backups of one day"
)
_NEW = (
    "If a new site is meant, give an empty --storage and a new --database. Otherwise check both for a wrong name and "
    "for a disk that is not mounted"
)


def pair(database: Database, storage: Storage) -> str:
    """Compare the ids, or give both the same if neither can be foreign to the other; return it.

    Raises:
        ConfigError: folder and database do not belong together; nothing was changed or removed.
        StoreError: ``database_unreachable``, ``storage_unusable``, ``storage_full``.
    """
    with start_lock(database) as connection:
        known, here = connection.execute(sa.select(tables.pairing.c.store_id)).scalar(), storage.store_id()
        if here is not None and known == here:
            return here
        if known is not None and here is not None:
            raise _refused(database, storage, f"another id ({here[:8]}) than the database ({known[:8]})", _ANOTHER)
        _check_acquainted(connection, database, storage)
        store_id = here or known or secrets.token_hex(16)
        if here is None:
            storage.write_store_id(store_id)
        if known is None:
            connection.execute(tables.pairing.insert().values(store_id=store_id))
    return store_id


def check_paired(storage: Storage, store_id: str) -> None:
    """Check that the folder is still the one of the start. Raises StoreError ``storage_unusable``."""
    if storage.store_id() != store_id:
        raise refusal("storage_unusable", "the storage folder is not the one that this process started with")


def _check_acquainted(connection: Connection, database: Database, storage: Storage) -> None:
    """Refuse unless both are empty, or share uploads and the folder holds no study that the database does not list."""
    listed = set(connection.execute(sa.select(tables.uploads.c.upload_id)).scalars())
    folders = {folder.name: folder for folder in storage.uploads()}
    if not listed and not folders:
        return
    if not listed:
        raise _refused(database, storage, f"{len(folders)} uploads, and the database lists none", _NEW)
    if not folders:
        raise _refused(database, storage, f"no upload, and the database lists {len(listed)}", _NEW)
    foreign = [name for name, folder in folders.items() if name not in listed and _holds_study(folder)]
    if foreign or not listed & folders.keys():
        reason = f"{len(folders)} uploads, of which the database lists {len(listed & folders.keys())}"
        raise _refused(database, storage, reason, _ANOTHER)


def _holds_study(upload: Path) -> bool:
    """Whether an upload was accepted and read; one that never was has no arrays."""
    return any(upload.glob(f"*/{VOLUME}"))


def _refused(database: Database, storage: Storage, holds: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"storage folder {storage.root.name} and database {database.name} do not belong together: the folder holds "
        f"{holds}. Nothing was changed. {remedy}"
    )
