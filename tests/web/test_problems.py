"""Errors: problem+json with a cause and a remedy, whatever goes wrong, and nothing of the internals."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hemoscope.errors import StoreError
from hemoscope.store.refusals import REMEDIES, refusal
from hemoscope.store.store import Store
from hemoscope.web.problems import STORE_STATUS

KEYS = {"type", "title", "status", "detail", "cure", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/nowhere", 404),
        ("GET", "/static/nowhere.js", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/api/v1/studies/", 404),
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
        ("PUT", "/api/v1/studies", 405),
        ("POST", "/", 405),
        ("GET", "/api/v1/studies/short", 422),
        ("GET", f"/api/v1/studies/{'0' * 32}/slices/-1/pixels", 422),
        ("GET", f"/api/v1/studies/{'0' * 32}/slices/0/heatmap/headache", 422),
        ("GET", f"/api/v1/studies/{'0' * 32}/slices/99999999999999999999/pixels", 422),
        ("GET", "/studies/short", 422),
    ],
)
def test_every_error_is_a_problem_with_a_cause_and_a_remedy(
    room: TestClient, method: str, path: str, status: int
) -> None:
    answer = room.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == KEYS
    assert document["status"] == status
    assert all(document.values())
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/health", "GET"),
        ("/login", "GET, POST"),
        (f"/api/v1/studies/{'0' * 32}", "GET, DELETE"),
        (f"/api/v1/studies/{'0' * 32}/feedback", "GET, POST"),
        ("/static/login.js", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_answered_with_all_that_the_path_has(room: TestClient, path: str, methods: str) -> None:
    answer = room.request("PATCH", path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, methods)


def test_a_validation_error_names_the_field_and_never_the_value(room: TestClient) -> None:
    body = {"label": "WINTERBOTTOM", "verdict": "agree", "present": True, "AGATHA": 1}
    answer = room.post(f"/api/v1/studies/{'0' * 32}/feedback", json=body)
    assert "body.label" in answer.json()["detail"]
    assert "WINTERBOTTOM" not in answer.text
    assert "AGATHA" not in answer.text


def test_a_bug_reveals_nothing_to_the_client_and_its_location_to_the_log(
    room: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_query: Any) -> None:
        msg = "cannot parse WINTERBOTTOM^AGATHA"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(store, "studies", fail)
    answer = room.get("/api/v1/studies")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "WINTERBOTTOM" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "ZeroDivisionError in /api/v1/studies" in caplog.text


def test_every_refusal_of_the_store_has_a_status() -> None:
    assert set(STORE_STATUS) == set(REMEDIES)


@pytest.mark.parametrize("code", sorted(REMEDIES))
def test_a_refusal_of_the_store_keeps_its_code_and_remedy(
    room: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def refuse(_query: Any) -> None:
        raise refusal(code, "something is wrong")

    monkeypatch.setattr(store, "studies", refuse)
    answer = room.get("/api/v1/studies")
    assert answer.status_code == STORE_STATUS[code]
    assert answer.json() | {"code": code, "cure": REMEDIES[code], "detail": "Something is wrong."} == answer.json()


def test_an_unreachable_database_is_reported_and_the_server_is_not_ready(
    make_room: Callable[..., TestClient], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_arguments: Any) -> None:
        raise StoreError(code="database_unreachable", reason="the database does not answer", remedy="Start it")

    for name in ("counts", "changes_since", "studies"):
        monkeypatch.setattr(store, name, away)
    room = make_room()
    assert [room.get(path).status_code for path in ("/ready", "/metrics", "/api/v1/studies")] == [503] * 3
    assert room.get("/health").status_code == 200


def test_a_range_of_a_static_file_is_no_other_kind_of_error(room: TestClient) -> None:
    whole = room.get("/static/login.js")
    for wrong in ("bytes=5-1", "bytes=99999999-", "lines=1-2", "bytes=0-1"):
        answer = room.get("/static/login.js", headers={"Range": wrong})
        assert (answer.status_code, answer.content) == (200, whole.content)


def test_thousands_of_wrong_fields_are_not_all_named(room: TestClient) -> None:
    """Anybody may send them, and naming each takes long."""
    answer = room.post("/api/v1/login", json={f"k{number}": 1 for number in range(1000)})
    assert answer.status_code == 422
    wrong = {"user": 1, "password": 1, "token": 1}
    assert room.post("/api/v1/login", json=wrong).json()["detail"].count("body.") == 3
    answer = room.post(f"/api/v1/studies/{'0' * 32}/feedback", json={"slices": ["x"] * 5000})
    assert answer.json()["detail"].count("body.") <= 20


def test_what_anybody_may_send_is_small(room: TestClient) -> None:
    longest = {"user": "\x01" * 64, "password": "\x01" * 1024, "token": "\x01" * 1024}
    assert room.post("/api/v1/login", json=longest).status_code == 409, "the server has no users"
    too_long = {**longest, "password": "x" * (16 << 10)}
    assert room.post("/api/v1/login", json=too_long).json()["code"] == "body_too_large"
