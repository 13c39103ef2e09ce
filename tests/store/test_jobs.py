"""One upload is read by one worker at a time, and always ends."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hemoscope.store import jobs, tables
from hemoscope.store.found_studies import FoundStudy
from hemoscope.store.jobs import JobFailure, LeaseLostError, UploadJob
from hemoscope.store.results import StudyResult
from hemoscope.store.store import Store
from hemoscope.store.values import Geometry, StudyState, StudySummary

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]
LetLeaseEnd = Callable[[Store], None]
ONE, TWO = "1" * 32, "2" * 32
GEOMETRY = Geometry(
    slices=1,
    rows=2,
    columns=2,
    spacing_mm=[None, None, None],
    orientation=None,
    positions_mm=[None],
    boxes=[],
    heatmap_shape=None,
    assumed=True,
    labels=[],
    sop_instance_uids=["1.2.3"],
    probabilities=[],
    thresholds={},
    key_slices={},
)
RESULT = StudyResult(findings="{}", geometry=GEOMETRY, urgency="routine", suspected=(), not_established=())
FAILURE = JobFailure(code="internal_error", message="it broke", remedy="repair it")


def leased(store: Store, worker_id: str = ONE) -> UploadJob:
    job = store.jobs.lease(worker_id)
    assert job is not None
    return job


@pytest.fixture
def let_lease_end(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store], None]:
    """``let_lease_end(store)``: the process of this store has watched the present leases for as long as they last."""
    later = 0.0

    def build(store: Store) -> None:
        nonlocal later
        for _ in range(4):
            assert store.jobs.lease("0" * 32) is None
            later += store.jobs.lease_time.total_seconds() / 4
            monkeypatch.setattr(jobs, "monotonic", lambda ahead=later: time.monotonic() + ahead)

    return build


def test_the_longest_waiting_upload_is_taken_first(store: Store, submit: Submit) -> None:
    ids = [submit(store, [b"x"]).upload_id for _ in range(3)]
    assert [leased(store).upload_id for _ in ids] == ids
    assert store.jobs.lease(ONE) is None


def test_who_sent_much_waits_for_those_who_sent_little(store: Store, submit: Submit) -> None:
    """Thirty uploads of one user are in the queue when two others upload; they take turns from then on."""
    sent: dict[str, list[str]] = {}
    for by in ["agnes"] * 30 + ["bruno"] * 2 + ["PACS"]:
        sent.setdefault(by, []).append(submit(store, [b"x"], by=by).upload_id)
    agnes, bruno, pacs = sent["agnes"], sent["bruno"], sent["PACS"]
    expected = [agnes[0], bruno[0], pacs[0], agnes[1], bruno[1], *agnes[2:]]
    assert [leased(store).upload_id for _ in expected] == expected


@pytest.mark.parametrize(("urgency", "first"), [("immediate", 2), ("prompt", 0)])
def test_more_images_of_an_immediate_study_are_read_before_all_that_waits(
    store: Store, submit: Submit, urgency: str, first: int
) -> None:
    """Its results wait for the later reading, in a queue of many studies too."""
    submit(store, [b"x"], by="PACS", uid="1.2")
    job = leased(store)
    (study_id,) = store.results.begin(job, [FoundStudy(instances=1, study_instance_uid="1.2")])
    assert study_id is not None
    store.results.finish_study(job, study_id, replace(RESULT, urgency=urgency))
    store.results.finish_job(job)
    waiting = [submit(store, [b"x"], by=by, uid=uid) for by, uid in (("agnes", None), ("PACS", "1.3"), ("PACS", "1.2"))]
    assert leased(store).upload_id == waiting[first].upload_id


def test_a_turn_is_of_all_workers_and_a_retry_waits_for_the_next_one(
    opened: Callable[..., Store], submit: Submit
) -> None:
    stores = [opened(), opened()]
    uploads = [submit(stores[0], [b"x"], by=by).upload_id for by in ("agnes", "agnes", "bruno", "bruno")]
    first = leased(stores[0])
    assert leased(stores[1], TWO).upload_id == uploads[2]
    stores[0].jobs.retry(first, FAILURE)
    assert [leased(stores[1]).upload_id for _ in range(3)] == [uploads[0], uploads[3], uploads[1]]


def test_several_workers_never_hold_one_job_at_once(opened: Callable[..., Store], submit: Submit) -> None:
    stores = [opened() for _ in range(4)]
    uploads = {submit(stores[0], [b"x"]).upload_id for _ in range(12)}
    runs: Counter[str] = Counter()
    held: set[str] = set()
    doubles: list[str] = []

    def work(store: Store, worker_id: str) -> None:
        while (job := store.jobs.lease(worker_id)) is not None:
            if job.upload_id in held:
                doubles.append(job.upload_id)
            held.add(job.upload_id)
            time.sleep(0.005)
            runs[job.upload_id] += 1
            held.discard(job.upload_id)
            store.results.finish_job(job)

    threads = [threading.Thread(target=work, args=(store, str(n) * 32)) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert doubles == []
    assert runs == Counter(uploads)


def test_a_lease_that_ran_out_goes_to_another_worker_and_the_first_can_write_nothing(
    store: Store, submit: Submit, let_lease_end: LetLeaseEnd
) -> None:
    entry = submit(store, [b"x"])
    slow = leased(store, ONE)
    assert store.jobs.lease(TWO) is None
    let_lease_end(store)
    quick = leased(store, TWO)
    assert (quick.upload_id, quick.attempt) == (slow.upload_id, 2)
    assert not store.jobs.heartbeat(ONE, slow)
    writes: list[Callable[[], object]] = [
        lambda: store.results.begin(slow, [FoundStudy(instances=3)]),
        lambda: store.results.progress(slow, None, state=StudyState.READING, done=1, total=2),
        lambda: store.results.finish_study(slow, entry.study_id, RESULT),
        lambda: store.results.fail_study(slow, entry.study_id, FAILURE, findings="{}"),
        lambda: store.results.finish_job(slow),
        lambda: store.jobs.give_back(slow),
        lambda: store.jobs.retry(slow, FAILURE),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError, match="given to another worker or deleted"):
            write()
    store.results.finish_study(quick, entry.study_id, RESULT)
    assert store.get(entry.study_id).state is StudyState.DONE


def test_a_heartbeat_keeps_the_lease(store: Store, submit: Submit, let_lease_end: LetLeaseEnd) -> None:
    submit(store, [b"x"])
    job = leased(store)
    let_lease_end(store)
    assert store.jobs.heartbeat(ONE, job)
    assert store.jobs.lease(TWO) is None


def test_an_upload_that_killed_three_workers_fails_with_a_code(
    store: Store, submit: Submit, let_lease_end: LetLeaseEnd
) -> None:
    entry = submit(store, [b"x"])
    for attempt in (1, 2, 3):
        assert leased(store).attempt == attempt
        let_lease_end(store)
    assert store.jobs.lease(ONE) is None
    failed = store.get(entry.study_id)
    assert (failed.state, failed.error_code) == (StudyState.FAILED, "worker_killed")
    assert "ended the program 3 times" in (failed.error_message or "")
    assert store.counts().queue_depth == store.counts().running == 0


def test_a_worker_known_to_be_dead_frees_its_job_at_once(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    for worker_id in (ONE, TWO, "3" * 32):
        store.jobs.join(worker_id, host="here", pid=1)
        leased(store, worker_id)
        assert store.counts().workers[0].upload_id == entry.upload_id
        store.jobs.worker_died(worker_id)
        assert store.counts().workers == ()
    assert store.get(entry.study_id).error_code == "worker_killed"


def test_a_worker_that_is_asked_to_stop_costs_no_attempt(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    for _ in range(5):
        job = leased(store)
        store.results.progress(job, None, state=StudyState.READING, done=1, total=2)
        assert store.get(entry.study_id).state is StudyState.READING
        store.jobs.give_back(job)
        assert store.get(entry.study_id).state is StudyState.QUEUED
    assert leased(store).attempt == 1


def test_an_unexpected_error_is_retried_and_then_reported(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    for state in (StudyState.QUEUED, StudyState.QUEUED, StudyState.FAILED):
        store.jobs.retry(leased(store), FAILURE)
        assert store.get(entry.study_id).state is state
    failed = store.get(entry.study_id)
    assert (failed.error_message, failed.error_cure) == ("it broke", "repair it")


def test_a_job_that_runs_too_long_fails_with_a_code(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    job = leased(store)
    assert store.jobs.held_by([TWO]) == frozenset()
    assert store.jobs.held_by([ONE, TWO]) == {job}
    limit = timedelta(seconds=60)
    assert store.jobs.fail_overdue(job, limit=limit)
    failed = store.get(entry.study_id)
    assert (failed.error_code, failed.state) == ("time_limit", StudyState.FAILED)
    assert "longer than 60 s" in (failed.error_message or "")
    assert not store.jobs.fail_overdue(job, limit=limit)
    with pytest.raises(LeaseLostError, match="given to another"):
        store.results.finish_job(job)


def test_a_result_is_written_once_even_if_a_job_runs_again(
    store: Store, submit: Submit, query: Query, let_lease_end: LetLeaseEnd
) -> None:
    entry = submit(store, [b"x"])
    first = leased(store)
    (study_id, other) = store.results.begin(first, [FoundStudy(instances=3), FoundStudy(instances=4)])
    assert study_id == entry.study_id
    assert other is not None
    store.results.finish_study(first, study_id, RESULT)
    let_lease_end(store)
    again = leased(store, TWO)
    assert store.results.begin(again, [FoundStudy(instances=3), FoundStudy(instances=4)]) == (None, other)
    store.results.finish_study(again, other, RESULT)
    store.results.finish_job(again)
    rows = query(store, tables.results.select().order_by(tables.results.c.attempt))
    assert [(row.study_id, row.attempt) for row in rows] == [(study_id, 1), (other, 2)]


def test_progress_never_changes_what_is_final(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    job = leased(store)
    store.results.finish_study(job, entry.study_id, RESULT)
    store.results.progress(job, entry.study_id, state=StudyState.SCORING, done=1, total=2)
    assert store.get(entry.study_id).state is StudyState.DONE


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_ends_no_lease_and_makes_none_longer(
    store: Store, submit: Submit, let_lease_end: LetLeaseEnd, set_clock: Callable[[float], None], hours: int
) -> None:
    entry = submit(store, [b"x"])
    held = leased(store)
    set_clock(hours)
    assert store.jobs.lease(TWO) is None
    assert store.jobs.heartbeat(ONE, held)
    set_clock(0)
    let_lease_end(store)
    assert leased(store, TWO).upload_id == entry.upload_id


def test_a_worker_that_died_before_the_clock_was_set_back_is_not_alive(
    store: Store, set_clock: Callable[[float], None]
) -> None:
    set_clock(1)
    store.jobs.join(ONE, host="here", pid=1)
    assert len(store.counts().workers) == 1
    set_clock(0)
    assert store.counts().workers == ()


def test_a_worker_keeps_its_lease_if_the_database_was_away_longer_than_the_lease(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, [b"x"])
    held = leased(store, ONE)
    assert store.jobs.lease(TWO) is None
    away = 2 * store.jobs.lease_time.total_seconds()
    monkeypatch.setattr(jobs, "monotonic", lambda: time.monotonic() + away)
    assert store.jobs.lease(TWO) is None, "nobody could renew it"
    assert store.jobs.heartbeat(ONE, held)
    assert store.jobs.lease(TWO) is None


def test_a_worker_whose_row_was_swept_is_registered_again_by_its_heartbeat(
    store: Store, submit: Submit, query: Query, set_clock: Callable[[float], None]
) -> None:
    """After a database that was away for more than ten minutes, or a clock that was set, while the worker lives."""
    submit(store, [b"x"])
    store.jobs.join(ONE, host="here", pid=4711)
    job = leased(store)
    set_clock(1)
    store.sweep()
    assert query(store, tables.workers.select()) == []
    assert store.jobs.heartbeat(ONE, job)
    (worker,) = store.counts().workers
    assert (worker.pid, worker.upload_id) == (4711, job.upload_id)
    store.jobs.worker_died(ONE)
    store.jobs.heartbeat(ONE, None)
    assert query(store, tables.workers.select()) == [], "it is known to be dead"


def test_a_worker_that_is_always_busy_sees_that_another_one_died(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = submit(store, [b"x"])
    leased(store, ONE)
    submit(store, [b"x"])
    busy = leased(store, TWO)
    for step in range(1, 8):
        later = step * store.jobs.lease_time.total_seconds() / 6
        monkeypatch.setattr(jobs, "monotonic", lambda ahead=later: time.monotonic() + ahead)
        assert store.jobs.heartbeat(TWO, busy)
    store.results.finish_job(busy)
    assert leased(store, TWO).upload_id == lost.upload_id


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # PostgreSQL flushes each commit
def test_progress_and_signs_of_life_wait_for_no_disk_and_results_do(store: Store, submit: Submit) -> None:
    study = submit(store, [b"x"])
    job = leased(store)
    levels: list[int] = []
    engine = store.database._engine

    def note(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("hemoscope_writes"):
            levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    sa.event.listen(engine, "commit", note)
    normal, full = 1, 2
    store.results.progress(job, study.study_id, state=StudyState.READING, done=1, total=2)
    store.jobs.heartbeat(ONE, job)
    assert levels == [normal, normal]
    store.readers.claim(study.study_id, by="agnes")
    assert levels[-1] == full
    store.readers.claim(study.study_id, by="agnes")  # a sign of life
    assert levels[-1] == normal
    store.results.finish_study(job, study.study_id, RESULT)
    assert levels[-1] == full
    store.results.finish_job(job)
    assert levels[-1] == full


def test_after_a_start_no_version_repeats_one_that_a_page_may_have_seen(store: Store, submit: Submit) -> None:
    submit(store, [b"x"])
    seen = store.changes_since(0).version + 1000  # progress that a power failure undid
    store.skip_versions()
    study = submit(store, [b"x"])
    assert [one.study_id for one in store.changes_since(seen).studies] == [study.study_id]
