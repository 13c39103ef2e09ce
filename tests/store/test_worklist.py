"""The worklist: most urgent first, then longest waiting; searches are plain text, whatever characters they hold."""

import random
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemoscope.errors import StoreError
from hemoscope.inference.findings import URGENCIES
from hemoscope.store import tables
from hemoscope.store.database import storable
from hemoscope.store.store import Store
from hemoscope.store.uploads import WAITING_RANK, rank_of
from hemoscope.store.values import StudyState, StudySummary, WorklistQuery, WorklistSort

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]
START = datetime(2026, 1, 1, tzinfo=UTC)
per_example = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def plant(store: Store, submit: Submit, query: Query, **columns: Any) -> str:
    """A study with the columns given."""
    entry = submit(store, [b"x"])
    known = columns.get("urgency")
    columns["urgency_rank"] = rank_of(known) if known else WAITING_RANK
    query(store, tables.studies.update().where(tables.studies.c.study_id == entry.study_id).values(**columns))
    return entry.study_id


@per_example
@given(st.lists(st.tuples(st.sampled_from([*URGENCIES, None]), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_most_urgent_comes_first_then_who_waits_longest(
    store: Store, submit: Submit, query: Query, studies: list[tuple[str | None, int]]
) -> None:
    query(store, tables.uploads.delete())
    for urgency, minutes in studies:
        plant(store, submit, query, urgency=urgency, received_at=START + timedelta(minutes=minutes))
    listed, total = store.studies(WorklistQuery(limit=1000))
    order = ["immediate", "prompt", "unsure", "incomplete", None, "routine"]  # waiting ones may show anything
    keys = [(order.index(entry.urgency), entry.received_at) for entry in listed]
    assert keys == sorted(keys)
    assert sorted(keys) == sorted((order.index(urgency), START + timedelta(minutes=at)) for urgency, at in studies)
    assert total == len(studies)


def test_waiting_studies_are_on_the_first_page_however_many_routine_ones_there_are(
    store: Store, submit: Submit, query: Query
) -> None:
    for hours in range(4):
        plant(store, submit, query, state="done", urgency="routine", received_at=START + timedelta(hours=hours))
    waiting = plant(store, submit, query, received_at=START + timedelta(days=1))
    scoring = plant(store, submit, query, state="scoring", received_at=START + timedelta(days=2))
    listed, total = store.studies(WorklistQuery(limit=3))
    assert [entry.study_id for entry in listed][:2] == [waiting, scoring]
    assert total == 6


NAMES = st.sampled_from(["ROE^JANE", "roe^jane", "Zander^Jo", "abel^x", "\u00c4hre^U", "", None])
MINUTES = st.integers(0, 2)
ROWS = st.tuples(st.sampled_from([*URGENCIES, None]), MINUTES, st.one_of(st.none(), MINUTES), st.integers(1, 3), NAMES)


@per_example
@given(st.lists(ROWS, min_size=1, max_size=6), st.booleans())
def test_each_order_is_the_same_on_both_databases_and_pages_follow_it(
    store: Store, submit: Submit, query: Query, rows: list[Any], identity: bool
) -> None:
    query(store, tables.uploads.delete())
    for urgency, received, acquired, instances, name in rows:
        at = None if acquired is None else START + timedelta(minutes=acquired)
        named = {"patient_name": name, "patient_id": None if name is None else "1"}
        plant(store, submit, query, urgency=urgency, received_at=START + timedelta(minutes=received),
              acquired_at=at, instances=instances, **named)  # fmt: skip
    by_urgency = list(store.studies(WorklistQuery(identity=identity))[0])

    def shown(entry: StudySummary) -> str:
        name = entry.identity.name if entry.identity and identity else ""
        return "".join(one.upper() if one.isascii() else one for one in name or entry.study_id)

    keys: dict[str, Callable[[StudySummary], Any]] = {
        "urgency": lambda _: 0,
        "scan": lambda entry: entry.acquired_at or datetime.min.replace(tzinfo=UTC),
        "waiting": lambda entry: entry.received_at,
        "study": shown,
        "slices": lambda entry: entry.instances,
    }
    for sort in WorklistSort:
        down = sort.startswith("-")
        expected = sorted(by_urgency, key=keys[sort.removeprefix("-")], reverse=down)  # stable, also in reverse
        pages = [
            store.studies(WorklistQuery(identity=identity, sort=sort, limit=2, offset=offset))[0]
            for offset in range(0, len(rows), 2)
        ]
        assert [entry.study_id for page in pages for entry in page] == [entry.study_id for entry in expected], sort


@per_example
@given(st.integers(1, 5), st.integers(0, 9))
def test_pages_together_are_the_whole_list(store: Store, submit: Submit, query: Query, limit: int, count: int) -> None:
    query(store, tables.uploads.delete())
    for _ in range(count):  # all of one moment: only a total order lets no study slip between pages
        plant(store, submit, query, received_at=START)
    pages = [store.studies(WorklistQuery(limit=limit, offset=offset))[0] for offset in range(0, count + limit, limit)]
    seen = [entry.study_id for page in pages for entry in page]
    assert seen == [entry.study_id for entry in store.studies(WorklistQuery())[0]]
    assert len(set(seen)) == count


def test_filters_by_state_and_urgency_join(store: Store, submit: Submit, query: Query) -> None:
    done = plant(store, submit, query, state="done", urgency="immediate")
    failed = plant(store, submit, query, state="failed")
    plant(store, submit, query, state="done", urgency="routine")

    def ids(**wanted: Any) -> list[str]:
        return [entry.study_id for entry in store.studies(WorklistQuery(**wanted))[0]]

    assert ids(states=(StudyState.DONE,), urgency=("immediate", "prompt")) == [done]
    assert ids(states=(StudyState.FAILED, StudyState.QUEUED)) == [failed]
    assert ids(urgency=("unknown",)) == [failed]


def test_what_nobody_has_reviewed_is_listed_until_somebody_has(store: Store, submit: Submit, query: Query) -> None:
    first, second = (plant(store, submit, query, state="done", urgency="routine") for _ in range(2))
    store.readers.review(first, by="agnes")
    store.readers.review(first, by="bert")

    def found(reviewed: bool | None) -> tuple[set[str], int]:
        studies, total = store.studies(WorklistQuery(reviewed=reviewed))
        return {entry.study_id for entry in studies}, total

    assert found(False) == ({second}, 1)
    assert found(True) == ({first}, 1)
    assert found(None) == ({first, second}, 2)
    for reader in ("agnes", "bert"):
        store.readers.withdraw_review(first, by=reader)
    assert found(False) == ({first, second}, 2)


def test_search_wants_every_word_in_any_case(store: Store, submit: Submit, query: Query) -> None:
    found = plant(store, submit, query, search_text="grüße an jörg subdural".casefold())
    plant(store, submit, query, search_text="grüße an anna epidural".casefold())

    def ids(words: str) -> list[str]:
        return [entry.study_id for entry in store.studies(WorklistQuery(identity=True, search=words))[0]]

    assert ids("JÖRG grüße") == [found]
    assert ids("jörg epidural") == []
    assert ids("  ") == [entry.study_id for entry in store.studies()[0]]


@pytest.mark.parametrize(
    "words",
    ["' OR '1'='1", "%", "_", "\\", "%' --", "'; DROP TABLE studies; --", "a\x00b", "\ud800", "😀", '"', "/"],
)
def test_sql_wildcards_are_plain_text(store: Store, submit: Submit, query: Query, words: str) -> None:
    plant(store, submit, query, search_text="plain")
    assert store.studies(WorklistQuery(identity=True, search=words)) == ((), 0)
    assert store.studies()[1] == 1


@per_example
@given(st.text(max_size=20))
def test_what_is_searched_for_is_found_letter_by_letter(store: Store, submit: Submit, query: Query, text: str) -> None:
    words = storable(text).casefold()
    study_id = plant(store, submit, query, search_text=f"before {words} after")
    assert study_id in [
        entry.study_id for entry in store.studies(WorklistQuery(identity=True, search=words, limit=1000))[0]
    ]


@pytest.mark.parametrize("study_id", ["0" * 32, "", "x", "' OR 1=1 --", "\x00", "0" * 33, "A" * 32, "\ud800"])
def test_an_unknown_study_is_named_as_such(store: Store, submit: Submit, study_id: str) -> None:
    submit(store, [b"x"])
    for ask in (store.get, store.findings_json, lambda one: store.pixels(one, 0), store.feedback):
        with pytest.raises(StoreError, match=r"no such study.*Reload") as refused:
            ask(study_id)
        assert refused.value.code == "no_such_study"


@pytest.mark.parametrize("numbers", [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"offset": 10**12}])
def test_a_page_that_cannot_be_meant_is_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="limit must be 1 to 1000 and offset 0 to"):
        WorklistQuery(**numbers)


def test_every_change_is_returned_once_and_in_order(store: Store, submit: Submit, query: Query) -> None:
    first = submit(store, [b"x"])
    seen = store.changes_since(0)
    assert [entry.study_id for entry in seen.studies] == [first.study_id]
    assert store.changes_since(seen.version).studies == ()
    second = submit(store, [b"x"])
    store.delete(first.study_id, by="anna")
    later = store.changes_since(seen.version)
    assert [entry.study_id for entry in later.studies] == [second.study_id]
    assert [gone.study_id for gone in later.deleted] == [first.study_id]
    assert later.version > seen.version


def test_many_changes_come_in_portions_and_none_is_lost(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemoscope.store.worklist._MOST_CHANGES", 2)
    ids = [submit(store, [b"x"]).study_id for _ in range(5)]
    version, seen = 0, []
    for _ in range(6):
        portion = store.changes_since(version)
        seen += [entry.study_id for entry in portion.studies]
        version = portion.version
    assert seen == ids


def test_counts_say_what_waits_and_how_long(store: Store, submit: Submit, query: Query) -> None:
    assert store.counts().oldest_waiting_s is None
    submit(store, [b"x"])
    query(store, tables.jobs.update().values(queued_at=datetime.now(UTC) - timedelta(minutes=2)))
    counts = store.counts()
    assert counts.queue_depth == 1
    assert counts.running == 0
    assert 119 < (counts.oldest_waiting_s or 0) < 180
    assert counts.studies[StudyState.QUEUED] == 1
    assert counts.workers == ()


def test_names_of_tables_are_safe_from_any_submitter(store: Store, submit: Submit) -> None:
    name = "".join(random.Random(1).choices(string.printable, k=50)) + "\x00\ud800"
    assert "\x00" not in submit(store, [b"x"], by=name).submitted_by
