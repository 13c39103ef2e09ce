"""Folders that cannot be removed, and names that nobody expects: deletion and sweep go on past them."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hemoscope.store import tables
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.values import Role, StudySummary, User

from .test_removal import left, sweep_an_hour_later

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]


def rmtree_fails(monkeypatch: pytest.MonkeyPatch, names: Callable[[str], bool]) -> None:
    """Let the removal of folders with these names fail, as on a disk with a bad block."""
    right = shutil.rmtree

    def remove(folder: Path, *arguments: Any, **options: Any) -> None:
        if names(folder.name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        right(folder, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", remove)


@pytest.mark.parametrize("crash", [KeyboardInterrupt, OSError(errno.EIO, "Input/output error")])
def test_what_was_swept_and_is_left_in_the_trash_holds_no_sweep_up(
    store: Store,
    submit: Submit,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    set_clock: Callable[[float], None],
    crash: BaseException,
) -> None:
    submit(store, [b"x"])
    query(store, tables.uploads.delete())
    sweep_an_hour_later(store, monkeypatch)
    set_clock(8 * 24)

    def die(*_arguments: Any) -> None:
        raise crash

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(store.folder, "remove", die)
        store.empty_trash()
    (in_trash,) = store.folder.trash.iterdir()
    assert set(in_trash.iterdir())
    store.sweep()
    assert left(store) == []


@pytest.mark.parametrize("name", [f"1767225600-{'1e' * 16}-0a1b2c3d", f"{'1e' * 16}-ff-0a1b2c3d", "f-zz-1", "note.txt"])
def test_names_in_the_trash_that_nobody_expects_hold_no_sweep_up(
    store: Store, submit: Submit, query: Query, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first is what earlier versions left of swept folders; the last is a file, and stays."""
    submit(store, [b"x"])
    store.open_session(User(name="anna", role=Role.READER), lasting=timedelta(seconds=-1))
    place = store.folder.trash / name
    place.write_text("") if name == "note.txt" else place.mkdir()
    store.sweep()
    assert place.exists() == (name == "note.txt") == ("folders of the trash cannot be handled" in caplog.text)
    assert query(store, tables.sessions.select()) == []
    assert len(store.studies()[0]) == 1


def test_a_folder_that_cannot_be_removed_holds_no_other_one_up(
    store: Store, submit: Submit, query: Query, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [submit(store, [b"x"]) for _ in range(3)]
    query(store, tables.studies.update().values(received_at=datetime.now(UTC) - timedelta(days=40)))
    bad = entries[1]
    with monkeypatch.context() as patch:
        rmtree_fails(patch, lambda name: name.startswith(bad.upload_id))
        assert store.retention(30) == 2
        assert "1 studies past their retention cannot be handled (Input/output error)" in caplog.text
        store.sweep()
        assert store.studies()[0] == ()
        (trash,) = store.folder.trash.iterdir()
        assert trash.name.startswith(bad.upload_id)
    store.sweep()
    assert left(store) == []


def test_the_sweep_removes_other_sources_if_one_cannot_be_removed(
    store: Store, submit: Submit, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [submit(store, [b"x"]) for _ in range(3)]
    query(store, tables.jobs.update().values(state="failed"))
    right = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == store.folder.source(entries[1].upload_id):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return right(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    store.sweep()
    there = [store.folder.source(one.upload_id).exists() for one in entries]
    assert there == [False, True, False]


def test_the_supervisor_sweeps_if_retention_fails(
    store: Store, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(store, Settings(storage=tmp_path, workers=0, retention_days=30))
    swept = list[str]()

    def fail(_days: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(store, "retention", fail)
    monkeypatch.setattr(store, "empty_trash", lambda: swept.append("trash"))
    monkeypatch.setattr(store, "sweep", lambda: swept.append("sweep"))
    with pytest.raises(OSError, match="Input/output error"):
        supervisor._tidy()
    assert swept == ["trash", "sweep"]
