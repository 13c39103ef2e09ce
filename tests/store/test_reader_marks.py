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
    assert store.claim(study_id, by="agnes").by == "agnes"
    assert store.claim(study_id, by="bert").by == "agnes"
    assert store.claim(study_id, by="bert", take_over=True).by == "bert"
    assert store.claim(study_id, by="agnes").by == "bert"
    store.release(study_id, by="agnes")
    claim = store.get(study_id).claim
    assert claim is not None
    assert claim.by == "bert"
    store.release(study_id, by="bert")
    assert store.get(study_id).claim is None
    assert actions(store) == ["agnes claim", "bert take over", "bert release"]


def test_a_sign_of_life_is_no_change_and_keeps_the_claim(store: Store, study_id: str) -> None:
    first = store.claim(study_id, by="agnes")
    version = store.changes_since(0).version
    assert store.claim(study_id, by="agnes") == first
    assert store.changes_since(version).version == version


def test_a_claim_without_a_sign_of_life_ends_for_everybody(store: Store, study_id: str) -> None:
    store.claim_time = timedelta(seconds=-1)
    store.claim(study_id, by="agnes")
    assert store.get(study_id).claim is None, "also before anything has looked for it"
    seen = store.changes_since(0).version
    assert store.end_abandoned_claims() == 1
    assert store.end_abandoned_claims() == 0
    assert [one.study_id for one in store.changes_since(seen).studies] == [study_id]
    store.claim_time = timedelta(minutes=2)
    store.claim(study_id, by="bert")
    assert store.end_abandoned_claims() == 0
    assert actions(store) == ["agnes claim", "agnes release", "bert claim"]


def test_each_reader_reviews_and_takes_back_alone(store: Store, study_id: str) -> None:
    once = store.review(study_id, by="agnes")
    assert store.review(study_id, by="agnes") == once
    store.review(study_id, by="bert")
    store.withdraw_review(study_id, by="agnes")
    assert [one.by for one in store.studies()[0][0].reviews] == ["bert"]
    store.delete(study_id, by="admin")


def test_a_claim_leaves_a_drawn_report_valid_and_a_review_does_not(store: Store, study_id: str) -> None:
    before = store.report_state(study_id)
    store.claim(study_id, by="agnes")
    assert store.report_state(study_id) == before
    store.review(study_id, by="agnes")
    assert store.report_state(study_id) != before


def test_readers_have_the_initials_of_their_name_or_their_choice(store: Store, study_id: str) -> None:
    store.claim(study_id, by="anna.larsen")
    store.review(study_id, by="bert")
    assert store.get(study_id).initials == {"anna.larsen": "AL", "bert": "BE"}
    store.set_initials("XY", by="bert")
    store.set_initials("B2", by="bert")
    assert store.initials("bert") == "B2"
    assert store.get(study_id).initials == {"anna.larsen": "AL", "bert": "B2"}


@pytest.mark.parametrize("given", ["", "ABCDE", "A B", "<b>", "a\x00"])
def test_what_are_no_initials_is_refused(store: Store, given: str) -> None:
    with pytest.raises(StoreError, match="one to four letters or digits") as refused:
        store.set_initials(given, by="bert")
    assert refused.value.code == "bad_initials"


def test_an_unknown_study_has_no_marks(store: Store) -> None:
    for act in (store.claim, store.release, store.review, store.withdraw_review):
        with pytest.raises(StoreError) as refused:
            act("0" * 32, by="agnes")
        assert refused.value.code == "no_such_study"
