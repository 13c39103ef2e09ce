"""Two servers over one PostgreSQL: recovery, no connection left, and kill -9; nothing lost, ready again in time."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import httpx
import pytest

from hemoscope.store.settings import Settings
from hemoscope.store.store import open_store

from .conftest import Cluster

pytestmark = pytest.mark.reference_tool
WAIT_S = 180.0  # on an idle machine it is ready again within 30 s; tests share the processors
FAULT_S = 5.0
TIMEOUT_S = 180.0
HEADERS = {"X-CSRF-Token": "local"}


class Server:
    """A running ``hemoscope serve`` over the cluster."""

    def __init__(self, folder: Path, bundle: Path, url: str) -> None:
        self.clients: list[httpx.Client] = []
        self.log = folder / f"log-{time.monotonic_ns()}"
        words = ("--port", "0", "--storage", str(folder / "s"), "--model", str(bundle), "--threads", "1")
        environment = {**os.environ, "HEMOSCOPE_DATABASE": url}
        hemoscope = Path(sys.executable).with_name("hemoscope")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                (hemoscope, "serve", *words), stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )

    def client(self) -> httpx.Client:
        """Wait for the line with the address."""
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found, self.log.read_text()
        self.clients.append(httpx.Client(base_url=found[0], headers=HEADERS, timeout=TIMEOUT_S))
        return self.clients[0]


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path, tiny_bundle: Path) -> Iterator[Callable[[], Server]]:
    running: list[Server] = []

    def build() -> Server:
        running.append(Server(tmp_path, tiny_bundle, cluster.url))
        return running[-1]

    yield build
    for server in running:
        for client in server.clients:
            client.close()
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def until(condition: Callable[[], object], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def fault_of(cluster: Cluster, name: str) -> AbstractContextManager[None]:
    faults = {"57P03": cluster.recovering, "53300": cluster.exhausted, "kill": nullcontext}
    return faults[name]()


def test_two_servers_lose_nothing_and_are_ready_soon_after_each_fault(
    cluster: Cluster, start: Callable[[], Server], series: list[bytes], tmp_path: Path
) -> None:
    with cluster.recovering():  # the database is not there yet
        servers = [start(), start()]
        until(lambda: all("waiting: the database" in one.log.read_text() for one in servers), TIMEOUT_S)
    clients = [one.client() for one in servers]
    accepted: set[str] = set()
    ended = threading.Event()

    def ready(client: httpx.Client) -> bool:
        return client.get("/ready").status_code == 200

    def keep_uploading() -> None:
        files = [("files", (str(number), content)) for number, content in enumerate(series)]
        while not ended.wait(0.3):
            answer = clients[0].post("/api/v1/uploads", files=files)
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 202:
                accepted.add(answer.json()["study"]["study_id"])

    until(lambda: all(map(ready, clients)), TIMEOUT_S)
    uploading = threading.Thread(target=keep_uploading)
    uploading.start()
    for name in ("57P03", "53300", "kill"):
        with fault_of(cluster, name):
            if name == "kill":
                servers[1].process.send_signal(signal.SIGKILL)
                servers[1].process.wait()
                servers[1] = start()
                clients[1] = servers[1].client()
            else:
                until(lambda: clients[1].get("/ready").json().get("code") == "database_unreachable", WAIT_S)
                time.sleep(FAULT_S)
            assert [client.get("/health").status_code for client in clients] == [200, 200]
        until(lambda: all(map(ready, clients)), WAIT_S)
    ended.set()
    uploading.join()

    def unfinished() -> list[str]:
        listed = clients[1].get("/api/v1/studies?limit=1000").json()["studies"]
        return [f"{one['state']} {one['error_code']}" for one in listed if one["state"] != "done"]

    until(lambda: not [one for one in unfinished() if "failed" not in one], TIMEOUT_S)
    assert unfinished() == []
    store = open_store(Settings(database=cluster.url, storage=tmp_path / "s"))
    assert accepted <= {one.study_id for one in store.studies()[0]}
    store.close()
    logs = "\n".join(one.log.read_text() for one in servers)
    assert "Traceback" not in logs, logs[logs.index("Traceback") - 500 :]
    assert len(accepted) > 3
