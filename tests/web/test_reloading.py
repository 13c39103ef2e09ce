"""SIGHUP: users, tokens and the certificate are read again while the server runs."""

import asyncio
import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from hemoscope.errors import StoreError
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.supervisor import Supervisor
from hemoscope.store.users import hash_password
from hemoscope.store.values import Role, User
from hemoscope.web.app import create_app
from hemoscope.web.app_state import AppState
from hemoscope.web.connections import Connections
from hemoscope.web.credentials import Credentials, load_credentials, remove_entry, write_entry
from hemoscope.web.reloading import Reloading

HEMOSCOPE = str(Path(sys.executable).with_name("hemoscope"))
PASSWORD, NEW_PASSWORD = "a long enough password", "another long password"
TIMEOUT_S = 120
HOUR = timedelta(hours=1)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def hashed() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
def users(tmp_path: Path, hashed: str) -> Path:
    """A file of two readers."""
    file = tmp_path / "users"
    for name in ("agnes", "bruno"):
        write_entry(file, name, Role.READER, hashed)
    return file


@pytest.fixture
def app(store: Store, users: Path) -> FastAPI:
    """An application with these users."""
    credentials = load_credentials(users=users, tokens=None)
    return create_app(store, Settings(users=users), model_card={}, credentials=credentials)


@pytest.fixture
def state(app: FastAPI) -> AppState:
    """The state of the application."""
    found = app.state.app_state
    assert isinstance(found, AppState)
    return found


def reloading(state: AppState) -> Reloading:
    return Reloading(state, Connections(state.settings, None))


def test_only_the_sessions_of_changed_users_end(state: AppState, store: Store, users: Path, hashed: str) -> None:
    write_entry(users, "carla", Role.READER, hashed)
    sessions = {
        name: store.open_session(User(name=name, role=Role.READER), lasting=HOUR)[0]
        for name in ("agnes", "bruno", "carla")
    }
    asyncio.run(reloading(state).reload())
    assert all(store.session(token) for token in sessions.values())
    write_entry(users, "agnes", Role.READER, hash_password(NEW_PASSWORD))
    write_entry(users, "bruno", Role.ADMIN, hashed)
    asyncio.run(reloading(state).reload())
    assert [name for name, token in sessions.items() if store.session(token)] == ["carla"]
    ended = [one.user for one in store.audit_log() if one.action == "session ended"]
    assert ended == ["bruno", "agnes"]
    assert state.credentials.user_of_password("agnes", NEW_PASSWORD)
    assert state.credentials.user_of_password("agnes", PASSWORD) is None


