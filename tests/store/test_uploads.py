"""Incoming files: private, renamed, limited, and accepted whole or not at all."""

import errno
import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemoscope.checksums import read_sums, sha256_of
from hemoscope.errors import ConfigError, StoreError
from hemoscope.store import storage as storage_module
from hemoscope.store.settings import UploadLimits
from hemoscope.store.storage import SOURCE_SUMS, Storage
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState, StudySummary

Submit = Callable[..., StudySummary]


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name not in (".trash", ".swept", ".store-id")]


def test_an_accepted_upload_waits_in_the_queue(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"one", b"two"], by="anna")
    assert entry.state is StudyState.QUEUED
    assert entry.submitted_by == "anna"
    assert store.counts().queue_depth == 1
    assert store.studies() == ((entry,), 1)


def test_files_get_names_from_the_server_and_are_for_their_owner_alone(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"one", b"two"])
    source = store.folder.source(entry.upload_id)
    assert [path.name for path in sorted(source.glob("0*"))] == ["000001", "000002"]
    assert [path.read_bytes() for path in sorted(source.glob("0*"))] == [b"one", b"two"]
    for path in [store.folder.root, *everything(store.folder.root)]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_an_upload_that_is_not_accepted_leaves_nothing(store: Store) -> None:
    with store.begin_upload() as upload:
        upload.add_file(io.BytesIO(b"half of a"))
    assert everything(store.folder.root) == []
    assert store.studies() == ((), 0)


def test_an_upload_that_breaks_off_leaves_nothing(store: Store) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError), store.begin_upload() as upload:
        upload.add_file(Broken())
    assert everything(store.folder.root) == []


def test_empty_files_are_kept_with_their_checksums(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"", b"one", b""])
    source = store.folder.source(entry.upload_id)
    assert [path.read_bytes() for path in sorted(source.glob("0*"))] == [b"", b"one", b""]
    assert read_sums(source / SOURCE_SUMS) == {path.name: sha256_of(path) for path in source.glob("0*")}


class BrokenOff(io.RawIOBase):
    """Two pieces, then no connection."""

    def __init__(self) -> None:
        self._pieces = iter([b"half of", b" a file"])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = next(self._pieces, None)
        if piece is None:
            raise ConnectionResetError
        buffer[: len(piece)] = piece
        return len(piece)


def test_a_file_that_was_cut_short_is_dropped(store: Store) -> None:
    with store.begin_upload() as upload:
        upload.add_file(io.BytesIO(b"whole"))
        with pytest.raises(ConnectionResetError):
            upload.add_file(io.BufferedReader(BrokenOff()))
        entry = store.accept(upload, submitted_by="tester")
    assert [path.name for path in store.folder.source(entry.upload_id).glob("0*")] == ["000001"]


@pytest.mark.parametrize("files", [[], [b""], [b"", b""]])
def test_an_empty_upload_is_refused(store: Store, submit: Submit, files: list[bytes]) -> None:
    with pytest.raises(StoreError, match=r"no file that is not empty.*Give at least one file") as refused:
        submit(store, files)
    assert refused.value.code == "empty_upload"
    assert store.counts().queue_depth == 0


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ([b"x" * 11], "file_too_large", "larger than 10 bytes"),
        ([b"x" * 9, b"x" * 9, b"x" * 9], "upload_too_large", "larger than 20 bytes"),
        ([b"x"] * 4, "too_many_files", "more than 3 files"),
    ],
)
def test_an_upload_over_a_limit_is_refused_with_its_code(
    opened: Callable[..., Store], submit: Submit, files: list[bytes], code: str, words: str
) -> None:
    store = opened()
    store.limits = UploadLimits(file_bytes=10, files=3, upload_bytes=20)
    with pytest.raises(StoreError, match=words) as refused:
        submit(store, files)
    assert refused.value.code == code
    assert everything(store.folder.root) == []
    assert submit(store, [b"x" * 10, b"x" * 5, b"x" * 5]).state is StudyState.QUEUED


def test_limits_that_refuse_everything_are_refused() -> None:
    with pytest.raises(ValueError, match="limit files must be at least 1, got 0"):
        UploadLimits(file_bytes=1, files=0, upload_bytes=1)


def test_a_full_disk_is_reported_with_its_code(store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"no space left where studies are stored.*retention") as refused:
        submit(store, [b"one"])
    assert refused.value.code == "storage_full"


def test_a_disk_that_fails_otherwise_is_no_refusal(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        submit(store, [b"one"])


def test_every_file_and_name_is_flushed_before_the_upload_is_accepted(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    flushed: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        assert store.counts().queue_depth == 0
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", noted)
    entry = submit(store, [b"one", b"two"])
    assert sorted(flushed[:2]) == ["000001", "000002"]
    assert flushed[2:] == [".sha256sums", "source", entry.upload_id, store.folder.root.name]


def test_a_folder_that_other_users_can_read_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="open to other users and not empty"):
        Storage(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


def test_an_empty_folder_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o755)
    Storage(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"storage folder cannot be used.*Give a folder"):
        Storage(tmp_path / "file" / "below")


def test_an_array_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    storage = Storage(tmp_path / "storage")
    storage.upload("u").mkdir()

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage_module, "write_slices", fail)
        with pytest.raises(StoreError, match="no space left"):
            storage.write_array("u", "s", "volume.npy", np.zeros((3, 1)))
    assert list(storage.study("u", "s").iterdir()) == []
    assert storage.read_array("u", "s", "volume.npy") is None
    storage.write_array("u", "s", "volume.npy", np.arange(3).reshape(3, 1))
    found = storage.read_array("u", "s", "volume.npy")
    assert found is not None
    assert [one.tolist() for one in found] == [[0], [1], [2]]
