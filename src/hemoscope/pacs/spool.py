"""Received images on disk, a folder a study, until the study is read: what was acknowledged survives any crash.

Names are made here, from hashes: no name comes from a peer, and none identifies a patient. An image that is sent again,
by the same sender or another one, counts once, with its newest content. ``read.json`` in a study's folder lists the
images that were handed over, ``lost.json`` those that were handed over as lost, since the disk had damaged them, and
``origins.json`` the systems that they came from. A name ends with the beginning of the SHA-256 of its content and, if
a file of the image was there before, with a number: which content is the newest depends on no clock.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import NamedTuple

from hemoscope.checksums import sha256_of
from hemoscope.errors import ConfigError
from hemoscope.files import UNREADABLE, sync_folder, write_bytes, write_text

_log = logging.getLogger("hemoscope.pacs")
_HANDED_OVER = "read.json"
_LOST = "lost.json"
_ORIGINS = "origins.json"
_SUFFIX = ".dcm"
_MODE = 0o600
_DIGITS = 16  # of a SHA-256, in names


class _Name(NamedTuple):
    """What the name of a file says: hashes, and the place of the content among all that came of the image, from 0."""

    image: str
    sender: str
    content: str
    place: int = 0

    @classmethod
    def of(cls, name: str) -> "_Name":
        """Read a name. Raises ValueError if it is none."""
        parts = name.removesuffix(_SUFFIX).split("-")
        image, sender, content, place = parts if len(parts) != 3 else (*parts, "0")
        return cls(image, sender, content, int(place))

    def __str__(self) -> str:
        place = f"-{self.place}" if self.place else ""
        return f"{self.image}-{self.sender}-{self.content}{place}{_SUFFIX}"


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

        What is there already is written again if the disk damaged it, or if other content of the image came later.

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
        name = _Name(_hashed(instance), sender_key(sender), hashlib.sha256(content).hexdigest()[:_DIGITS])
        versions = _in_order(_files_of(folder, name.image))
        names = [_Name.of(path.name) for path in versions]
        same = [path for path, one in zip(versions, names, strict=True) if one._replace(place=0) == name]
        lost = _listed(folder / _LOST) if same else []
        damaged = [path for path in same if path.name in lost or not is_whole(path)]
        if same and not damaged and names[-1].content == name.content:
            return False
        path = folder / str(name._replace(place=names[-1].place + 1 if names else 0))
        try:
            write_bytes(path, content, mode=_MODE)
        except FileNotFoundError:  # ``remove`` took the folder, which was empty
            folder.mkdir(mode=0o700, exist_ok=True)
            write_bytes(path, content, mode=_MODE)
            sync_folder(self.root)
        for one in damaged:
            one.unlink(missing_ok=True)
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
        return _Name.of(path.name).sender

    @staticmethod
    def digest_of(path: Path) -> str:
        """Return how the SHA-256 of an image began when it was received."""
        return _Name.of(path.name).content

    def keys(self) -> tuple[str, ...]:
        """Return what names the studies, in a fixed order."""
        keys = tuple(sorted(folder.name for folder in self.root.iterdir() if folder.is_dir()))
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}
        return keys

    def study(self, key: str) -> SpooledStudy | None:
        """Return a study; None if it has no images (any more)."""
        folder = self.root / key
        received = _in_order(_files_of(folder))
        if not received:
            return None
        done, lost = _handed_over(folder), frozenset(_listed(folder / _LOST))
        contents: dict[tuple[str, str], Path] = {}
        for path in received:
            content = _content(path.name)
            first = contents.pop(content, path)  # what comes again is the newest; the file stays the same, if it can
            contents[content] = path if first.name in lost else first
        newest = {image: path for (image, _), path in contents.items()}
        chosen = frozenset(newest.values())
        return SpooledStudy(
            key=key,
            files=tuple(sorted(chosen)),
            older=tuple(path for path in received if path not in chosen),
            new=sum(_content(path.name) not in done and path.name not in lost for path in chosen),
            again=bool(done or lost),
            quiet_s=self._quiet_s(key, frozenset(received)),
        )

    def _quiet_s(self, key: str, received: frozenset[Path]) -> float:
        """How long this process has seen the same files; no clock that is set can change that."""
        before = self._seen.get(key)
        if before is None or before[0] != received:
            self._seen[key] = before = received, monotonic()
        return monotonic() - before[1]

    def handed_over(self, study: SpooledStudy, *, lost: Iterable[Path] = ()) -> None:
        """Remember, on the disk, that the images of a study stand in the store, some of them as ``lost``.

        What was lost before, and has a whole copy by now, stays so as long as its file: else that would be chosen.
        """
        folder, damaged = self.root / study.key, {path.name for path in lost}
        listed = damaged.union({path.name for path in study.older}.intersection(_listed(folder / _LOST)))
        if listed:
            write_text(folder / _LOST, json.dumps(sorted(listed)), mode=_MODE)
        else:
            (folder / _LOST).unlink(missing_ok=True)
        whole = {path.name for path in study.files} - damaged
        write_text(folder / _HANDED_OVER, json.dumps(sorted(whole)), mode=_MODE)

    def remove(self, study: SpooledStudy) -> None:
        """Delete these images of a study; one that came meanwhile stays."""
        folder = self.root / study.key
        for path in (*study.files, *study.older):
            path.unlink(missing_ok=True)
        if not _files_of(folder):
            with self._noting:
                self._noted = {one for one in self._noted if one[0] != study.key}
                for name in (_HANDED_OVER, _LOST, _ORIGINS):
                    (folder / name).unlink(missing_ok=True)
            try:
                folder.rmdir()
            except OSError:
                return  # an image is coming in
        sync_folder(self.root)


def is_whole(path: Path) -> bool:
    """Whether the disk still has the bytes of an image that were received. Raises OSError if that is not known."""
    try:
        return sha256_of(path).startswith(_Name.of(path.name).content)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        return False


def _content(name: str) -> tuple[str, str]:
    """Return what names an image, and what names its content; who sent it does not matter."""
    image, _sender, content, _place = _Name.of(name)
    return image, content


def _files_of(folder: Path, image: str = "") -> list[Path]:
    """Return the files of a study, or of one of its images; none if there is no such folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - each image that comes looks here, among thousands of names
    except FileNotFoundError:
        return []
    return [folder / name for name in names if name.startswith(image) and name.endswith(_SUFFIX)]


def _in_order(files: Iterable[Path]) -> list[Path]:
    """Sort files of images by the place of their content; earlier versions gave none, so there the clock decides."""

    def key(path: Path) -> tuple[int, int, str]:
        try:
            return _Name.of(path.name).place, path.stat().st_mtime_ns, path.name
        except FileNotFoundError:  # ``remove`` took it just now
            return 0, 0, path.name

    return sorted(files, key=key)


def _handed_over(folder: Path) -> frozenset[tuple[str, str]]:
    done = set()
    for name in _listed(folder / _HANDED_OVER):
        with suppress(ValueError):  # damaged: that image counts as new
            done.add(_content(name))
    return frozenset(done)


def _listed(path: Path) -> list[str]:
    """Return the texts of one of the files above; none where there is no file yet, or a damaged one.

    Without them a study is read once more; an error would keep it from being read at all.
    """
    try:
        listed = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNREADABLE:
            raise
        listed = None
    if not isinstance(listed, list):
        _log.error("%s of a study is damaged and counts as empty", path.name)
        return []
    return [str(one) for one in listed]


def sender_key(ae_title: str) -> str:
    """Return what stands for a sender's AE title in names of files."""
    return _hashed(ae_title)[:8]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
