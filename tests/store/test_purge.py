"""After ``purge-identity`` no file of a store holds the patient's name, ID, birth date or accession number."""

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa

from hemoscope import cli
from hemoscope.errors import StoreError
from hemoscope.store import tables
from hemoscope.store.purge import purge_identity, stored_identity
from hemoscope.store.store import Store
from hemoscope.store.values import StudySummary, WorklistQuery

Submit = Callable[..., StudySummary]
Work = Callable[..., int]
NAME, IDENTIFIER, BORN, ACCESSION = "Quint^Philomena", "MRN-60417", "19310227", "ACC-88213"
WORDS = [
    word.encode() for word in ("Quint", "quint", "Philomena", "philomena", IDENTIFIER, "mrn-60417", BORN, ACCESSION)
]


@pytest.fixture
def named(series: list[bytes]) -> list[bytes]:
    """The series of a patient with identity in every place where files carry it."""
    files = []
    for content in series:
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.PatientName, dataset.PatientID = NAME, IDENTIFIER
        dataset.PatientBirthDate, dataset.AccessionNumber = BORN, ACCESSION
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        files.append(buffer.getvalue())
    return files


@pytest.fixture
def site(opened: Callable[..., Store], submit: Submit, work: Work, named: list[bytes]) -> Store:
    """A site that showed identity and kept sources: a study that was read, one that failed, one in the trash."""
    store = opened(keep_source=True)
    submit(store, named)
    submit(store, [b"no slice of " + NAME.encode()])
    work(store, keep_identity=True)
    swept = store.folder.swept / ("1700000000-" + "a" * 32) / "source"
    swept.mkdir(parents=True)
    (swept / "000001").write_bytes(named[0])
    (store.folder.trash / ("b" * 32)).mkdir()
    (store.folder.trash / ("b" * 32) / "000001").write_bytes(named[0])
    return store


def found_in(store: Store, folder: Path) -> set[bytes]:
    """The words that any file below a folder, or any column of the database, holds."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    with store.database.reading() as connection:
        contents += [repr(connection.execute(sa.select(one)).all()).encode() for one in tables.metadata.sorted_tables]
    return {word for word in WORDS for content in contents if word in content}


def test_nothing_of_the_patient_is_left(site: Store, tmp_path: Path) -> None:
    assert len(found_in(site, tmp_path)) == len(WORDS)
    before = stored_identity(site)
    assert (before.names, before.sources, before.swept, before.waiting) == (1, 2, 1, 0)
    assert purge_identity(site) == before
    assert found_in(site, tmp_path) == set()
    after = stored_identity(site)
    assert (after.names, after.sources, after.swept) == (0, 0, 0)


def test_what_the_page_shows_stays_and_open_pages_learn_of_it(site: Store) -> None:
    before = {one.study_id: one for one in site.studies()[0]}
    version = max(one.version for one in before.values())
    (done,) = [one for one in before.values() if one.identity is not None]
    pixels, heat, findings = site.pixels(done.study_id, 0), site.heatmap(done.study_id, 0, "any"), site.findings_json
    text = findings(done.study_id)
    purge_identity(site)
    (changed,) = site.changes_since(version).studies
    assert changed.study_id == done.study_id
    assert changed == done.model_copy(update={"identity": None, "version": changed.version})
    assert (site.pixels(done.study_id, 0), site.heatmap(done.study_id, 0, "any")) == (pixels, heat)
    assert findings(done.study_id) == text
    for search in (done.study_id, done.urgency or "", *done.suspected):
        assert done.study_id in {one.study_id for one in site.studies(WorklistQuery(search=search, identity=True))[0]}
    assert site.studies(WorklistQuery(search="quint", identity=True))[1] == 0


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_files_of_an_upload_that_waits_stay(site: Store, submit: Submit, work: Work, named: list[bytes]) -> None:
    waiting = submit(site, named)
    assert purge_identity(site).waiting == 1
    assert site.folder.source(waiting.upload_id).is_dir()
    assert work(site) == 1


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_database_file_that_others_read_is_named(
    site: Store, opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = opened()
    with other.database.reading() as connection:
        connection.execute(sa.select(tables.studies)).all()
        site.database._engine.dispose()
        monkeypatch.setattr("hemoscope.store.database._BUSY_MS", 100)
        with pytest.raises(StoreError, match="another process uses the database file"):
            purge_identity(site)


def removal_fails(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path], bool]) -> None:
    """Let these folders neither be moved nor removed, as on a disk with a bad block."""
    rename, remove = Path.rename, shutil.rmtree

    def check(folder: Path) -> None:
        if fails(folder):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    monkeypatch.setattr(Path, "rename", lambda self, target: (check(self), rename(self, target))[1])
    monkeypatch.setattr(shutil, "rmtree", lambda folder, *more, **options: (check(folder), remove(folder))[1])


def test_folders_that_cannot_be_removed_are_named_and_hold_no_other_one_up(
    site: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A source that cannot be moved, and another one and the swept one that cannot be removed."""
    first, second = sorted(site.folder.root.glob("*/source"))
    swept = "1700000000-" + "a" * 32
    with monkeypatch.context() as patch:
        removal_fails(patch, lambda one: one == first or one.name.startswith(second.parent.name) or swept in one.parts)
        with pytest.raises(
            StoreError, match=r"^3 folders with uploaded files could not be removed: .*again$"
        ) as raised:
            purge_identity(site)
    (aside,) = site.folder.trash.iterdir()
    for left in (f"{first.parent.name}/source", f".trash/{aside.name}", f".swept/{swept}/source"):
        assert left in str(raised.value)
    assert "3 folders of uploaded files cannot be handled (Input/output error)" in caplog.text
    assert not (site.folder.trash / ("b" * 32)).exists(), "it came after them"
    assert stored_identity(site).names == 0
    assert (site.audit_log()[0].action, site.audit_log()[0].detail[-16:]) == ("purge", ", 3 folders left")
    purge_identity(site)
    assert found_in(site, tmp_path) == set()


