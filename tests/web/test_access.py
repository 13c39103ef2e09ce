"""Who may do what: nobody, a reader, an admin, by cookie and by token; and what a page of another site may not."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hemoscope.errors import ConfigError
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.users import hash_password
from hemoscope.store.values import Role, User
from hemoscope.web.app import create_app
from hemoscope.web.credentials import Credentials, hash_token, load_credentials, remove_entry, write_entry

PASSWORD = "a long enough password"
HOUR = timedelta(hours=1)
TOKENS = {"reader": "reader-token-0123456789abcdef", "admin": "admin-token-0123456789abcdef"}
NOBODY = "0" * 32
FEEDBACK = {"label": "any", "verdict": "agree", "present": True}
MEASUREMENT = {"slice": 0, "kind": "probe", "points": [[1, 1]]}

# Method, path, body, and who may: "all", "reader" (and admins), "admin".
ROUTES: list[tuple[str, str, Any, str]] = [
    ("GET", "/health", None, "all"),
    ("GET", "/ready", None, "all"),
    ("GET", "/openapi.json", None, "all"),
    ("GET", "/login", None, "all"),
    ("GET", "/static/icon.svg", None, "all"),
    ("GET", "/metrics", None, "reader"),
    ("POST", "/api/v1/uploads", None, "reader"),
    ("GET", "/api/v1/studies", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/findings", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/report.html", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/report.pdf", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/slices/0/pixels", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/pixels?first=0&stride=1&count=1", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/slices/0/heatmap/any", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/feedback", None, "reader"),
    ("POST", f"/api/v1/studies/{NOBODY}/feedback", FEEDBACK, "reader"),
    ("GET", "/api/v1/site", None, "reader"),
    ("GET", "/api/v1/model", None, "reader"),
    ("GET", "/api/v1/model/card.html", None, "reader"),
    ("POST", "/api/v1/logout", None, "reader"),
    ("DELETE", f"/api/v1/studies/{NOBODY}", None, "admin"),
    ("GET", f"/api/v1/studies/{NOBODY}/measurements", None, "reader"),
    ("POST", f"/api/v1/studies/{NOBODY}/measurements", MEASUREMENT, "reader"),
    ("DELETE", f"/api/v1/studies/{NOBODY}/measurements/1", None, "reader"),
    ("GET", f"/api/v1/studies/{NOBODY}/series/1/slices/0/pixels", None, "reader"),
    ("PUT", f"/api/v1/studies/{NOBODY}/claim", {"take_over": False}, "reader"),
    ("DELETE", f"/api/v1/studies/{NOBODY}/claim", None, "reader"),
    ("PUT", f"/api/v1/studies/{NOBODY}/review", None, "reader"),
    ("DELETE", f"/api/v1/studies/{NOBODY}/review", None, "reader"),
    ("PUT", "/api/v1/site/initials", {"initials": "AB"}, "reader"),
    ("GET", "/api/v1/feedback.csv", None, "admin"),
    ("GET", "/api/v1/audit", None, "admin"),
    ("GET", "/api/v1/outbox", None, "admin"),
    ("POST", "/api/v1/outbox/resend", {"study_id": NOBODY}, "admin"),
    ("PUT", "/api/v1/site/prevalence", {"prevalence": 0.2}, "admin"),
]
CHANGING = [route for route in ROUTES if route[0] not in {"GET"}]
GUARDED = [route for route in ROUTES if route[3] != "all"]


def log_in(client: TestClient, role: str) -> dict[str, str]:
    answer = client.post("/api/v1/login", json={"user": role, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrf_token"]}


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def test_the_list_of_routes_is_complete(room: TestClient) -> None:
    paths = room.get("/openapi.json").json()["paths"]
    declared = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    concrete = {"{study_id}": NOBODY, "{index}": "0", "{label}": "any", "{measurement_id}": "1", "{number}": "1"}
    listed = {(method, path.partition("?")[0]) for method, path, _, _ in ROUTES}
    listed |= {("POST", "/api/v1/login"), ("GET", "/api/v1/events")}
    for name, value in concrete.items():
        declared = {(method, path.replace(name, value)) for method, path in declared}
    assert declared <= listed


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic eDp5"},
        {"Cookie": "hemoscope_session=wrong"},
        {"Cookie": f"hemoscope_session={TOKENS['admin']}"},
    ],
)
def test_nobody_gets_in_without_login(guarded: TestClient, headers: dict[str, str]) -> None:
    for method, path, body, _ in GUARDED:
        answer = guarded.request(method, path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "login_required"), path
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("role", ["reader", "admin"])
def test_roles_open_what_is_theirs(guarded: TestClient, role: str) -> None:
    for method, path, body, who in ROUTES:
        answer = guarded.request(method, path, json=body, headers=bearer(role))
        if who == "admin" and role == "reader":
            assert (answer.status_code, answer.json()["code"]) == (403, "admin_only"), path
        else:
            assert answer.status_code not in {401, 403}, path


@pytest.mark.parametrize("sent", [None, b"wrong", b"\xe9"])
def test_a_session_changes_nothing_without_its_token(guarded: TestClient, sent: bytes | None) -> None:
    log_in(guarded, "admin")
    for method, path, body, _ in CHANGING:
        answer = guarded.request(method, path, json=body, headers={} if sent is None else {"X-CSRF-Token": sent})
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf_token"), path


def test_without_users_changes_still_need_the_header(room: TestClient) -> None:
    for method, path, body, _ in CHANGING:
        answer = room.request(method, path, json=body, headers={"X-CSRF-Token": ""})
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf_token"), path


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8001"},
        {"Origin": "https://localhost"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost:port"},
        {"Origin": "http://[::1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_can_neither_change_nor_log_in(guarded: TestClient, headers: dict[str, str]) -> None:
    token = log_in(guarded, "admin")
    answer = guarded.put("/api/v1/site/prevalence", json={"prevalence": 0.2}, headers=headers | token)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    answer = guarded.post("/api/v1/login", json={"token": TOKENS["admin"]}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


def test_our_own_page_may_change_what_its_user_may(guarded: TestClient) -> None:
    headers = log_in(guarded, "admin") | {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert guarded.put("/api/v1/site/prevalence", json={"prevalence": 0.2}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("base_url", "origin"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000", "http://LOCALHOST:8000"),
        ("https://localhost", "https://localhost:443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_ours_if_scheme_host_and_port_are(
    make_room: Callable[..., TestClient], credentials: Credentials, base_url: str, origin: str
) -> None:
    client = make_room(credentials=credentials, base_url=base_url)
    answer = client.post("/api/v1/login", json={"token": TOKENS["admin"]}, headers={"Origin": origin})
    assert answer.status_code == 200, answer.text


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    make_room: Callable[..., TestClient], credentials: Credentials
) -> None:
    plain = make_room(credentials=credentials).post("/api/v1/login", json={"token": TOKENS["reader"]})
    assert plain.json()["user"] == {"name": "reader-program", "role": "reader"}
    cookie = plain.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    over_tls = make_room(credentials=credentials, base_url="https://localhost")
    answer = over_tls.post("/api/v1/login", json={"token": TOKENS["reader"]})
    assert "secure" in answer.headers["Set-Cookie"].lower()
    assert "max-age" in answer.headers["Strict-Transport-Security"]


@pytest.mark.parametrize(
    "given",
    [
        {"user": "admin", "password": "a wrong password"},
        {"user": "nobody", "password": PASSWORD},
        {"user": "admin"},
        {"token": "wrong"},
        {},
        {"user": "admin:x", "password": PASSWORD},
    ],
)
def test_a_wrong_login_is_refused_with_the_same_words(guarded: TestClient, given: dict[str, str]) -> None:
    answer = guarded.post("/api/v1/login", json=given)
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_credentials")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ({"user": "reader", "password": "wrong"}, ("reader", "wrong password, from testclient")),
        ({"user": PASSWORD, "password": ""}, ("", "unknown account, from testclient")),
        ({"token": "guess"}, ("", "unknown token, from testclient")),
        ({"user": "reader", "token": "guess"}, ("", "unknown token, from testclient")),
    ],
)
def test_a_refused_login_is_recorded_with_its_account_and_address_but_nothing_else_that_was_typed(
    guarded: TestClient, store: Store, given: dict[str, str], recorded: tuple[str, str]
) -> None:
    guarded.post("/api/v1/login", json=given)
    (entry,) = store.audit_log()
    assert (entry.action, entry.user, entry.detail) == ("login refused", *recorded)


def test_a_login_and_its_end_are_recorded_once(guarded: TestClient, store: Store) -> None:
    csrf = log_in(guarded, "reader")
    assert guarded.post("/api/v1/logout", headers=csrf).status_code == 204
    assert guarded.post("/api/v1/logout", headers=csrf).status_code == 401
    recorded = [(entry.user, entry.action, entry.detail) for entry in store.audit_log()]
    assert recorded == [("reader", "logout", ""), ("reader", "login", "from testclient")]


@pytest.mark.parametrize("body", [b'{"user": "\\ud800", "password": "\\ud800"}', b"{", b"[]", b'{"token": 1}', b"\xff"])
def test_a_login_that_is_none_is_refused_without_repeating_it(guarded: TestClient, body: bytes) -> None:
    answer = guarded.post("/api/v1/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 401, 422}
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_after_logging_out_the_session_is_worth_nothing(guarded: TestClient) -> None:
    token = log_in(guarded, "reader")
    cookie = dict(guarded.cookies)
    assert guarded.get("/api/v1/site").status_code == 200
    answer = guarded.post("/api/v1/logout", headers=token)
    assert answer.status_code == 204
    assert answer.headers["Clear-Site-Data"] == '"cache"'
    guarded.cookies.update(cookie)
    assert guarded.get("/api/v1/site").status_code == 401


def test_logging_out_ends_the_claims_of_that_reader_alone(guarded: TestClient, store: Store) -> None:
    csrf = log_in(guarded, "reader")
    mine, others = (
        guarded.post("/api/v1/uploads", headers=csrf, files=[("files", ("x", content))]).json()["study"]["study_id"]
        for content in (b"a", b"b")
    )
    assert guarded.put(f"/api/v1/studies/{mine}/claim", headers=csrf, json={}).status_code == 200
    store.readers.claim(others, by="admin")
    seen = store.changes_since(0).version
    assert guarded.post("/api/v1/logout", headers=csrf).status_code == 204
    assert store.get(mine).claim is None
    assert [one.study_id for one in store.changes_since(seen).studies] == [mine], "other pages are told"
    claim = store.get(others).claim
    assert claim is not None
    assert claim.by == "admin"


def test_an_expired_session_is_worth_nothing(make_room: Callable[..., TestClient], credentials: Credentials) -> None:
    client = make_room(credentials=credentials, session_hours=1e-9)
    answer = client.post("/api/v1/login", json={"token": TOKENS["admin"]})
    assert answer.status_code == 200
    client.cookies.set("hemoscope_session", answer.headers["Set-Cookie"].partition("=")[2].partition(";")[0])
    assert client.get("/api/v1/site").status_code == 401


def test_a_removed_user_is_out_although_the_session_lives(
    make_room: Callable[..., TestClient], store: Store, credentials: Credentials
) -> None:
    for user in (User(name="gone", role=Role.READER), User(name="reader", role=Role.ADMIN)):
        token, _ = store.open_session(user, lasting=HOUR)
        client = make_room(credentials=credentials)
        client.cookies.set("hemoscope_session", token)
        assert client.get("/api/v1/site").status_code == 401


def test_logins_are_few_and_requests_are_limited(
    make_room: Callable[..., TestClient], credentials: Credentials
) -> None:
    client = make_room(credentials=credentials, requests_per_minute=8, logins_per_minute=3)
    answers = [client.post("/api/v1/login", json={"token": "guess"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    statuses = [client.get("/health").status_code for _ in range(6)]
    assert statuses == [200] * 4 + [429] * 2


def test_one_account_is_tried_only_so_often_from_all_addresses_but_its_user_still_gets_in(
    make_room: Callable[..., TestClient], credentials: Credentials
) -> None:
    client = make_room(credentials=credentials, account_logins_per_minute=2)
    log_in(client, "reader")
    app_state = client.app.state.app_state  # type: ignore[attr-defined]
    app_state.account_logins._known.clear()  # as if she had logged in elsewhere
    guess = {"user": "reader", "password": "a wrong password"}
    answers = [client.post("/api/v1/login", json=guess) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [401, 429]
    assert answers[1].json()["code"] == "too_many_logins"
    assert 1 <= int(answers[1].headers["Retry-After"]) <= 30
    assert client.post("/api/v1/login", json={"user": "nobody", "password": "x"}).status_code == 401
    app_state.account_logins.succeeded("reader", "testclient")
    log_in(client, "reader")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.example:8000"])
def test_a_foreign_host_name_is_refused(room: TestClient, host: str) -> None:
    answer = room.get("/api/v1/studies", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host")


@pytest.mark.parametrize("host", ["LOCALHOST:9999", "127.0.0.1", "[::1]:8000", "reading.example"])
def test_our_own_host_names_are_answered(
    make_room: Callable[..., TestClient], credentials: Credentials, host: str
) -> None:
    client = make_room(credentials=credentials, allowed_host=("reading.example",))
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"])
def test_a_proxy_in_front_of_a_room_without_users_is_refused(room: TestClient, header: str) -> None:
    answer = room.get("/api/v1/studies", headers={header: "203.0.113.9"})
    assert (answer.status_code, answer.json()["code"]) == (403, "proxy_without_login")


def test_without_users_there_is_nothing_to_log_in_to(room: TestClient) -> None:
    answer = room.post("/api/v1/login", json={"token": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "no_users")


def test_credentials_that_the_settings_do_not_name_are_refused(store: Store, credentials: Credentials) -> None:
    with pytest.raises(ValueError, match="disagree on whether anybody must log in"):
        create_app(store, Settings(), model_card={}, credentials=credentials)
    with pytest.raises(ValueError, match="disagree on whether anybody must log in"):
        create_app(store, Settings(users=Path("users"), host="0.0.0.0"), model_card={})


class TestFiles:
    def test_entries_are_written_replaced_and_removed(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens"
        write_entry(file, "scraper", Role.READER, hash_token("one"))
        write_entry(file, "robot", Role.READER, hash_token("two"))
        write_entry(file, "scraper", Role.ADMIN, hash_token("three"))
        known = load_credentials(users=None, tokens=file)
        assert known.user_of_token("one") is None
        assert known.user_of_token("three") == User(name="scraper", role=Role.ADMIN)
        assert known.user_of_password("scraper", "three") is None
        remove_entry(file, "scraper")
        assert load_credentials(users=None, tokens=file).user_of_token("three") is None
        assert oct(file.stat().st_mode & 0o777) == "0o600"
        assert [path.name for path in tmp_path.iterdir()] == ["tokens"]

    def test_a_removed_name_must_be_there(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens"
        write_entry(file, "robot", Role.READER, hash_token("two"))
        with pytest.raises(ConfigError, match="does not name that user"):
            remove_entry(file, "scraper")

    @pytest.mark.parametrize("name", ["", "a:b", "a b", "-x", "x" * 65, "a\nb"])
    def test_a_name_that_would_break_the_file_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match="user's name has letters"):
            write_entry(tmp_path / "users", name, Role.READER, hash_token("x"))

    def test_a_file_that_everybody_may_read_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "users"
        write_entry(file, "robot", Role.READER, hash_password(PASSWORD))
        file.chmod(0o644)
        with pytest.raises(ConfigError, match="read by every user"):
            load_credentials(users=file, tokens=None)

    @pytest.mark.parametrize(
        ("text", "words"),
        [("", "holds no token"), ("# nobody\n\n", "holds no token"), ("robot:reader:secret", "line 1 is not")],
    )
    def test_a_file_of_tokens_without_entries_is_refused(self, tmp_path: Path, text: str, words: str) -> None:
        file = tmp_path / "tokens"
        file.touch(0o600)
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_credentials(users=None, tokens=file)

    def test_a_missing_file_and_folder_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot read tokens"):
            load_credentials(users=None, tokens=tmp_path / "tokens")
        with pytest.raises(ConfigError, match="cannot write users"):
            write_entry(tmp_path / "none" / "users", "robot", Role.READER, hash_token("x"))
