"""Received images on disk, a folder a study, until the study is read: what was acknowledged survives any crash.

Names are made here, from hashes: no name comes from a peer, and none identifies a patient. An image that is sent again
with the same content is kept once. ``read.json`` in a study's folder lists the images that were handed over.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

from hemoscope.files import sync_folder, write_bytes, write_text

_HANDED_OVER = "read.json"
_SUFFIX = ".dcm"
_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledStudy:
    """The images of one study that are there.

    Attributes:
        key: of the study, the name of its folder.
        files: of all its images, in a fixed order.
        new: how many of them were not handed over yet.
        quiet_s: seconds since the last one came.
    """

    key: str
    files: tuple[Path, ...]
    new: int
    quiet_s: float


class Spool:
    """The folder; several threads of one process may write to it at once."""

    def __init__(self, root: Path) -> None:
        """Make the folder, private to this user."""
        self.root = root
        root.mkdir(mode=0o700, exist_ok=True)

    def store(self, content: bytes, *, study: str, instance: str, sender: str) -> bool:
        """Write an image; it is on the disk when this returns. Return whether it was not there yet.

        Args:
            content: a DICOM file.
            study: what names the study.
            instance: what names the image.
            sender: calling AE title, for the rules.

        Raises:
            OSError: of the system, such as a full disk; nothing is left of the image then.
        """
        folder = self.root / _hashed(study)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.root)
        path = folder / f"{_hashed(instance)}-{sender_key(sender)}-{hashlib.sha256(content).hexdigest()[:16]}{_SUFFIX}"
        if path.exists():
            return False
        write_bytes(path, content, mode=_MODE)
        return True

    @staticmethod
    def sender_of(path: Path) -> str:
        """Return the key of the AE title that sent an image."""
        return path.name.split("-")[1]

    def studies(self) -> Iterator[SpooledStudy]:
        """Yield every study that has images."""
        for folder in sorted(self.root.iterdir()):
            if not folder.is_dir():
                continue
            times = {path: path.stat().st_mtime for path in folder.glob(f"*{_SUFFIX}")}
            if not times:
                continue
            done = _handed_over(folder)
            # A clock that was set back makes a study wait for ever, so an image from the future counts as old.
            quiet = abs(time() - max(times.values()))
            files = tuple(sorted(times))
            yield SpooledStudy(
                key=folder.name, files=files, new=sum(path.name not in done for path in files), quiet_s=quiet
            )

    def handed_over(self, study: SpooledStudy) -> None:
        """Remember, on the disk, that the images of a study stand in the store."""
        names = sorted(path.name for path in study.files)
        write_text(self.root / study.key / _HANDED_OVER, json.dumps(names), mode=_MODE)

    def remove(self, study: SpooledStudy) -> None:
        """Delete these images of a study; one that came meanwhile stays."""
        folder = self.root / study.key
        for path in study.files:
            path.unlink(missing_ok=True)
        if not any(folder.glob(f"*{_SUFFIX}")):
            (folder / _HANDED_OVER).unlink(missing_ok=True)
            try:
                folder.rmdir()
            except OSError:
                return  # an image is coming in
        sync_folder(self.root)


def _handed_over(folder: Path) -> frozenset[str]:
    try:
        return frozenset(json.loads((folder / _HANDED_OVER).read_text()))
    except FileNotFoundError:
        return frozenset()


def sender_key(ae_title: str) -> str:
    """Return what stands for a sender's AE title in names of files."""
    return _hashed(ae_title)[:8]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
