"""Files on their way in: a private folder, names made here, limits held while the bytes arrive."""

from types import TracebackType
from typing import BinaryIO, Self


class UploadedFile:
    """One file that arrives in pieces: ``with upload.new_file() as file: file.write(piece)``."""

    def __enter__(self) -> Self:
        """Open the file."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        raise NotImplementedError

    def write(self, piece: bytes) -> None:
        """Add bytes. Raises StoreError ``file_too_large``, ``upload_too_large`` or ``storage_full``."""
        raise NotImplementedError


class Upload:
    """One upload: ``with store.begin_upload() as upload``; left without ``accept`` all of it is removed."""

    upload_id: str

    def __enter__(self) -> Self:
        """Make the folder."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder unless the upload was accepted."""
        raise NotImplementedError

    def new_file(self) -> UploadedFile:
        """Return the next file, to be written in pieces. Raises StoreError ``too_many_files``."""
        raise NotImplementedError

    def add_file(self, stream: BinaryIO) -> int:
        """Copy a whole stream as the next file and return its bytes; the errors of ``new_file`` and ``write``."""
        raise NotImplementedError
