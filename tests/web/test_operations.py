"""``/health`` and ``/ready`` report what does not work, and never with a 500."""

import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hemoscope.store import background
from hemoscope.store.background import BackgroundLoop
from hemoscope.store.database import Database
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.web.app import create_app
from hemoscope.web.routes import operations

CARD = {"name": "tiny", "version": "1.0", "sha256": "0" * 64}
Rooms = Callable[..., TestClient]
WAIT_S = 60.0


@pytest.fixture
def alive(store: Store) -> None:
    """A worker whose heartbeat is fresh."""
    store.jobs.join("1" * 32, host="here", pid=1)


def test_health_fails_and_names_the_thread_that_is_gone(store: Store) -> None:
    settings = Settings(workers=0)
    supervisor = Supervisor(store, settings)
    app = create_app(store, settings, model_card=CARD, background=supervisor.vitals)
    with TestClient(app, base_url="http://localhost") as client:
        with supervisor:
            assert client.get("/health").json() == {"status": "ok"}
        answer = client.get("/health")
        assert answer.status_code == 503
        assert answer.json()["code"] == "background_stopped"
        assert answer.json()["detail"] == "Not at work: supervise-workers (ended), sweep-store (ended)."


def test_health_fails_and_names_the_thread_that_is_stuck(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    loop = BackgroundLoop("a-loop", lambda: release.wait(WAIT_S), every_s=0.0, stuck_after_s=60)
    app = create_app(store, Settings(), model_card=CARD, background=[loop.vitals])
    with TestClient(app, base_url="http://localhost") as client:
        loop.start()
        assert client.get("/health").status_code == 200
        monkeypatch.setattr(background, "monotonic", lambda: time.monotonic() + 66)
        assert client.get("/health").json()["detail"] == "Not at work: a-loop (stuck)."
    release.set()
    loop.stop()
    loop.join()


def test_health_fails_once_the_task_of_the_live_updates_has_ended(room: TestClient) -> None:
    room.app.state.app_state.feed.vitals.ended()  # type: ignore[attr-defined]
    assert room.get("/health").json()["detail"] == "Not at work: change-feed (ended)."


def test_an_application_that_is_started_again_is_well(store: Store) -> None:
    app = create_app(store, Settings(), model_card=CARD)
    for _ in range(2):
        with TestClient(app, base_url="http://localhost") as client:
            assert client.get("/health").json() == {"status": "ok"}
    assert app.state.app_state.feed.vitals.fault == "ended"


@pytest.mark.usefixtures("alive")
def test_ready_writes_to_the_storage(room: TestClient, store: Store) -> None:
    assert room.get("/ready").status_code == 200
    assert {path.name for path in store.folder.root.iterdir()} == {".store-id", ".swept", ".trash"}


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("how", ["gone", "another"])
def test_a_storage_that_is_gone_is_not_ready(room: TestClient, store: Store, how: str) -> None:
    if how == "gone":
        shutil.rmtree(store.folder.root)
    else:
        store.folder.write_store_id("f" * 32)
    answer = room.get("/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unusable")
    assert "mounted" in answer.json()["cure"]


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("number", ["EROFS", "ENOSPC", "EIO"])
def test_a_storage_that_cannot_be_written_to_is_not_ready(
    room: TestClient, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    import errno
    import os

    def fail(*_arguments: Any) -> None:
        raise OSError(getattr(errno, number), "no")

    monkeypatch.setattr(os, "fsync", fail)
    answer = room.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["code"] == ("storage_full" if number == "ENOSPC" else "storage_unusable")


@pytest.mark.usefixtures("alive")
def test_an_unknown_fault_of_the_database_is_503_and_not_500(
    room: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_self: Database) -> None:
        msg = "secret"
        raise RuntimeError(msg)

    monkeypatch.setattr(Database, "writing", fail)
    answer = room.get("/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "secret" not in answer.text + caplog.text


@pytest.mark.usefixtures("alive")
def test_a_database_that_hangs_is_not_ready_and_holds_no_answer_back(
    room: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(operations, "_PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(store, "check_database", lambda: answered.wait(WAIT_S))
    answer = room.get("/ready")
    assert not answered.is_set()
    answered.set()
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "TimeoutError" in answer.json()["detail"]


def test_the_live_updates_outlive_any_error(make_room: Rooms, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from hemoscope.web.change_feed import ChangeFeed

    failed = 0

    async def fail(_self: ChangeFeed) -> int:
        nonlocal failed
        failed += 1
        msg = "secret"
        raise RuntimeError(msg)

    monkeypatch.setattr(ChangeFeed, "latest", fail)
    room = make_room()
    room.app.state.app_state.feed._listeners = 1  # type: ignore[attr-defined]
    end = time.monotonic() + WAIT_S
    while failed < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert room.get("/health").status_code == 200
