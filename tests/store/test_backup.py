"""A backup holds what the site had at one moment, while it works; a restore makes a site of it, on either database."""

import errno
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hemoscope.errors import ConfigError, DataError
from hemoscope.labels import Hemorrhage
from hemoscope.pacs.arrivals import Arrivals
from hemoscope.pacs.spool import Spool
from hemoscope.store import backup as backup_module
from hemoscope.store import tables
from hemoscope.store.backup import make_backup
from hemoscope.store.backup_files import SUMS
from hemoscope.store.migrate import known_revisions
from hemoscope.store.node_settings import Node, NodeSettings
from hemoscope.store.restore import check_backup, restore
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store
from hemoscope.store.values import StudyState, StudySummary, Verdict, WorklistQuery

Submit = Callable[..., StudySummary]
Work = Callable[..., int]
Query = Callable[..., list[Any]]


def backed_up(store: Store, target: Path) -> Path:
    make_backup(store._database, store.folder, target)
    return target


def everything(store: Store) -> list[Any]:
    """All that a page could show, but for versions."""
    listed = store.studies(WorklistQuery(limit=1000))[0]
    shown = []
    for one in sorted(listed, key=lambda one: one.study_id):
        detail = store.get(one.study_id).model_dump(exclude={"version"})
        pixels = store.pixels(one.study_id, 0) if one.has_pixels else b""
        shown.append((detail, pixels, store.heatmap(one.study_id, 0, "any") if one.has_maps else b""))
    return [shown, store.audit_log(limit=1000), [store.feedback(one.study_id) for one in listed], store.settings()]


