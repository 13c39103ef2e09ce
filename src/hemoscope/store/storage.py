"""The private folder of pixels: ``STORAGE/UPLOAD/source/000001`` and ``STORAGE/UPLOAD/STUDY/{volume,maps}.npy``.

Folders have mode 0700 and files 0600; every name is made here or by the database, none comes from a user. Arrays are
written atomically, and a slice is read through a memory map without loading the volume.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from hemoscope.errors import ConfigError
from hemoscope.files import atomic_file, new_file, sync_folder, write_text
from hemoscope.store.refusals import refusal
from hemoscope.store.stored_slices import StoredSlices, open_slices, write_slices

VOLUME = "volume.npy"
MAPS = "maps.npy"
SOURCE_SUMS = ".sha256sums"  # hidden, so that a reader of the folder passes over it
_TRASH = ".trash"
_SWEPT = ".swept"
_RECEIVED = ".received"
_OUTBOX = ".outbox"
_KEY = ".pseudonym-key"
_STORE_ID = ".store-id"
_UPLOAD = re.compile("[0-9a-f]{32}")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


def series_file(number: int) -> str:
    """The name of the array of another series of a study, counted from 1."""
    return f"series-{number}.npy"


class Storage:
    """The folder and the names in it."""

    def __init__(self, root: Path) -> None:
        """Make the folder private. Raises ConfigError if that fails, or if other users can read its content already."""
        self.root = root.absolute()
        try:
            self._make_private()
            for folder in (self.trash, self.swept):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            msg = f"the storage folder cannot be used ({error.strerror}). Give a folder that you may write to"
            raise ConfigError(msg) from error

    def _make_private(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root.stat().st_mode & 0o077:
            if any(self.root.iterdir()):
                msg = "the storage folder is open to other users and not empty. Close it (chmod 700), or give a new one"
                raise ConfigError(msg)
            self.root.chmod(0o700)

    @property
    def trash(self) -> Path:
        """The folder of what is being deleted, on request or past its retention: removed at once."""
        return self.root / _TRASH

    @property
    def swept(self) -> Path:
        """The folder of what the database does not know; kept for days, since the database may be wrong."""
        return self.root / _SWEPT

    def upload(self, upload_id: str) -> Path:
        """The folder of an upload."""
        return self.root / upload_id

    def uploads(self) -> Iterator[Path]:
        """The folders of all uploads, accepted or not. Raises StoreError ``storage_unusable``."""
        with usable():
            yield from [one for one in self.root.iterdir() if _UPLOAD.fullmatch(one.name) and one.is_dir()]

    def kept_beside_uploads(self) -> Iterator[Path]:
        """What else a backup needs: the key of pseudonyms, folders such as ``.swept``; no ``received``, trash or id."""
        others = (_RECEIVED, _TRASH, _STORE_ID)
        for path in self.root.glob(".*"):
            if path.name not in others and path.suffix != ".part" and not path.name.startswith(".probe-"):
                yield path

    @property
    def received(self) -> Path:
        """The folder of images that the DICOM node received, until their studies are read and settled."""
        return self.root / _RECEIVED

    @property
    def outbox(self) -> Path:
        """The folder of results that wait to be sent."""
        return self.root / _OUTBOX

    def node_files(self) -> Iterator[Path]:
        """The files of both; they hold identity."""
        for folder in (self.received, self.outbox):
            yield from folder.rglob("*.dcm")

    def source(self, upload_id: str) -> Path:
        """The folder of the files as they were uploaded."""
        return self.upload(upload_id) / "source"

    def study(self, upload_id: str, study_id: str) -> Path:
        """The folder of a study's arrays."""
        return self.upload(upload_id) / study_id

    def write_array(self, upload_id: str, study_id: str, name: str, array: NDArray[Any]) -> None:
        """Write slices, so that a crash leaves none or all of them.

        Raises:
            StoreError: ``storage_full`` or ``storage_unusable``.
        """
        folder = self.study(upload_id, study_id)
        with usable():
            folder.mkdir(mode=0o700, exist_ok=True)
            with atomic_file(folder / name, mode=0o600) as file:
                write_slices(file, array)

    def read_array(self, upload_id: str, study_id: str, name: str) -> StoredSlices | None:
        """Map slices into memory without reading them; None if they do not exist (any more).

        Raises:
            StoreError: ``damaged_pixels``.
        """
        try:
            return open_slices(self.study(upload_id, study_id) / name)
        except FileNotFoundError:
            return None

    def set_aside(self, folder: Path, name: str) -> Path | None:
        """Move a folder into the trash under ``name``, in one step; None if there is no such folder."""
        aside = self.trash / f"{name}-{secrets.token_hex(4)}"
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return None
        return aside

    def remove_aside(self, folder: Path, name: str) -> None:
        """Move a folder into the trash in one step, then remove it; a missing folder is not an error."""
        aside = self.set_aside(folder, name)
        if aside is not None:
            self.remove(aside)

    def store_id(self) -> str | None:
        """The id shared with the database; None if there is none yet. Raises StoreError ``storage_unusable``."""
        with usable():
            try:
                return (self.root / _STORE_ID).read_text(encoding="ascii").strip()
            except FileNotFoundError:
                return None

    def write_store_id(self, store_id: str) -> None:
        """Write the id shared with the database. Raises StoreError ``storage_unusable`` or ``storage_full``."""
        with usable():
            write_text(self.root / _STORE_ID, f"{store_id}\n", mode=0o600)

    def check_writable(self) -> None:
        """Write a small file to the disk and remove it. Raises StoreError ``storage_unusable`` or ``storage_full``."""
        probe = self.root / f".probe-{secrets.token_hex(4)}"
        with usable():
            try:
                with new_file(probe, mode=0o600) as file:
                    file.write(b"ready?")
            finally:
                probe.unlink(missing_ok=True)

    def pseudonym_key(self) -> bytes:
        """The site's secret key for pseudonyms, made at first use; with it an identity can be linked to a pseudonym."""
        path, draft = self.root / _KEY, self.root / f"{_KEY}-{secrets.token_hex(4)}"
        if not path.exists():
            with new_private_file(draft) as file:
                file.write(secrets.token_bytes(32))
            with suppress(FileExistsError):  # another worker made it just now: use that one
                os.link(draft, path)
            draft.unlink()
            sync_folder(self.root)
        return path.read_bytes()

    def remove(self, folder: Path) -> None:
        """Remove a folder and all below; a missing folder is not an error."""
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


@contextmanager
def new_private_file(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """Yield a new private file, if ``synced`` flushed to the disk when the block ends.

    Raises StoreError ``storage_full``.
    """
    with full_disk_refused(), new_file(path, mode=0o600, synced=synced) as file:
        yield file


@contextmanager
def usable() -> Iterator[None]:
    """Turn any error of the storage folder into a StoreError: ``storage_full`` or ``storage_unusable``."""
    try:
        with full_disk_refused():
            yield
    except OSError as error:
        raise refusal("storage_unusable", f"the storage folder cannot be used ({error.strerror})") from error


@contextmanager
def full_disk_refused() -> Iterator[None]:
    """Turn a full disk or quota, or too many open files, into a StoreError; other errors pass unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_DESCRIPTOR:
            raise refusal("storage_unusable", f"no file can be opened ({error.strerror})") from error
        if error.errno not in _FULL:
            raise
        raise refusal("storage_full", "there is no space left where studies are stored") from error