def test_a_folder_that_nobody_can_look_at_counts_as_left(site: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted(site.folder.root.glob("*/source"))
    is_dir = Path.is_dir

    def refuse(path: Path) -> bool:
        if path == first:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    removal_fails(monkeypatch, lambda one: one == first)
    with pytest.raises(StoreError, match=f"1 folder with uploaded files .*{first.parent.name}/source"):
        purge_identity(site)
    assert not second.exists()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_command_fails_if_a_folder_is_left_and_says_no_name_that_others_gave(
    site: Store, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder.trash / NAME).write_text("a file, which no removal of folders removes")
    with site.database.writing() as connection:
        connection.execute(tables.workers.delete())
    assert cli.main(words(url, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "1 folder with uploaded files could not be removed: one with a name of its own. All else was removed" in said
    assert "run the command again" in said
    assert "Quint" not in said
    assert stored_identity(site).names == 0


def words(url: str, tmp_path: Path, *more: str) -> list[str]:
    return ["purge-identity", "--storage", str(tmp_path / "storage"), "--database", url, *more]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_dry_run_removes_nothing(site: Store, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(url, tmp_path, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "Would be removed:\n  name and ID of 1 study\n  uploaded files of 2 uploads" in said
    assert "What remains:" in said
    assert len(found_in(site, tmp_path)) == len(WORDS)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_site_that_still_keeps_identity_or_works_is_refused(
    site: Store, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMOSCOPE_SHOW_IDENTITY", "1")
    assert cli.main(words(url, tmp_path)) == 2
    assert "still have show_identity: new studies would bring identity back" in capsys.readouterr().err
    monkeypatch.delenv("HEMOSCOPE_SHOW_IDENTITY")
    assert cli.main(words(url, tmp_path)) == 2
    assert "1 workers are running, perhaps with earlier settings. Stop the server" in capsys.readouterr().err
    with site.database.writing() as connection:
        connection.execute(tables.workers.delete())
    assert cli.main(words(url, tmp_path)) == 0
    assert "Removed:\n  name and ID of 1 study" in capsys.readouterr().out


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["purge-identity"], ["backup", str(tmp_path / "copy")]):
        assert cli.main([*command, "--storage", str(tmp_path / "none")]) == 2
        assert "there is no storage folder none and no database hemoscope.sqlite3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_backup_and_restore_by_command(
    site: Store, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--storage", str(tmp_path / "storage"), "--database", url]
    assert cli.main(["backup", str(tmp_path / "copy"), *store]) == 0
    assert "copy: 2 studies in 2 uploads, as of 20" in capsys.readouterr().out
    assert cli.main(["restore", str(tmp_path / "copy"), "--check"]) == 0
    assert "copy is complete and unchanged: 2 studies" in capsys.readouterr().out
    assert cli.main(["restore", str(tmp_path / "copy"), "--storage", str(tmp_path / "new")]) == 0
    assert "restored into new: 2 studies" in capsys.readouterr().out
    one = next(one for one in site.studies()[0] if one.has_pixels)
    for source in site.folder.root.glob(f"{one.upload_id}/*/volume.npy"):
        source.unlink()
    assert cli.main(["backup", str(tmp_path / "later"), *store]) == 1
    assert f"{one.upload_id}/{one.study_id}/volume.npy" in capsys.readouterr().err
