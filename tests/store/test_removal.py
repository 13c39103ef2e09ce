"""Deletion from the disk and from the tables is complete, also after a crash."""

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hemoscope.errors import StoreError
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import Hemorrhage
from hemoscope.store import clock_watch, removal, sweep, tables
from hemoscope.store.database import Database
from hemoscope.store.found_studies import FoundStudy, further_study_id
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.values import Role, StudyState, StudySummary, User, Verdict

Submit = Callable[..., StudySummary]
Work = Callable[..., int]
Query = Callable[..., list[Any]]
AN_HOUR_AND_MORE = 3700
RESTORED = (tables.uploads, tables.studies, tables.jobs)


def left(store: Store) -> list[str]:
    own = (".trash", ".swept", ".store-id")
    return sorted(path.name for path in store.folder.root.rglob("*") if path.name not in own)


def sweep_an_hour_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sweep see what is there, and again after an hour without a change."""
    store.sweep()
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "monotonic", lambda: time.monotonic() + AN_HOUR_AND_MORE)
        store.sweep()


def test_a_deleted_study_is_gone(store: Store, submit: Submit, work: Work, series: list[bytes], query: Query) -> None:
    entry = submit(store, series)
    work(store)
    store.add_feedback(entry.study_id, label=Hemorrhage.ANY, verdict=Verdict.AGREE, present=True, by="anna")
    store.audit(user="anna", action="view", study_id=entry.study_id)
    store.delete(entry.study_id, by="bert")
    assert left(store) == []
    with pytest.raises(StoreError, match="no such study"):
        store.get(entry.study_id)
    for table in (tables.uploads, tables.studies, tables.results, tables.jobs, tables.feedback):
        assert query(store, table.select()) == []


def test_of_feedback_and_audit_only_counts_survive(
    store: Store, submit: Submit, work: Work, series: list[bytes]
) -> None:
    entry = submit(store, series)
    work(store)
    for verdict in (Verdict.AGREE, Verdict.AGREE, Verdict.CORRECTED):
        store.add_feedback(
            entry.study_id, label=Hemorrhage.ANY, verdict=verdict, present=True, note="secret", by="anna"
        )
    store.audit(user="anna", action="view", study_id=entry.study_id)
    store.delete(entry.study_id, by="bert")
    counts = store.counts()
    assert counts.feedback == {Verdict.AGREE: 2, Verdict.CORRECTED: 1, Verdict.WITHDRAWN: 0}
    assert counts.deleted == 1
    assert [(one.user, one.action, one.study_id) for one in store.audit_log()] == [
        ("bert", "delete", None),
        ("anna", "view", None),
        *[("anna", "feedback", None)] * 3,
        ("tester", "upload", None),
    ]
    assert "secret" not in str(store.audit_log())


def test_deleting_twice_says_that_it_is_gone(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    store.delete(entry.study_id, by="anna")
    with pytest.raises(StoreError, match="no such study"):
        store.delete(entry.study_id, by="anna")
    assert store.counts().deleted == 1


def test_one_study_of_several_goes_alone_and_takes_the_sources_along(
    opened: Callable[..., Store], submit: Submit, work: Work, series: list[bytes], query: Query
) -> None:
    store = opened(keep_source=True)
    entry = submit(store, [*series, *other_study(series)])
    work(store)
    second = further_study_id(entry.upload_id, 1)
    store.delete(second, by="anna")
    assert [one.study_id for one in store.studies()[0]] == [entry.study_id]
    assert not store.folder.source(entry.upload_id).exists()
    assert len(store.pixels(entry.study_id, 0)) == 64 * 64 * 2


def other_study(series: list[bytes]) -> list[bytes]:
    import pydicom

    files = []
    for content in series:
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "9.9.9", "9.9.9.1"
        out = io.BytesIO()
        dataset.save_as(out)
        files.append(out.getvalue())
    return files


def test_a_study_deleted_does_not_come_back_when_its_job_runs_again(
    opened: Callable[..., Store], submit: Submit, work: Work, series: list[bytes], query: Query
) -> None:
    store = opened(keep_source=True)
    entry = submit(store, [*series, *other_study(series)])
    job = store.jobs.lease("1" * 32)
    assert job is not None
    _, second = store.results.begin(job, [FoundStudy(instances=5)] * 2)
    assert second is not None
    store.delete(second, by="anna")
    store.jobs.give_back(job)
    work(store)
    assert [one.study_id for one in store.studies()[0]] == [entry.study_id]
    assert not store.folder.source(entry.upload_id).exists()


def test_the_other_study_of_an_upload_is_read_to_its_end(
    store: Store, submit: Submit, work: Work, series: list[bytes], monkeypatch: pytest.MonkeyPatch, query: Query
) -> None:
    entry = submit(store, [*series, *other_study(series)])
    second = further_study_id(entry.upload_id, 1)
    read = Predictor.read

    def delete_second(self: Predictor, *arguments: Any, **options: Any) -> Any:
        if store.get(second).has_pixels:
            store.delete(second, by="anna")
        return read(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "read", delete_second)
    assert work(store) == 1
    assert [(one.study_id, one.state) for one in store.studies()[0]] == [(entry.study_id, StudyState.DONE)]
    assert left(store) == sorted([entry.upload_id, entry.study_id, "volume.npy", "maps.npy"])


def test_retention_goes_on_past_a_study_that_another_process_deleted(
    store: Store, submit: Submit, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (submit(store, [b"x"]) for _ in range(3))
    query(store, tables.studies.update().values(received_at=datetime.now(UTC) - timedelta(days=2)))
    delete = removal.delete_study

    def with_another_process(*place: Any, **by: str) -> None:
        monkeypatch.undo()
        for gone in (first, second):
            store.delete(gone.study_id, by="another")
        delete(*place, **by)

    monkeypatch.setattr(removal, "delete_study", with_another_process)
    assert store.retention(1) == 1
    assert store.studies()[1] == 0
    assert not store.folder.upload(third.upload_id).exists()


def test_studies_past_their_retention_are_deleted_and_others_stay(store: Store, submit: Submit, query: Query) -> None:
    old, new = submit(store, [b"x"]), submit(store, [b"x"])
    past = datetime.now(UTC) - timedelta(days=30, hours=1)
    query(store, tables.studies.update().where(tables.studies.c.study_id == old.study_id).values(received_at=past))
    assert store.retention(31) == 0
    assert "retention" not in {one.user for one in store.audit_log()}
    assert store.retention(30) == 1
    newest = store.audit_log()[0]
    assert (newest.user, newest.action, newest.detail) == ("retention", "delete", "after 30 days")
    assert [one.study_id for one in store.studies()[0]] == [new.study_id]
    assert not store.folder.upload(old.upload_id).exists()


@pytest.mark.parametrize("crash", ["_delete_rows", "remove"])
def test_a_deletion_cut_short_is_finished_by_the_sweep(
    store: Store, submit: Submit, work: Work, series: list[bytes], monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    entry = submit(store, series)
    work(store)

    def die(*_arguments: Any, **_by: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removal if crash == "_delete_rows" else store.folder, crash, die)
        with pytest.raises(KeyboardInterrupt):
            store.delete(entry.study_id, by="anna")
    with pytest.raises(StoreError, match=r"no such study|no pixels"):
        store.pixels(entry.study_id, 0)
    sweep_an_hour_later(store, monkeypatch)
    assert left(store) == []
    assert store.studies() == ((), 0)
    assert store.counts().deleted == 1
    assert [one.user for one in store.audit_log() if one.action == "delete"] == ["anna"]


def test_uploads_never_accepted_are_swept_after_a_while_and_not_before(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = submit(store, [b"kept"])
    upload = store.begin_upload()
    upload.__enter__()
    upload.add_file(io.BytesIO(b"and then the power went"))
    store.sweep()
    assert store.folder.upload(upload.upload_id).is_dir()
    sweep_an_hour_later(store, monkeypatch)
    assert not store.folder.upload(upload.upload_id).exists()
    assert store.folder.upload(entry.upload_id).is_dir()


def test_an_upload_that_still_arrives_is_not_swept_whatever_the_clock_shows(
    store: Store, monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[float], None]
) -> None:
    upload = store.begin_upload()
    upload.__enter__()
    upload.add_file(io.BytesIO(b"one"))
    store.sweep()
    set_clock(24)
    os.utime(store.folder.source(upload.upload_id), (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "monotonic", lambda: time.monotonic() + AN_HOUR_AND_MORE)
        upload.add_file(io.BytesIO(b"two, an hour later"))
        store.sweep()
    assert store.folder.upload(upload.upload_id).is_dir()


def test_arrays_of_no_study_are_swept(store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = submit(store, [b"x"])
    stray = store.folder.upload(entry.upload_id) / ("f" * 32)
    stray.mkdir()
    sweep_an_hour_later(store, monkeypatch)
    assert not stray.exists()
    assert store.folder.source(entry.upload_id).is_dir()


def test_sources_of_a_failed_job_are_swept(store: Store, submit: Submit, query: Query) -> None:
    entry = submit(store, [b"x"])
    query(store, tables.jobs.update().values(state="failed"))
    store.sweep()
    assert not store.folder.source(entry.upload_id).exists()


def test_what_is_past_is_forgotten(store: Store, submit: Submit, query: Query) -> None:
    entry = submit(store, [b"x"])
    store.delete(entry.study_id, by="anna")
    store.open_session(User(name="anna", role=Role.READER), lasting=timedelta(seconds=-1))
    store.jobs.join("1" * 32, host="here", pid=1)
    past = datetime.now(UTC) - timedelta(days=8)
    query(store, tables.deletions.update().values(deleted_at=past))
    query(store, tables.workers.update().values(beat_at=past))
    store.sweep()
    for table in (tables.deletions, tables.sessions, tables.workers):
        assert query(store, table.select()) == []


def test_what_the_database_does_not_know_is_kept_for_days_logged_and_put_back(
    store: Store, submit: Submit, query: Query, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restore of yesterday's database: the studies of today are in the folder alone."""
    entry = submit(store, [b"the only copy"])
    rows = {table: [dict(row._mapping) for row in query(store, table.select())] for table in RESTORED}
    query(store, tables.uploads.delete())
    sweep_an_hour_later(store, monkeypatch)
    (swept,) = store.folder.swept.iterdir()
    assert (swept / "source" / "000001").read_bytes() == b"the only copy"
    assert f"1 folders moved into .swept (unknown to the database; kept for 7 days): {entry.upload_id}" in caplog.text
    for table, values in rows.items():
        query(store, table.insert().values(values))
    store.sweep()
    assert list(store.folder.swept.iterdir()) == []
    assert (store.folder.source(entry.upload_id) / "000001").read_bytes() == b"the only copy"


