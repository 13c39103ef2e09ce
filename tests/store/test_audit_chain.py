"""The audit log says what happened, once, and shows whether anybody changed it."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hemoscope.errors import ConfigError, StoreError
from hemoscope.store import audit, tables
from hemoscope.store.audit_chain import Anchor, ChainCheck, check
from hemoscope.store.database import Database, now
from hemoscope.store.migrate import migrate
from hemoscope.store.store import Store
from hemoscope.store.values import ChainedAuditEntry, Role, StudySummary, User

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]


def checked(store: Store, **options: Any) -> ChainCheck:
    return audit.check_log(store._database, **options)


def at_once(*calls: Callable[[], object]) -> list[BaseException]:
    """Run calls in threads that begin together; returns their errors."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_eight_simultaneous_deletes_of_a_study_are_one_entry(opened: Callable[..., Store], submit: Submit) -> None:
    stores = [opened() for _ in range(8)]
    study_id = submit(stores[0], [b"x"]).study_id
    errors = at_once(*(lambda one=one: one.delete(study_id, by="anna") for one in stores))
    assert [getattr(error, "code", error) for error in errors] == ["no_such_study"] * 7
    assert [one.action for one in stores[0].audit_log()] == ["delete", "upload"]
    assert stores[0].counts().deleted == 1


def test_what_was_rolled_back_has_no_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError):
        store.put_setting("x", float("nan"), by="anna")
    monkeypatch.setattr(audit, "server_time", lambda _connection: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.open_session(User(name="anna", role=Role.READER), lasting=timedelta(hours=1))
    assert store.audit_log() == ()


def test_writers_of_many_processes_make_one_chain(opened: Callable[..., Store], submit: Submit) -> None:
    stores = [opened() for _ in range(4)]
    studies = [submit(stores[0], [b"x"]).study_id for _ in range(4)]

    def write(store: Store, mine: str) -> None:
        for number in range(10):
            store.audit(user="anna", action="view", study_id=studies[number % 4])
            store.put_setting("prevalence", number / 20, by="bert")
        store.delete(mine, by="anna")

    errors = at_once(*(lambda one=one, mine=mine: write(one, mine) for one, mine in zip(stores, studies, strict=True)))
    assert errors == []
    found = checked(stores[0])
    assert (found.fault, found.entries, found.last.audit_id) == (None, 88, 88)
    assert {entry.study_id for entry in audit.chained_entries(stores[0]._database)} == {None}


def test_an_entry_about_a_study_deleted_meanwhile_does_not_name_it(store: Store, submit: Submit) -> None:
    study_id = submit(store, [b"x"]).study_id
    store.delete(study_id, by="anna")
    store.audit(user="bert", action="view", study_id=study_id)
    assert [(one.action, one.study_id) for one in store.audit_log()] == [
        ("view", None),
        ("delete", None),
        ("upload", None),
    ]
    assert checked(store).fault is None


_of = "UPDATE audit SET {} WHERE audit_id = {}"
SWAPPED = [_of.format(f"audit_id = {new}", old) for old, new in ((2, 102), (3, 2), (102, 3))]
COPIED = (
    "INSERT INTO audit SELECT 7, at, user_name, action, study_id, detail, study_salt, study_digest, previous_hash, "
    "entry_hash FROM audit WHERE audit_id = 6"
)


@pytest.fixture
def written(store: Store, submit: Submit) -> Store:
    """A store with six entries: 1 upload, 2 view, 3 upload, 4 view, 5 delete (of the first study), 6 set prevalence."""
    first = submit(store, [b"x"]).study_id
    store.audit(user="anna", action="view", study_id=first)
    store.audit(user="bert", action="view", study_id=submit(store, [b"x"]).study_id)
    store.delete(first, by="anna")
    store.put_setting("prevalence", 0.1, by="bert")
    assert checked(store).fault is None
    return store


@pytest.mark.parametrize(
    ("tampering", "fault"),
    [
        ([_of.format("user_name = 'eve'", 3)], "entry 3 was changed"),
        ([_of.format("action = 'report'", 4)], "entry 4 was changed"),
        ([_of.format("detail = ''", 1)], "entry 1 was changed"),
        ([_of.format("at = '2020-01-01 00:00:00'", 2)], "entry 2 was changed"),
        ([_of.format(f"study_id = '{'0' * 32}'", 4)], "entry 4 was changed"),
        ([_of.format("study_digest = NULL", 2)], "entry 2 was changed"),
        ([_of.format("study_id = NULL, study_salt = NULL", 4)], "entry 4 was changed: its study's ID is gone"),
        (["DELETE FROM audit WHERE audit_id = 3"], "entry 4 does not follow entry 2: entries between them were"),
        (["DELETE FROM audit WHERE audit_id = 1"], "entry 2 does not follow entry 0"),
        (["DELETE FROM audit WHERE audit_id = 6"], "entries after 5 were removed"),
        (["DELETE FROM audit"], "entries after 0 were removed"),
        (["DELETE FROM audit_chain"], "the number and hash of the last entry"),
        (SWAPPED, "entry 2 does not follow entry 1: entries between them were removed, or their order was changed"),
        ([COPIED], "entry 7 does not follow entry 6"),
    ],
)
def test_the_first_entry_that_was_changed_removed_or_moved_is_named(
    written: Store, query: Query, tampering: list[str], fault: str
) -> None:
    for statement in tampering:
        query(written, sa.text(statement))
    found = checked(written).fault
    assert found is not None
    assert found.startswith(fault)


def test_a_log_that_was_rewritten_as_a_whole_differs_from_an_anchor(written: Store, query: Query) -> None:
    anchor = Anchor.from_text(str(checked(written).last))
    query(written, tables.audit.delete())
    query(written, tables.audit_chain.update().values(last_id=0, last_hash="0" * 64))
    for _ in range(5):
        written.audit(user="eve", action="view")
    assert checked(written).fault is None
    assert checked(written, anchor=anchor).fault == "entries after 5 were removed"
    written.audit(user="eve", action="view")
    assert checked(written, anchor=anchor).fault == "entry 6 is not that of the anchor: the log was rewritten"


@pytest.mark.parametrize("text", ["", "1", "1:abc", f"x:{'0' * 64}", f"1:{'G' * 64}"])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="an anchor is NUMBER:HASH"):
        Anchor.from_text(text)


