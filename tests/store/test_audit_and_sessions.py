"""The site: audit, sessions, settings, and users from a file."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from hemoscope.errors import ConfigError, StoreError
from hemoscope.store import tables
from hemoscope.store.store import Store
from hemoscope.store.users import hash_password, load_users
from hemoscope.store.values import Role, StudySummary, User

HOUR = timedelta(hours=1)
ANNA = User(name="anna", role=Role.ADMIN)


def test_the_audit_log_returns_the_newest_first_page_by_page(store: Store, submit: Callable[..., StudySummary]) -> None:
    entry = submit(store, [b"x"])
    for number in range(5):
        store.audit(user="anna", action=f"view{number}", study_id=entry.study_id, detail="a\x00b")
    newest = store.audit_log(limit=2)
    assert [one.action for one in newest] == ["view4", "view3"]
    older = store.audit_log(limit=9, before=newest[-1].audit_id)
    assert [one.action for one in older] == ["view2", "view1", "view0", "upload"]
    assert newest[0].study_id == entry.study_id
    assert newest[0].detail == "a\ufffdb"


def test_a_session_is_known_by_its_token_until_it_ends(store: Store, query: Callable[..., list[Any]]) -> None:
    token, session = store.open_session(ANNA, lasting=timedelta(minutes=5))
    assert store.session(token) == session
    assert session.user == ANNA
    assert token not in str(query(store, tables.sessions.select()))
    for wrong in ("", token[:-1], "\ud800", "\x00"):
        assert store.session(wrong) is None
        store.close_session(wrong)
    store.close_session(token)
    assert store.session(token) is None


def test_a_session_past_its_time_is_over(store: Store) -> None:
    token, _ = store.open_session(ANNA, lasting=timedelta(seconds=-1))
    assert store.session(token) is None


def test_the_audit_log_names_only_sessions_that_a_change_of_their_user_ended(
    store: Store, query: Callable[..., list[Any]]
) -> None:
    store.open_session(ANNA, lasting=timedelta(seconds=-1))
    token, _ = store.open_session(ANNA, lasting=HOUR)
    store.close_sessions_of({"anna"})
    assert store.session(token) is None
    assert query(store, tables.sessions.select()) == []
    assert [one.action for one in store.audit_log()] == ["session ended", "login", "login"]


def test_two_sessions_share_no_secret(store: Store) -> None:
    (one, first), (two, second) = (store.open_session(ANNA, lasting=HOUR) for _ in range(2))
    assert len({one, two, first.csrf, second.csrf}) == 4


def test_settings_come_back_as_they_were(store: Store) -> None:
    store.put_setting("prevalence", 0.15, by="anna")
    store.put_setting("site", {"name": "Haus Süd", "beds": None}, by="anna")
    store.put_setting("prevalence", 0.2, by="anna")
    assert store.settings() == {"prevalence": 0.2, "site": {"name": "Haus Süd", "beds": None}}


@pytest.mark.parametrize(("name", "value"), [("", 1), ("a b", 1), ("x" * 65, 1), ("x", float("nan")), ("x", {1, 2})])
def test_what_is_no_setting_is_refused(store: Store, name: str, value: Any) -> None:
    with pytest.raises(StoreError, match=r"cannot be named|is not a JSON value") as refused:
        store.put_setting(name, value, by="anna")
    assert refused.value.code == "bad_setting"


def test_an_error_of_the_database_quotes_no_value(store: Store, query: Callable[..., list[Any]]) -> None:
    row = {"name": "x", "value": "WINTERBOTTOM"}
    query(store, tables.settings.insert().values(**row))
    with pytest.raises(IntegrityError) as failed:
        query(store, tables.settings.insert().values(**row))
    assert "WINTERBOTTOM" not in str(failed.value)


def test_users_are_known_by_their_passwords(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"# the house\n\nanna:admin:{hash_password('pässword')}\nbert:reader:{hash_password('other')}\n")
    users = load_users(path)
    assert len(users) == 2
    assert users.verify("anna", "pässword") == ANNA
    assert users.verify("bert", "other") == User(name="bert", role=Role.READER)
    for name, password in (("anna", "other"), ("anna", ""), ("nobody", "other"), ("bert", "\ud800")):
        assert users.verify(name, password) is None


def test_one_password_never_hashes_the_same_twice() -> None:
    assert hash_password("x") != hash_password("x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no user"),
        ("# nobody\n", "names no user"),
        ("anna:admin:plain", "line 1 is malformed"),
        ("anna:boss:HASH", "line 1 is malformed"),
        ("an na:admin:HASH", "line 1 is malformed"),
        ("anna:admin:HASH\nanna:reader:HASH", "line 2 is a second line of one user"),
        (f"anna:admin:scrypt$1048576$8$1${'0' * 32}${'0' * 64}", "line 1 is malformed"),
        (f"anna:admin:scrypt$1000$8$1${'0' * 32}${'0' * 64}", "line 1 is malformed"),
    ],
)
def test_a_user_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "users"
    path.write_text(text.replace("HASH", hash_password("x")))
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_users(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_user_file_that_cannot_be_read_is_named_without_its_folder(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "users"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="user file users cannot be read") as refused:
        load_users(path)
    assert str(tmp_path) not in str(refused.value)
