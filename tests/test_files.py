"""Files appear complete or not at all: to readers, after errors, after a kill; and they are on the disk when done."""

import errno
import os
import runpy
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemoscope import files
from hemoscope.files import (
    append_line,
    atomic_file,
    atomic_folder,
    atomic_path,
    new_file,
    publish,
    sync_folder,
    write_bytes,
    write_text,
)


def test_a_system_without_the_error_numbers_of_linux_can_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(errno, "EUCLEAN")
    assert runpy.run_path(str(files.__file__))["UNREADABLE"] == (errno.EIO, errno.EBADMSG)


@contextmanager
def by_stream(path: Path, content: bytes) -> Iterator[None]:
    with atomic_file(path) as stream:
        stream.write(content)
        yield


@contextmanager
def by_path(path: Path, content: bytes) -> Iterator[None]:
    with atomic_path(path) as draft:
        draft.write_bytes(content)
        yield


WAYS = pytest.mark.parametrize("write", [by_stream, by_path])
Write = Callable[[Path, bytes], AbstractContextManager[None]]


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were flushed to the disk, and the renames between them."""
    found: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        found.append(f"rename to {target.name}")
        return replace(self, target)

    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_the_last_content_that_was_written_is_read(tmp_path: Path, contents: list[bytes]) -> None:
    path = tmp_path / "file"
    for content in [b"first", *contents]:
        assert write_bytes(path, content).read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_is_written_in_utf_8_with_its_line_ends(tmp_path: Path) -> None:
    assert write_text(tmp_path / "file", "µ\r\n").read_bytes() == b"\xc2\xb5\r\n"


@WAYS
def test_until_the_end_a_reader_sees_the_old_content(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with write(path, b"new"):
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_readers_see_whole_contents_while_a_writer_replaces_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    known = {bytes([letter]) * size for letter, size in ((65, 200_000), (66, 17), (67, 90_000))}
    write_bytes(path, min(known))
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for content in known:
            write_bytes(path, content)
    done.set()
    reader.join()
    assert seen <= known


@WAYS
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), write(path, b"half"):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@WAYS
def test_a_full_disk_is_the_systems_own_error(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as error, write(path, b"new"):
        pass
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import sys
from pathlib import Path
from hemoscope.files import atomic_file, atomic_folder
path = Path(sys.argv[1])
if sys.argv[2] == "file":
    with atomic_file(path / "file") as stream:
        stream.write(b"half"); stream.flush()
        print("begun", flush=True); sys.stdin.read()
with atomic_folder(path / "folder") as draft:
    (draft / "one").write_bytes(b"half")
    print("begun", flush=True); sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_in_the_middle_leaves_the_old_file_and_no_folder(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    words: list[Any] = [sys.executable, "-c", KILLED, tmp_path, kind]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "folder").exists()
    (left,) = [one.name for one in tmp_path.iterdir() if one.name != "file"]
    assert left.startswith(f".{kind}-")
    assert left.endswith(".part")


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path: Path, flushed: list[str]) -> None:
    write_bytes(tmp_path / "file", b"new")
    draft, *rest = flushed
    assert draft.startswith(".file-")
    assert rest == ["rename to file", tmp_path.name]


def test_all_of_a_folder_is_on_the_disk_before_its_name(tmp_path: Path, flushed: list[str]) -> None:
    with atomic_folder(tmp_path / "whole") as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "one").write_bytes(b"1")
        (draft / "two").write_bytes(b"2")
    assert flushed == ["one", "inner", "two", draft.name, "rename to whole", tmp_path.name]
    assert (tmp_path / "whole" / "inner" / "one").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_finished_draft_is_published_as_a_file_or_a_folder(tmp_path: Path, flushed: list[str]) -> None:
    (tmp_path / "draft").write_bytes(b"new")
    publish(tmp_path / "draft", tmp_path / "file")
    assert flushed == ["draft", "rename to file", tmp_path.name]


def test_a_folder_that_fails_is_removed_and_one_that_stands_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "whole") as draft:
        (draft / "missing" / "one").write_bytes(b"1")
    assert not list(tmp_path.iterdir())
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "mine").write_bytes(b"old")
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "whole"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["whole", "mine"]


def test_a_new_file_never_replaces_one_and_is_removed_after_an_error(tmp_path: Path, flushed: list[str]) -> None:
    with new_file(tmp_path / "key", mode=0o600) as stream:
        stream.write(b"secret")
    assert flushed == ["key"]
    with pytest.raises(FileExistsError), new_file(tmp_path / "key"):
        pass
    assert (tmp_path / "key").read_bytes() == b"secret"
    with pytest.raises(ValueError, match="no"), new_file(tmp_path / "other"):
        raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_line_is_added_and_flushed_and_a_new_files_name_too(tmp_path: Path, flushed: list[str]) -> None:
    path = tmp_path / "log"
    append_line(path, "one", mode=0o600)
    append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"
    assert flushed == ["log", tmp_path.name, "log"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("mode", "mask", "found"), [(0o600, 0o022, 0o600), (0o666, 0o022, 0o644), (0o666, 0o077, 0o600)]
)
def test_modes_are_those_that_were_asked_for_within_the_umask(tmp_path: Path, mode: int, mask: int, found: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "one", "", mode=mode)
        with atomic_path(tmp_path / "two", mode=mode) as draft:
            assert stat.S_IMODE(draft.stat().st_mode) == found
        with new_file(tmp_path / "three", mode=mode):
            pass
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {found}


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_without_fsync_for_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    def unable(_descriptor: int) -> None:
        raise OSError(number, "cannot")

    monkeypatch.setattr("os.fsync", unable)
    if passes:
        sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match="cannot"):
            sync_folder(tmp_path)