def test_the_digests_that_stay_after_a_deletion_cannot_be_made_from_the_id(
    store: Store, submit: Submit, query: Query
) -> None:
    study_id = submit(store, [b"x"]).study_id
    (salt,) = {entry.study_salt for entry in audit.chained_entries(store._database)}
    store.delete(study_id, by="anna")
    assert study_id not in str(query(store, tables.audit.select()))
    assert salt is not None
    assert salt not in str(query(store, tables.audit.select()))


def test_entries_written_to_a_file_keep_their_chain(written: Store) -> None:
    lines = [entry.model_dump_json() for entry in audit.chained_entries(written._database)]
    again = check(ChainedAuditEntry.model_validate_json(line) for line in lines)
    assert again == checked(written)
    del lines[2]
    assert check(ChainedAuditEntry.model_validate_json(line) for line in lines).fault is not None


def test_the_entries_of_an_older_database_are_chained_as_they_stand(
    url: str, opened: Callable[..., Store], submit: Submit
) -> None:
    old = Database(url)
    migrate(old, revision="0006")
    columns = ("audit_id", "at", "user_name", "action", "study_id", "detail")
    table = sa.table("audit", *(sa.column(name, tables.audit.c[name].type) for name in columns))
    with old.writing() as connection:
        for number in (1, 2, 5):  # PostgreSQL leaves gaps where a transaction was rolled back
            connection.execute(table.insert().values((number, now(), "anna", "view", "f" * 32, "")))
    old.close()
    store = opened()
    assert [one.study_id for one in store.audit_log()] == [None] * 3, "the study is gone"
    submit(store, [b"x"])
    found = checked(store)
    assert (found.fault, found.entries, found.last.audit_id) == (None, 4, 6)
