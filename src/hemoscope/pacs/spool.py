"""Received images on disk, a folder a study, until the study is read: what was acknowledged survives any crash.

Names are made here, from hashes: no name comes from a peer, and none identifies a patient. An image that is sent again,
by the same sender or another one, counts once, with its newest content. ``read.json`` in a study's folder lists the
images that were handed over, ``origins.json`` the systems that they came from.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic

from hemoscope.errors import ConfigError
from hemoscope.files import sync_folder, write_bytes, write_text

_HANDED_OVER = "read.json"
_ORIGINS = "origins.json"
_SUFFIX = ".dcm"
_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledStudy:
    """The images of one study that are there.

    Attributes:
        key: of the study, the name of its folder.
        files: one for each of its images, the newest, in a fixed order.
        older: files of the same images that came before, or from another sender.
        new: how many of the images were not handed over yet with this content.
        again: whether images of the study were handed over before.
        quiet_s: seconds since the last file came, or since the start of this process.
    """

    key: str
    files: tuple[Path, ...]
    older: tuple[Path, ...]
    new: int
    again: bool
    quiet_s: float


class Spool:
    """The folder; several threads of one process may write to it at once."""

    def __init__(self, root: Path) -> None:
        """Make the folder, private to this user."""
        self.root = root
        self._seen: dict[str, tuple[frozenset[Path], float]] = {}
        self._noted: set[tuple[str, str]] = set()
        self._noting = Lock()
        root.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out, which would hand over every study once more; remove what a killed one left.

        Raises:
            ConfigError: another process holds the folder.
        """
        with self.root.with_name(f"{self.root.name}.lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                msg = "another hemoscope listen uses this storage folder. End it, or give each node its own --storage"
                raise ConfigError(msg) from error
            for half in self.root.glob(f"*/.*{_SUFFIX}-*.part"):
                half.unlink()
            yield

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
        try:
            write_bytes(path, content, mode=_MODE)
        except FileNotFoundError:  # ``remove`` took the folder, which was empty
            folder.mkdir(mode=0o700, exist_ok=True)
            write_bytes(path, content, mode=_MODE)
            sync_folder(self.root)
        return True

    def note_origin(self, study: str, origin: str) -> None:
        """Remember, on the disk, which system an image of a study came from. Raises OSError, of the system."""
        key = _hashed(study)
        if (key, origin) in self._noted:
            return
        with self._noting:
            origins = sorted({*_listed(self.root / key / _ORIGINS), origin})
            write_text(self.root / key / _ORIGINS, json.dumps(origins), mode=_MODE)
            self._noted.add((key, origin))

    def origins(self, study: SpooledStudy) -> tuple[str, ...]:
        """Return the systems that the images of a study came from."""
        return tuple(_listed(self.root / study.key / _ORIGINS))

    @staticmethod
    def sender_of(path: Path) -> str:
        """Return the key of the AE title that sent an image."""
        return path.name.split("-")[1]

    def studies(self) -> Iterator[SpooledStudy]:
        """Yield every study that has images."""
        folders = [folder for folder in sorted(self.root.iterdir()) if folder.is_dir()]
        keys = {folder.name for folder in folders}
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}
        for folder in folders:
            received = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: (path.stat().st_mtime_ns, path.name))
            if not received:
                continue
            done = _handed_over(folder)
            contents: dict[tuple[str, str], Path] = {}
            for path in received:
                contents.setdefault(_content(path.name), path)
            newest = {image: path for (image, _), path in contents.items()}
            files = tuple(sorted(newest.values()))
            yield SpooledStudy(
                key=folder.name,
                files=files,
                older=tuple(path for path in received if path not in files),
                new=sum(_content(path.name) not in done for path in files),
                again=bool(done),
                quiet_s=self._quiet_s(folder.name, frozenset(received)),
            )

    def _quiet_s(self, key: str, received: frozenset[Path]) -> float:
        """How long this process has seen the same files; no clock that is set can change that."""
        before = self._seen.get(key)
        if before is None or before[0] != received:
            self._seen[key] = before = received, monotonic()
        return monotonic() - before[1]

    def handed_over(self, study: SpooledStudy) -> None:
        """Remember, on the disk, that the images of a study stand in the store."""
        names = sorted(path.name for path in study.files)
        write_text(self.root / study.key / _HANDED_OVER, json.dumps(names), mode=_MODE)

    def remove(self, study: SpooledStudy) -> None:
        """Delete these images of a study; one that came meanwhile stays."""
        folder = self.root / study.key
        for path in (*study.files, *study.older):
            path.unlink(missing_ok=True)
        if not any(folder.glob(f"*{_SUFFIX}")):
            with self._noting:
                self._noted = {one for one in self._noted if one[0] != study.key}
                for name in (_HANDED_OVER, _ORIGINS):
                    (folder / name).unlink(missing_ok=True)
            try:
                folder.rmdir()
            except OSError:
                return  # an image is coming in
        sync_folder(self.root)


def _content(name: str) -> tuple[str, str]:
    """Return what names an image, and what names its content; who sent it does not matter."""
    image, _sender, content = name.split("-")
    return image, content


def _handed_over(folder: Path) -> frozenset[tuple[str, str]]:
    return frozenset(_content(name) for name in _listed(folder / _HANDED_OVER))


def _listed(path: Path) -> list[str]:
    """Return the texts of one of the files above; none where there is no file yet."""
    try:
        return [str(one) for one in json.loads(path.read_text())]
    except FileNotFoundError:
        return []


def sender_key(ae_title: str) -> str:
    """Return what stands for a sender's AE title in names of files."""
    return _hashed(ae_title)[:8]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