@pytest.fixture
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A second database, in SQLite within the new folder."""
    return f"sqlite:///{tmp_path}/restored/hemoscope.sqlite3"


@pytest.fixture
def filled(opened: Callable[..., Store], submit: Submit, work: Work, series: list[bytes]) -> Store:
    """A site with a study that was read, one that waits, feedback, a setting, and a folder in the trash."""
    store = opened(keep_source=True)
    read = submit(store, series)
    work(store, keep_identity=True)
    store.add_feedback(
        read.study_id, label=Hemorrhage.ANY, verdict=Verdict.AGREE, present=True, note="ä\n“x”", by="anna"
    )
    store.put_setting("prevalence", 0.125, by="anna")
    submit(store, series)
    (store.folder.swept / ("1700000000-" + "a" * 32)).mkdir()
    (store.folder.swept / ("1700000000-" + "a" * 32) / "source").write_bytes(b"kept for days")
    store.folder.pseudonym_key()
    return store


def test_a_restored_site_is_the_site_and_reads_what_waited(
    filled: Store, target_url: str, tmp_path: Path, work: Work
) -> None:
    backup, before = backed_up(filled, tmp_path / "backup"), everything(filled)
    settings = Settings(storage=tmp_path / "restored", database=target_url)
    restore(backup, settings)
    restored = open_store(settings)
    assert everything(restored) == before
    assert restored.folder.pseudonym_key() == filled.folder.pseudonym_key()
    assert [one.name for one in restored.folder.swept.iterdir()] == ["1700000000-" + "a" * 32]
    assert work(restored) == 1
    assert {one.state for one in restored.studies()[0]} == {StudyState.DONE}
    assert (
        restored.add_feedback(
            restored.studies()[0][0].study_id, label=Hemorrhage.ANY, verdict=Verdict.AGREE, present=True, by="anna"
        ).feedback_id
        > 1
    )
    restored.close()


@pytest.mark.reference_tool
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_site_on_sqlite_moves_to_postgresql(
    filled: Store, postgresql: Callable[[], str], tmp_path: Path, work: Work, submit: Submit
) -> None:
    backup, before = backed_up(filled, tmp_path / "backup"), everything(filled)
    settings = Settings(storage=tmp_path / "restored", database=postgresql())
    restore(backup, settings)
    restored = open_store(settings)
    assert everything(restored) == before
    assert work(restored) == 1
    submit(restored, [b"x"])  # new rows get new numbers
    restored.audit(user="anna", action="look")
    restored.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_reading_under_way_waits_again_and_its_attempt_does_not_count(
    filled: Store, target_url: str, tmp_path: Path, query: Query
) -> None:
    filled.jobs.join("1" * 32, host="here", pid=1)
    assert filled.jobs.lease("1" * 32) is not None
    backup = backed_up(filled, tmp_path / "backup")
    settings = Settings(storage=tmp_path / "restored", database=target_url)
    restore(backup, settings)
    restored = open_store(settings)
    states = sorted(query(restored, sa.select(tables.jobs.c.state, tables.jobs.c.attempts)))
    assert states == [("done", 1), ("queued", 0)]
    assert query(restored, sa.select(tables.workers)) == []
    restored.close()


def test_a_backup_while_uploads_and_readings_go_on_lacks_nothing(
    opened: Callable[..., Store], submit: Submit, work: Work, series: list[bytes], tmp_path: Path
) -> None:
    """Each restored study is done with its pixels, or waits with its files."""
    site, reader = opened(), opened()
    ended = threading.Event()
    errors: list[BaseException] = []

    def loop(step: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                while not ended.is_set():
                    step()
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        return threading.Thread(target=run)

    def upload() -> None:
        submit(site, series)
        newest = site.studies(WorklistQuery(limit=1000))[0]
        if len(newest) % 3 == 0:
            site.delete(newest[0].study_id, by="anna")
        ended.wait(0.3)

    threads = [loop(upload), loop(lambda: work(reader))]
    for thread in threads:
        thread.start()
    backups = [backed_up(site, tmp_path / f"backup-{number}") for number in range(3)]
    ended.set()
    for thread in threads:
        thread.join()
    assert errors == []
    seen = 0
    for backup in backups:
        assert check_backup(backup).missing == ()
        settings = Settings(storage=tmp_path / f"of-{backup.name}")
        restore(backup, settings)
        restored = open_store(settings)
        work(restored)
        found = restored.studies(WorklistQuery(limit=1000))[0]
        assert all(one.state is StudyState.DONE and restored.pixels(one.study_id, 4) for one in found)
        seen += len(found)
        restored.close()
    assert seen


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_study_that_the_node_hands_over_during_a_backup_is_read_after_the_restore(
    opened: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = opened()
    spool, quick = Spool(site.folder.received), NodeSettings(node=Node(quiet_seconds=0))
    assert spool.store(b"image", study="study", instance="1", sender="CT1")
    write_tables = backup_module._write_tables

    def write_then_hand_over(*arguments: Any) -> Any:
        written = write_tables(*arguments)
        Arrivals(spool, site, quick, limits=site.read_limits).step()
        return written

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "_write_tables", write_then_hand_over)
        backup = backed_up(site, tmp_path / "backup")
    assert site.studies()[1] == 1
    settings = Settings(storage=tmp_path / "restored")
    restore(backup, settings)
    with closing(open_store(settings)) as restored:
        assert restored.studies()[1] == 0
        arrivals = Arrivals(Spool(restored.folder.received), restored, quick, limits=restored.read_limits)
        arrivals.step()
        assert restored.studies()[1] == 1


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_files_that_are_gone_are_named_and_the_rest_is_kept(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "_PAUSES_S", (0.0,))
    done, waiting = sorted(filled.studies()[0], key=lambda one: one.state)
    volume = filled.folder.study(done.upload_id, done.study_id) / "volume.npy"
    volume.unlink()
    shutil.rmtree(filled.folder.source(waiting.upload_id))
    manifest = make_backup(filled._database, filled.folder, tmp_path / "backup")
    assert set(manifest.missing) == {f"{done.upload_id}/{done.study_id}/volume.npy", waiting.upload_id}
    assert check_backup(tmp_path / "backup") == manifest


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_backup_that_was_changed_is_refused_and_names_the_file(filled: Store, tmp_path: Path) -> None:
    backup = backed_up(filled, tmp_path / "backup")
    settings = Settings(storage=tmp_path / "restored")
    for path in sorted(path for path in backup.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        if not whole:
            continue
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(DataError, match=r"backup: .*Nothing was restored" if path.name == SUMS else path.name):
            restore(backup, settings)
        path.unlink()
        with pytest.raises(DataError, match=rf"{SUMS}|{path.name}: missing"):
            restore(backup, settings)
        path.write_bytes(whole)
    (backup / "storage" / "added").write_bytes(b"x")
    with pytest.raises(DataError, match="storage/added: not part of it"):
        restore(backup, settings)
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_tables_of_another_time_do_not_pass(filled: Store, submit: Submit, tmp_path: Path) -> None:
    earlier = backed_up(filled, tmp_path / "earlier")
    submit(filled, [b"x"])
    later = backed_up(filled, tmp_path / "later")
    shutil.copy(earlier / "tables" / "studies.jsonl", later / "tables" / "studies.jsonl")
    with pytest.raises(DataError, match=r"tables/studies\.jsonl: changed"):
        restore(later, Settings(storage=tmp_path / "restored"))


def test_nothing_is_written_over(filled: Store, url: str, tmp_path: Path) -> None:
    backup, before = backed_up(filled, tmp_path / "backup"), everything(filled)
    words = r"backup backup of 20.* is not restored: storage folder storage is not empty .2 uploads, id [0-9a-f]{8}"
    with pytest.raises(ConfigError, match=words):
        restore(backup, Settings(storage=filled.folder.root, database=f"sqlite:///{tmp_path}/new.sqlite3"))
    with pytest.raises(ConfigError, match=r"not restored: (the file store.sqlite exists|database .*.2 studies)"):
        restore(backup, Settings(storage=tmp_path / "new", database=url))
    with pytest.raises(ConfigError, match="backup exists and is not empty"):
        make_backup(filled._database, filled.folder, backup)
    assert everything(filled) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_log_that_another_database_left_is_not_replayed(filled: Store, tmp_path: Path, suffix: str) -> None:
    backup = backed_up(filled, tmp_path / "backup")
    (tmp_path / f"new.sqlite3{suffix}").write_bytes(b"of another database")
    with pytest.raises(ConfigError, match=f"the file new.sqlite3{suffix} exists"):
        restore(backup, Settings(storage=tmp_path / "new", database=f"sqlite:///{tmp_path}/new.sqlite3"))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_restored_half_never_meets_a_half_of_the_site(filled: Store, url: str, tmp_path: Path) -> None:
    backup = backed_up(filled, tmp_path / "backup")
    restore(backup, Settings(storage=tmp_path / "restored"))
    with pytest.raises(ConfigError, match="do not belong together: the folder holds another id"):
        open_store(Settings(storage=tmp_path / "restored", database=url))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_only_the_log_of_sqlite_holds_is_in_the_backup(
    opened: Callable[..., Store], submit: Submit, tmp_path: Path
) -> None:
    store = opened()
    entry = submit(store, [b"x"])
    with sqlite3.connect(f"file:{tmp_path}/store.sqlite?immutable=1", uri=True) as alone:
        assert alone.execute("SELECT name FROM sqlite_master WHERE name = 'studies'").fetchall() == []
    rows = (backed_up(store, tmp_path / "backup") / "tables" / "studies.jsonl").read_text().splitlines()
    assert [json.loads(row)["study_id"] for row in rows] == [entry.study_id]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_backup_of_a_newer_version_is_refused(filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = backed_up(filled, tmp_path / "backup")
    monkeypatch.setattr(backup_module, "known_revisions", lambda: known_revisions()[:-1])
    with pytest.raises(ConfigError, match=r"made by a newer Hemoscope .*, revision \d{4}.. Install that version"):
        restore(backup, Settings(storage=tmp_path / "restored"))


def test_a_snapshot_sees_one_moment(store: Store, submit: Submit) -> None:
    count = sa.select(sa.func.count()).select_from(tables.studies)
    with store.database.snapshot() as connection:
        assert connection.execute(count).scalar_one() == 0
        submit(store, [b"x"])
        assert connection.execute(count).scalar_one() == 0
    with store.database.snapshot() as connection:
        assert connection.execute(count).scalar_one() == 1


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_disk_without_space_for_the_backup_is_named_and_leaves_nothing(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("copy_file", "private_file"):
        with monkeypatch.context() as patch:
            patch.setattr(backup_module, name, lambda *arguments: full(arguments[0]))
            with pytest.raises(DataError, match=r"backup cannot be written or read .No space left"):
                make_backup(filled.database, filled.folder, tmp_path / "backup")
    assert [one.name for one in tmp_path.iterdir() if "backup" in one.name] == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_empty_folder_that_exists_is_restored_into_and_kept(filled: Store, tmp_path: Path) -> None:
    backup, folder = backed_up(filled, tmp_path / "backup"), tmp_path / "mounted"
    folder.mkdir(mode=0o700)
    inode = folder.stat().st_ino
    restore(backup, Settings(storage=folder))
    assert folder.stat().st_ino == inode
    assert not [one.name for one in folder.iterdir() if "restore" in one.name]
    open_store(Settings(storage=folder)).close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_only_the_owner_can_read_a_backup(filled: Store, tmp_path: Path) -> None:
    backup = backed_up(filled, tmp_path / "backup")
    assert all(path.stat().st_mode & 0o077 == 0 for path in [backup, *backup.rglob("*")])
