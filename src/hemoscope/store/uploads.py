"""Incoming files: a private folder, generated names, limits checked while the bytes arrive, then durable rows."""

import errno
import hashlib
import os
import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from hemoscope.checksums import sha256_of, sums_text
from hemoscope.files import UNREADABLE, sync_file, sync_folder
from hemoscope.inference.findings import INCOMPLETE, URGENCIES
from hemoscope.store import audit, tables
from hemoscope.store.database import Database, server_time
from hemoscope.store.refusals import refusal
from hemoscope.store.settings import UploadLimits
from hemoscope.store.storage import SOURCE_SUMS, Storage, full_disk_refused, new_private_file, usable
from hemoscope.store.values import StudyState

# The order of the worklist. Nobody knows what a study shows that could not be read, or that has not been read yet:
# the first comes with the incomplete ones, the second after them, and both before the routine ones.
FAILED_RANK = URGENCIES.index(INCOMPLETE)
WAITING_RANK = FAILED_RANK + 1
_PIECE = 1 << 20
_SYNCS_AT_A_TIME = 8
# Another file system, one without links, or a file with as many names as it may have.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)


class Upload:
    """One upload: ``with store.begin_upload() as upload``; without ``accept`` everything is removed on exit."""

    def __init__(self, storage: Storage, limits: UploadLimits) -> None:
        """Choose the upload's id; its folder is made on entering."""
        self.upload_id = secrets.token_hex(16)
        self.files = 0
        self.bytes = 0
        self.accepted = False
        self.undecided = False
        self.abandoned = threading.Event()
        self.limits = limits
        self.digests: dict[str, str] = {}
        self.lost: list[Path] = []
        self._storage = storage
        self._begun = 0

    def __enter__(self) -> Self:
        """Make the folder. Raises StoreError ``storage_unusable`` or ``storage_full``."""
        with usable():
            self._storage.upload(self.upload_id).mkdir(mode=0o700)
            self._storage.source(self.upload_id).mkdir(mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder unless the upload was accepted; an undecided one is left to ``removal.sweep``."""
        if not self.accepted and not self.undecided:
            self._storage.remove(self._storage.upload(self.upload_id))

    def new_file(self) -> "UploadedFile":
        """Return the next file, to be written in pieces. Raises StoreError ``too_many_files``, ``upload_abandoned``."""
        return UploadedFile(self, self._next_path())

    def _next_path(self) -> Path:
        self._check_wanted()
        if self._begun >= self.limits.files:
            raise refusal("too_many_files", f"more than {self.limits.files} files in one upload")
        self._begun += 1
        return self._storage.source(self.upload_id) / f"{self._begun:06d}"

    def add_file(self, stream: BinaryIO) -> int:
        """Copy a whole stream as the next file and return its bytes; the errors of ``new_file`` and ``write``."""
        with self.new_file() as file:
            while piece := stream.read(_PIECE):
                file.write(piece)
        return file.size

    def link_file(self, path: Path, *, sha256: str = "") -> None:
        """Add a file that nobody changes any more: under a second name, so that it takes no space twice.

        A file of another file system is copied. One whose SHA-256 no longer begins with ``sha256``, or that the disk
        cannot read, is added to ``lost`` and listed in the checksums with an empty digest, so that the reader refuses
        it: the upload is never complete. The errors of ``new_file`` and ``write``.
        """
        target = self._next_path()
        try:
            self._link(path, target)
            whole = self.digests[target.name].startswith(sha256)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            whole = False
        if not whole:
            self.digests[target.name] = ""  # whatever the file holds, the reader refuses it
            self.lost.append(path)

    def _link(self, path: Path, target: Path) -> None:
        try:
            os.link(path, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            with full_disk_refused(), path.open("rb") as stream, UploadedFile(self, target) as file:
                shutil.copyfileobj(stream, file, _PIECE)
            return
        self.count(target.stat().st_size, in_file=target.stat().st_size)
        self.files += 1
        with full_disk_refused():  # too many open files is no property of this one
            self.digests[target.name] = sha256_of(target)

    def count(self, arrived: int, *, in_file: int) -> None:
        """Count bytes of a file of ``in_file`` bytes so far. Raises ``file_too_large`` or ``upload_too_large``."""
        self.bytes += arrived
        if in_file > self.limits.file_bytes:
            raise refusal("file_too_large", f"a file is larger than {self.limits.file_bytes} bytes")
        if self.bytes > self.limits.upload_bytes:
            raise refusal("upload_too_large", f"the upload is larger than {self.limits.upload_bytes} bytes")

    def make_durable(self) -> None:
        """Flush every file, their checksums and every name to the disk.

        Files are flushed only now, several at a time: flushing thousands of small ones as each arrives takes minutes.
        Raises StoreError ``empty_upload``, ``upload_abandoned`` or ``storage_full``.
        """
        if self.bytes == 0 and not self.lost:
            raise refusal("empty_upload", "the upload holds no file that is not empty")
        source = self._storage.source(self.upload_id)
        with full_disk_refused(), ThreadPoolExecutor(_SYNCS_AT_A_TIME, thread_name_prefix="sync-upload") as threads:
            for _ in threads.map(self._make_file_durable, source.iterdir()):
                pass
        with new_private_file(source / SOURCE_SUMS) as file:
            file.write(sums_text(self.digests).encode("ascii"))
        for folder in (source, source.parent, self._storage.root):
            sync_folder(folder)

    def _make_file_durable(self, path: Path) -> None:
        self._check_wanted()
        sync_file(path)

    def _check_wanted(self) -> None:
        if self.abandoned.is_set():
            raise refusal("upload_abandoned", "the client closed the connection before the upload was accepted")


class UploadedFile:
    """One file that arrives in pieces: ``with upload.new_file() as file: file.write(piece)``."""

    def __init__(self, upload: Upload, path: Path) -> None:
        """Remember the path; the file is made on entering."""
        self.size = 0
        self._upload = upload
        self._path = path
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        """Open the file."""
        self._opened = new_private_file(self._path, synced=False)
        self._file = self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; one cut short by an error is dropped.

        An empty one is kept: it may be a slice whose copy was interrupted, and the reader refuses it and names it.
        """
        self._opened.__exit__(kind, error, trace)
        if error is not None:
            self._path.unlink(missing_ok=True)
            return
        self._upload.files += 1
        self._upload.digests[self._path.name] = self._digest.hexdigest()

    def write(self, piece: bytes) -> None:
        """Add bytes. Raises StoreError ``file_too_large``, ``upload_too_large`` or ``storage_full``."""
        self.size += len(piece)
        self._upload.count(len(piece), in_file=self.size)
        with full_disk_refused():
            self._file.write(piece)
        self._digest.update(piece)


def accept(
    database: Database, upload: Upload, *, submitted_by: str, origin: str = "", study_instance_uid: str | None = None
) -> str:
    """Make an upload durable, then make its rows in one transaction; return the id of its first study."""
    upload.make_durable()
    study_id = secrets.token_hex(16)
    with database.writing() as connection:
        version, accepted_at = tables.tick(connection), server_time(connection)
        connection.execute(
            tables.uploads.insert().values(
                upload_id=upload.upload_id,
                accepted_at=accepted_at,
                submitted_by=submitted_by,
                files=upload.files,
                bytes=upload.bytes,
            )
        )
        connection.execute(
            tables.studies.insert().values(
                **new_study(study_id, upload.upload_id, 0, version),
                received_at=accepted_at,
                submitted_by=submitted_by,
                state=StudyState.QUEUED,
                study_instance_uid=study_instance_uid,
            )
        )
        connection.execute(
            tables.jobs.insert().values(upload_id=upload.upload_id, state="queued", attempts=0, queued_at=accepted_at)
        )
        detail = f"{upload.files} files{origin}"
        audit.append(connection, user=submitted_by, action="upload", study_id=study_id, detail=detail)
        upload.undecided = True  # until the commit is confirmed: if the connection breaks now, it may have happened
    upload.accepted = True
    return study_id


def rank_of(urgency: str) -> int:
    """The place of a study's urgency in the order of the worklist."""
    place = URGENCIES.index(urgency)
    return place if place < WAITING_RANK else place + 1


def new_study(study_id: str, upload_id: str, ordinal: int, version: int) -> dict[str, object]:
    """The columns of a study of which nothing is known yet."""
    return {
        "study_id": study_id,
        "upload_id": upload_id,
        "ordinal": ordinal,
        "version": version,
        "stage_done": 0,
        "stage_total": 0,
        "instances": 0,
        "urgency_rank": WAITING_RANK,
        "suspected": "[]",
        "not_established": "[]",
        "has_pixels": False,
        "has_maps": False,
        "search_text": study_id,
    }
