"""Live changes: in order, none left out, and the stream ends when the server does."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from hemoscope.errors import StoreError
from hemoscope.store.background import Backoff
from hemoscope.store.store import Store
from hemoscope.store.values import Changes, Role, User
from hemoscope.web.access import Caller
from hemoscope.web.app_state import AppState
from hemoscope.web.change_feed import ChangeFeed
from hemoscope.web.problems import Problem
from hemoscope.web.routes import events


def parsed(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Events of a stream: id, name, data."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith((":", "retry")))
        if fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


async def listen(room: AppState, version: int, *, pieces: int) -> str:
    """Take pieces of a stream while the feed watches, then end it."""
    watching = asyncio.create_task(room.feed.watch())
    room.closing = asyncio.Event()
    stream: AsyncIterator[str] = events._stream(room, version, lambda: True)
    text = "".join([await anext(stream) for _ in range(pieces)])
    room.closing.set()
    text += "".join([piece async for piece in stream])
    watching.cancel()
    return text


@pytest.fixture
def state(room: TestClient) -> AppState:
    found = room.app.state.app_state  # type: ignore[attr-defined]
    assert isinstance(found, AppState)
    # Its feed lives on the client's own loop; the tests run one of theirs.
    found.feed = ChangeFeed(found.store)
    return found


def test_changes_come_in_order_with_the_version_to_resume_from(
    room: TestClient, state: AppState, slices: tuple[bytes, ...], store: Store
) -> None:
    ids = [
        room.post("/api/v1/uploads", files=[("files", ("x", content))]).json()["study"]["study_id"]
        for content in slices[:2]
    ]
    store.delete(ids[0], by="local")
    found = parsed(asyncio.run(listen(state, 0, pieces=2)))
    assert [(name, data["study_id"]) for _, name, data in found] == [("study", ids[1]), ("deleted", ids[0])]
    versions = [version for version, _, _ in found]
    assert versions == sorted(versions)
    assert found[0][2] == room.get(f"/api/v1/studies?search={ids[1]}").json()["studies"][0]
    state.feed = ChangeFeed(store)
    resumed = parsed(asyncio.run(listen(state, versions[0], pieces=2)))
    assert resumed == found[1:]


def test_an_idle_stream_is_kept_alive_and_ends_when_the_server_shuts_down(
    state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.0)
    monkeypatch.setattr(events, "_POLL_S", 0.01)
    text = asyncio.run(asyncio.wait_for(listen(state, 0, pieces=3), 60))
    assert text.startswith("retry: 2000\n\n: still here\n\n")
    assert parsed(text) == []


def test_the_stream_ends_with_the_session(guarded: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.0)
    monkeypatch.setattr(events, "_POLL_S", 0.01)
    token, _ = store.open_session(User(name="reader", role=Role.READER), lasting=timedelta(hours=1))
    guarded.cookies.set("hemoscope_session", token)
    with guarded.stream("GET", "/api/v1/events") as stream:
        heard = stream.iter_text()
        assert "retry" in next(heard)
        store.close_session(token)
        list(heard)


def test_one_user_has_a_limited_number_of_streams_and_gets_them_back(
    room: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.closing.set()
    for _ in range(3):
        assert room.get("/api/v1/events").status_code == 200
    assert state.streams.total() == 0
    monkeypatch.setattr(events, "STREAMS_OF_ONE", 0)
    answer = room.get("/api/v1/events")
    assert (answer.status_code, answer.json()["code"]) == (503, "too_many_streams")


def test_streams_that_are_asked_for_at_once_are_no_more_than_one_after_the_other(
    room: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAMS_OF_ONE", 2)
    request = Request({"type": "http", "app": room.app, "headers": []})
    caller = Caller(user=User(name="anna", role=Role.READER), csrf=None)

    async def ask() -> list[object]:
        asked = (events.events(request, caller) for _ in range(5))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    refused = [one for one in asyncio.run(ask()) if isinstance(one, Problem)]
    assert [one.code for one in refused] == ["too_many_streams"] * 3
    assert state.streams["anna"] == 2


def test_a_version_from_a_lost_future_starts_from_now(
    room: TestClient, state: AppState, slices: tuple[bytes, ...]
) -> None:
    state.closing.set()
    for address in ("/api/v1/events?since=999999", "/api/v1/events"):
        answer = room.get(address, headers={"Last-Event-ID": "999999"} if "since" not in address else {})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"


def test_a_last_event_id_that_is_none_is_refused(room: TestClient) -> None:
    assert room.get("/api/v1/events", headers={"Last-Event-ID": "yesterday"}).status_code == 422


def test_the_feed_survives_an_unreachable_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Changes | StoreError] = [
        StoreError(code="database_unreachable", reason="away", remedy="wait"),
        Changes(version=7),
        Changes(version=7),
    ]

    def changes_since(_version: int) -> Changes:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, StoreError):
            raise answer
        return answer

    monkeypatch.setattr(store, "changes_since", changes_since)

    async def wait() -> Changes:
        feed = ChangeFeed(store)
        watching = asyncio.create_task(feed.watch())
        try:
            return await feed.after(3, wait_s=60)
        finally:
            watching.cancel()

    assert asyncio.run(wait()).version == 7


@pytest.mark.parametrize("trouble", ["fails", "waits"])
def test_changes_do_not_wait_for_the_end_of_abandoned_claims(
    store: Store, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    tried, ended = threading.Event(), threading.Event()

    def end_abandoned() -> int:
        tried.set()
        if trouble == "fails":
            raise StoreError(code="database_full", reason="full", remedy="wait")
        ended.wait()
        return 0

    def changes_since(_version: int) -> Changes:
        return Changes(version=7 if tried.is_set() else 3)  # the change comes once the other has begun

    monkeypatch.setattr(store, "changes_since", changes_since)
    monkeypatch.setattr(store.readers, "end_abandoned", end_abandoned)

    async def wait() -> tuple[Changes, int]:
        feed = ChangeFeed(store)
        watching = asyncio.create_task(feed.watch())
        try:
            return await feed.after(3, wait_s=60), len(pauses)
        finally:
            ended.set()
            watching.cancel()

    pauses: list[float] = []
    monkeypatch.setattr(Backoff, "next_pause_s", lambda _: pauses.append(0.0) or 0.0)
    assert asyncio.run(wait()) == (Changes(version=7), 0)