@pytest.mark.parametrize("broken", ["agnes:reader:secret", "", None])
def test_a_file_that_cannot_be_read_changes_nothing(
    state: AppState, users: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before, content = state.credentials, users.read_text()
    if broken is None:
        users.unlink()
    else:
        users.write_text(broken)
    asyncio.run(reloading(state).reload())
    assert state.credentials is before
    assert state.reload_fault == "Users and tokens could not be read again: the old ones still count."
    assert "the old ones still count: " in caplog.text
    assert str(users.parent) not in caplog.text
    write_entry(users, "agnes", Role.READER, content.splitlines()[0].split(":", 2)[2]) if broken is None else (
        users.write_text(content)
    )
    asyncio.run(reloading(state).reload())
    assert state.reload_fault is None


def test_sessions_that_the_database_could_not_end_are_ended_by_the_next_reload(
    state: AppState, store: Store, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = store.open_session(User(name="bruno", role=Role.READER), lasting=HOUR)
    remove_entry(users, "bruno")
    one = reloading(state)

    def unreachable(_names: object) -> None:
        raise StoreError(code="database_unreachable", reason="no answer", remedy="wait")

    with monkeypatch.context() as patch:
        patch.setattr(store, "close_sessions_of", unreachable)
        asyncio.run(one.reload())
    assert "could not be ended" in str(state.reload_fault)
    assert store.session(token)
    assert not state.credentials.knows(User(name="bruno", role=Role.READER)), "he is out all the same"
    asyncio.run(one.reload())
    assert (store.session(token), state.reload_fault) == (None, None)


def test_reloads_follow_each_other_so_that_the_newest_file_counts(
    state: AppState, users: Path, hashed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second SIGHUP comes while the first reload has read the file and not yet put it in force."""
    one, first_read, second_ended = reloading(state), threading.Event(), threading.Event()

    def load(**files: Any) -> Credentials:
        found = load_credentials(**files)
        if not first_read.is_set():
            write_entry(users, "carla", Role.READER, hashed)
            first_read.set()
            second_ended.wait(1)  # only if the second did not wait for this one
        return found

    monkeypatch.setattr("hemoscope.web.reloading.load_credentials", load)

    async def second() -> None:
        assert await asyncio.to_thread(first_read.wait, TIMEOUT_S)
        await one.reload()
        second_ended.set()

    async def both() -> None:
        await asyncio.gather(one.reload(), second())

    asyncio.run(both())
    assert state.credentials.names("carla")


def test_a_login_with_a_password_that_a_reload_changes_meanwhile_is_refused(
    app: FastAPI, state: AppState, store: Store, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reload ends the sessions of the user while this one is not there yet."""
    open_session = store.open_session

    def reload_first(*arguments: Any, **options: Any) -> Any:
        write_entry(users, "agnes", Role.READER, hash_password(NEW_PASSWORD))
        asyncio.run(reloading(state).reload())
        return open_session(*arguments, **options)

    monkeypatch.setattr(store, "open_session", reload_first)
    with TestClient(app, base_url="http://localhost") as client:
        refused = client.post("/api/v1/login", json={"user": "agnes", "password": PASSWORD})
        assert (refused.status_code, refused.json()["code"]) == (401, "wrong_credentials")
        assert not client.cookies
        assert [one.action for one in store.audit_log()[:3]] == ["login refused", "logout", "login"]
        kept = client.post("/api/v1/login", json={"user": "bruno", "password": PASSWORD})
        assert kept.status_code == 200, "a reload that changes another user refuses nobody"


def test_a_file_of_the_node_that_is_wrong_changes_nothing_and_is_reported(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "node.toml"
    settings = Settings(node=file, storage=tmp_path / "s", workers=0)
    supervisor = Supervisor(store, settings)
    state = create_app(store, settings, model_card={}, reload_node=supervisor.reload).state.app_state
    file.write_text("[node]\nprot = 104\n")
    asyncio.run(reloading(state).reload())
    assert state.reload_fault == "The file of the node could not be read again: the old settings still count."
    assert "the old settings still count: node.toml, node: no such key: prot" in caplog.text
    file.write_text("[node]\nport = 104\n")
    asyncio.run(reloading(state).reload())
    assert state.reload_fault is None


class Server:
    """A running ``hemoscope serve`` without workers."""

    def __init__(self, folder: Path, bundle: Path, *options: str, **process: object) -> None:
        command = [HEMOSCOPE, "serve", "--port", "0", "--workers", "0", "--storage", str(folder / "s")]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                [*command, "--model", str(bundle), *options], stdout=subprocess.PIPE, stderr=log, text=True, **process
            )  # type: ignore[call-overload]
        assert self.process.stdout
        found = re.search(r"https?://\S+", self.process.stdout.readline())
        assert found, self.log.read_text()
        self.url = found[0]

    def reload(self, expected: str) -> None:
        """Send SIGHUP, and wait for a further line of the log."""
        before = self.log.read_text().count(expected)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.log.read_text().count(expected) > before)


@pytest.fixture
def start(tmp_path: Path, tiny_bundle: Path) -> Iterator[Callable[..., Server]]:
    """``start(...)``: a server, ended with the test."""
    with ExitStack() as ending:

        def started(*options: str, **process: object) -> Server:
            server = Server(tmp_path, tiny_bundle, *options, **process)
            ending.enter_context(server.process)
            ending.callback(server.process.kill)
            return server

        yield started


def certify(folder: Path) -> tuple[Path, Path]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed: apt-get install openssl")
    files = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-out", files[0], "-keyout", files[1]]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return files


@pytest.mark.journey
def test_a_reload_ends_a_removed_users_streams_and_changes_the_certificate(
    start: Callable[..., Server], users: Path, tmp_path: Path
) -> None:
    cert, key = certify(tmp_path)
    server = start("--users", str(users), "--tls-cert", str(cert), "--tls-key", str(key), "--header-seconds", "3")
    port = int(server.url.rpartition(":")[2])

    def certificate() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=TIMEOUT_S)

    def client() -> httpx.Client:
        return httpx.Client(base_url=server.url, verify=False, timeout=TIMEOUT_S)

    with client() as agnes, client() as bruno:
        for name, one in (("agnes", agnes), ("bruno", bruno)):
            assert one.post("/api/v1/login", json={"user": name, "password": PASSWORD}).status_code == 200
        listening, ended = threading.Event(), threading.Event()

        def listen() -> None:
            with client() as other, other.stream("GET", "/api/v1/events", cookies=dict(bruno.cookies)) as stream:
                for _ in stream.iter_text():
                    listening.set()
            ended.set()

        threading.Thread(target=listen, daemon=True).start()
        assert listening.wait(TIMEOUT_S)
        content, first = users.read_text(), certificate()
        users.write_text("broken")
        server.reload("were not read again")
        health = agnes.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert health.json()["warning"].startswith("Users and tokens could not be read again")
        assert bruno.get("/api/v1/site").status_code == 200
        assert not ended.is_set()
        users.write_text(content)
        remove_entry(users, "bruno")
        certify(tmp_path)
        server.reload("were read again")
        assert bruno.get("/api/v1/site").status_code == 401
        assert agnes.get("/api/v1/site").status_code == 200
        assert ended.wait(TIMEOUT_S)
        assert agnes.get("/health").json() == {"status": "ok"}
        assert certificate() != first
    silent = [socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) for _ in range(20)]
    for one in silent:
        with one, suppress(ConnectionError):
            assert one.recv(1) == b"", "a handshake that does not begin ends with the time of the headers"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(TIMEOUT_S) == 0


@pytest.mark.journey
def test_the_server_stops_when_its_terminal_is_closed(start: Callable[..., Server], users: Path) -> None:
    ours, theirs = pty.openpty()

    def control() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    server = start("--users", str(users), stdin=theirs, start_new_session=True, preexec_fn=control)
    os.close(theirs)
    server.reload("were read again")
    os.close(ours)
    assert server.process.wait(TIMEOUT_S) == 0