def test_what_was_swept_is_deleted_after_the_days_of_the_setting(
    opened: Callable[..., Store], submit: Submit, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(trash_days=2)
    submit(store, [b"x"])
    query(store, tables.uploads.delete())
    sweep_an_hour_later(store, monkeypatch)
    (swept,) = store.folder.swept.iterdir()
    stamp, upload_id = swept.name.split("-")
    for days, left_over in ((1.9, 1), (2.1, 0)):
        for folder in store.folder.swept.iterdir():
            folder.rename(store.folder.swept / f"{int(stamp) - int(days * 86400)}-{upload_id}")
        store.empty_trash()
        assert len(list(store.folder.swept.iterdir())) == left_over


def test_a_deleted_study_is_not_kept_among_what_was_swept(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = submit(store, [b"x"])
    store.delete(entry.study_id, by="anna")
    written_late = store.folder.study(entry.upload_id, entry.study_id)
    written_late.mkdir(parents=True)
    store.sweep()
    assert left(store) == []


def test_the_sweep_touches_nothing_once_another_folder_is_mounted(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = submit(store, [b"x"])
    store.folder.write_store_id("f" * 32)
    with pytest.raises(StoreError, match="not the one that this process started with"):
        sweep_an_hour_later(store, monkeypatch)
    assert store.folder.source(entry.upload_id).is_dir()


def test_the_source_of_a_study_that_is_done_is_kept_if_its_pixels_are_missing(
    opened: Callable[..., Store], submit: Submit, work: Work, series: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restore of a folder that is older than its database."""
    entry = submit(opened(keep_source=True), series)
    work(opened(keep_source=True))
    store = opened()
    store.folder.remove(store.folder.study(entry.upload_id, entry.study_id))
    store.sweep()
    assert len(list(store.folder.source(entry.upload_id).glob("0*"))) == len(series)
    assert "1 folders kept as source (their pixels are missing)" in caplog.text


def test_an_upload_whose_commit_is_uncertain_keeps_its_files(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke before the answer to COMMIT: the study may be in the database."""
    commit = Database.writing

    @contextmanager
    def without_answer(self: Database) -> Iterator[Any]:
        with commit(self) as connection:
            yield connection
        raise StoreError(code="database_unreachable", reason="lost", remedy="wait")

    monkeypatch.setattr(Database, "writing", without_answer)
    with pytest.raises(StoreError, match="lost"):
        submit(store, [b"x"])
    monkeypatch.undo()
    (listed,) = store.studies()[0]
    assert (store.folder.source(listed.upload_id) / "000001").read_bytes() == b"x"


def test_no_clock_that_is_set_deletes_by_age(store: Store) -> None:
    clock, moment = store.clock_watch(), datetime(2026, 3, 1, tzinfo=UTC)
    assert clock.steady(moment)
    assert clock.steady(moment + timedelta(minutes=10))
    assert not clock.steady(moment + timedelta(days=400))
    assert not clock.steady(moment + timedelta(days=400))


class Running:
    """The clocks of a machine that runs for some hours: the database's, and the one that nobody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[float], None]) -> None:
        self._now, self._hours, self._passed = datetime.now(UTC), 0.0, 0.0
        self._set_clock = set_clock
        monkeypatch.setattr(clock_watch, "monotonic", lambda: 3600 * self._passed)

    def set(self, hours: float) -> datetime:
        """Set the clock by so many hours; returns what it shows."""
        self._hours += hours
        self._set_clock(self._hours)
        return self._now + timedelta(hours=self._hours)

    def run(self, hours: float) -> datetime:
        self._passed += hours
        return self.set(hours)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[float], None]) -> Running:
    return Running(monkeypatch, set_clock)


@pytest.mark.parametrize("hours", [-400 * 24, -25, 25, 400 * 24])
def test_a_clock_that_was_set_while_nothing_ran_is_not_trusted_for_a_day(
    store: Store, submit: Submit, running: Running, caplog: pytest.LogCaptureFixture, hours: int
) -> None:
    """Nor is that of a site that was switched off for so long, which deletes a day later."""
    submit(store, [b"x"])
    moment = running.set(hours)
    clock = store.clock_watch()
    assert not clock.steady(moment)
    assert not clock.steady(running.run(23))
    assert clock.steady(running.run(1.1))
    assert caplog.text.count("nothing is deleted by age for a day") == 1
    assert ("retention", "wait") in {(one.user, one.action) for one in store.audit_log()}


@pytest.mark.parametrize("hours", [-400 * 24, 400 * 24])
def test_a_restart_forgets_no_clock_that_was_set_before_it(
    store: Store, submit: Submit, running: Running, hours: int
) -> None:
    submit(store, [b"x"])
    running.set(hours)
    submit(store, [b"while the clock was wrong"])
    running.run(2)
    submit(store, [b"and again"])
    clock = store.clock_watch()
    assert not clock.steady(running.run(2))
    assert not clock.steady(running.run(23))
    assert clock.steady(running.run(1.1))


def test_a_clock_that_is_right_is_trusted_at_once(store: Store, submit: Submit, running: Running) -> None:
    assert store.clock_watch().steady(running.run(1)), "a new site"
    for _ in range(5):
        submit(store, [b"x"])
        assert store.clock_watch().steady(running.run(20))


@pytest.mark.parametrize("hours", [1, 20, 30])
def test_a_site_where_nothing_happens_deletes_all_the_same_however_often_it_is_restarted(
    store: Store, submit: Submit, running: Running, hours: int
) -> None:
    submit(store, [b"x"])
    running.set(30 * 24)
    trusted, end = list[bool](), 0
    while end < 100:
        end += hours
        clock = store.clock_watch()
        trusted += [clock.steady(running.run(0)), clock.steady(running.run(hours))]
    assert trusted[0] is False
    assert any(trusted)


def test_a_supervisor_deletes_nothing_by_a_clock_that_was_set_while_it_was_stopped(
    store: Store, submit: Submit, running: Running, tmp_path: Path
) -> None:
    entry = submit(store, [b"x"])
    running.set(60 * 24)
    supervisor = Supervisor(store, Settings(storage=tmp_path, workers=0, retention_days=30))
    supervisor._tidy()
    assert store.studies()[0] == (entry,)
