"""Who reads and who has reviewed a study: marks for the other readers, which end by themselves."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from hemoscope.errors import StoreError
from hemoscope.store.store import Store
from hemoscope.store.values import StudySummary


@pytest.fixture
def study_id(store: Store, submit: Callable[..., StudySummary]) -> str:
    return submit(store, [b"x"]).study_id


def actions(store: Store) -> list[str]:
    return [f"{one.user} {one.action}" for one in reversed(store.audit_log()) if one.action != "upload"]


def test_a_study_is_of_the_first_reader_until_another_takes_over(store: Store, study_id: str) -> None:
    assert store.readers.claim(study_id, by="agnes").by == "agnes"
    assert store.readers.claim(study_id, by="bert").by == "agnes"
    assert store.readers.claim(study_id, by="bert", take_over=True).by == "bert"
    assert store.readers.claim(study_id, by="agnes").by == "bert"
    store.readers.release(study_id, by="agnes")
    claim = store.get(study_id).claim
    assert claim is not None
    assert claim.by == "bert"
    store.readers.release(study_id, by="bert")
    assert store.get(study_id).claim is None
    assert actions(store) == ["agnes claim", "bert take over", "bert release"]


def test_a_sign_of_life_is_no_change_and_keeps_the_claim(store: Store, study_id: str) -> None:
    first = store.readers.claim(study_id, by="agnes")
    version = store.changes_since(0).version
    assert store.readers.claim(study_id, by="agnes") == first
    assert store.changes_since(version).version == version


def test_a_claim_without_a_sign_of_life_ends_for_everybody(store: Store, study_id: str) -> None:
    store.readers.lasting = timedelta(seconds=-1)
    store.readers.claim(study_id, by="agnes")
    assert store.get(study_id).claim is None, "also before anything has looked for it"
    seen = store.changes_since(0).version
    assert store.readers.end_abandoned() == 1
    assert store.readers.end_abandoned() == 0
    assert [one.study_id for one in store.changes_since(seen).studies] == [study_id]
    store.readers.lasting = timedelta(minutes=2)
    store.readers.claim(study_id, by="bert")
    assert store.readers.end_abandoned() == 0
    assert actions(store) == ["agnes claim", "agnes release", "bert claim"]


def test_each_reader_reviews_and_takes_back_alone(store: Store, study_id: str) -> None:
    once = store.readers.review(study_id, by="agnes")
    assert store.readers.review(study_id, by="agnes") == once
    store.readers.review(study_id, by="bert")
    store.readers.withdraw_review(study_id, by="agnes")
    assert [one.by for one in store.studies()[0][0].reviews] == ["bert"]
    store.delete(study_id, by="admin")


def test_a_claim_leaves_a_drawn_report_valid_and_a_review_does_not(store: Store, study_id: str) -> None:
    before = store.report_state(study_id)
    store.readers.claim(study_id, by="agnes")
    assert store.report_state(study_id) == before
    store.readers.review(study_id, by="agnes")
    assert store.report_state(study_id) != before


def test_readers_have_the_initials_of_their_name_or_their_choice(store: Store, study_id: str) -> None:
    store.readers.claim(study_id, by="anna.larsen")
    store.readers.review(study_id, by="bert")
    assert store.get(study_id).initials == {"anna.larsen": "AL", "bert": "BE"}
    store.readers.set_initials("XY", by="bert")
    store.readers.set_initials("B2", by="bert")
    assert store.readers.initials_of("bert") == "B2"
    assert store.get(study_id).initials == {"anna.larsen": "AL", "bert": "B2"}


@pytest.mark.parametrize("given", ["", "ABCDE", "A B", "<b>", "a\x00"])
def test_what_are_no_initials_is_refused(store: Store, given: str) -> None:
    with pytest.raises(StoreError, match="one to four letters or digits") as refused:
        store.readers.set_initials(given, by="bert")
    assert refused.value.code == "bad_initials"


def test_an_unknown_study_has_no_marks(store: Store) -> None:
    readers = store.readers
    for act in (readers.claim, readers.release, readers.review, readers.withdraw_review):
        with pytest.raises(StoreError) as refused:
            act("0" * 32, by="agnes")
        assert refused.value.code == "no_such_study"


def test_reviewed_studies_follow_the_others_of_their_urgency(
    store: Store, study_id: str, submit: Callable[..., StudySummary]
) -> None:
    later = submit(store, [b"y"]).study_id
    assert [one.study_id for one in store.studies()[0]] == [study_id, later]
    store.readers.review(study_id, by="agnes")
    assert [one.study_id for one in store.studies()[0]] == [later, study_id]
    store.readers.withdraw_review(study_id, by="agnes")
    assert [one.study_id for one in store.studies()[0]] == [study_id, later]
