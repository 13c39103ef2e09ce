"""The whole server as a process: one line of output, a study read, several processes, TLS, a clean shutdown."""

import os
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
import sqlalchemy as sa

from hemoscope.store import tables
from hemoscope.store.database import database_url

NAME, IDENTIFIER, FILE_NAME = "WINTERBOTTOM", "MRN-5550199", "WINTERBOTTOM_AGATHA_19870217"
HEMOSCOPE = str(Path(sys.executable).with_name("hemoscope"))
CSRF = {"X-CSRF-Token": "local"}
TIMEOUT_S = 120

Serve = Callable[..., "Server"]


class Server:
    """A running ``hemoscope serve``."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.log = folder / f"log-{time.monotonic_ns()}"
        command = [HEMOSCOPE, "serve", "--port", "0", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        self.line = self.process.stdout.readline()
        found = re.search(r"https?://\S+", self.line)
        assert found, self.log.read_text()
        self.url = found[0]

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture
def serve(tmp_path: Path, tiny_bundle: Path, database: str) -> Iterator[Serve]:
    """``serve(...)``: start a server over one storage folder; all are ended with the test."""
    running: list[Server] = []

    def start(*options: str) -> Server:
        options = ("--storage", str(tmp_path / "s"), "--model", str(tiny_bundle), "--database", database, *options)
        running.append(Server(tmp_path, *options))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        server.process.stdout.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """Its child processes, whichever of its threads started them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see the workers")
def test_a_study_is_read_and_the_server_ends_with_its_workers(serve: Serve, archive: bytes) -> None:
    server = serve()
    assert re.fullmatch(
        r"Hemoscope's reading room is at http://127\.0\.0\.1:\d+ .*Not a medical device.*\n", server.line
    )
    with httpx.Client(base_url=server.url, headers=CSRF, timeout=TIMEOUT_S) as client:
        until(lambda: client.get("/ready").status_code == 200)
        files = [("files", (f"{FILE_NAME}.zip", archive))]
        study_id = client.post("/api/v1/uploads", files=files).json()["study"]["study_id"]
        until(lambda: client.get(f"/api/v1/studies/{study_id}").json()["state"] == "done")
        client.get(f"/api/v1/studies?search={NAME}")
        workers = children_of(server.process.pid)
        assert len(workers) == 1
        ended = threading.Event()

        def listen() -> None:
            with httpx.stream("GET", f"{server.url}/api/v1/events", timeout=TIMEOUT_S) as stream:
                listening.set()
                list(stream.iter_text())
            ended.set()

        listening = threading.Event()
        thread = threading.Thread(target=listen)
        thread.start()
        assert listening.wait(TIMEOUT_S)
    assert server.stop() == 0
    thread.join(TIMEOUT_S)
    assert ended.is_set()
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    log = server.log.read_text()
    assert "GET /api/v1/studies/{study_id} 200" in log
    assert "Traceback" not in log
    assert not [secret for secret in (NAME, "AGATHA", IDENTIFIER, study_id, "1.2.826") if secret in log]


def test_a_web_process_without_workers_shows_what_another_ones_worker_read(serve: Serve, archive: bytes) -> None:
    with_worker, web_only = serve(), serve("--workers", "0")
    with httpx.Client(headers=CSRF, timeout=TIMEOUT_S) as client:
        accepted = client.post(f"{web_only.url}/api/v1/uploads", files=[("files", ("x", archive))])
        address = f"/api/v1/studies/{accepted.json()['study']['study_id']}"
        until(lambda: client.get(web_only.url + address).json()["state"] == "done")
        assert client.get(with_worker.url + address).json() == client.get(web_only.url + address).json()
    assert web_only.stop(signal.SIGINT) == 0
    assert with_worker.stop() == 0


def test_a_deidentifying_server_keeps_nothing_of_the_patient_anywhere(
    serve: Serve, archive: bytes, slices: tuple[bytes, ...], tmp_path: Path
) -> None:
    server = serve("--deidentify", "--keep-source")
    with httpx.Client(base_url=server.url, headers=CSRF, timeout=TIMEOUT_S) as client:
        accepted = client.post("/api/v1/uploads", files=[("files", (f"{FILE_NAME}.zip", archive))])
        address = f"/api/v1/studies/{accepted.json()['study']['study_id']}"
        until(lambda: client.get(address).json()["state"] == "done")
        answers = [client.get(f"{address}{part}").content for part in ("", "/findings", "/report.html", "/report.pdf")]
    assert server.stop() == 0
    headers = [pydicom.dcmread(BytesIO(content), stop_before_pixels=True) for content in slices]
    uids = {str(uid) for one in headers for uid in (one.SOPInstanceUID, one.SeriesInstanceUID, one.StudyInstanceUID)}
    secrets = [text.encode() for text in (NAME, "AGATHA", IDENTIFIER, "19870217", "1987-02-17", *uids)]
    files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "000001" in files, "the clean copies are kept"
    for content in [*files.values(), *answers]:
        assert not [secret for secret in secrets if secret in content]


def test_a_server_deletes_what_is_past_its_retention(
    serve: Serve, archive: bytes, database: str, tmp_path: Path
) -> None:
    server = serve("--workers", "0")
    with httpx.Client(base_url=server.url, headers=CSRF, timeout=TIMEOUT_S) as client:
        for _ in range(2):
            accepted = client.post("/api/v1/uploads", files=[("files", ("x", archive))])
    old = accepted.json()["study"]
    assert server.stop() == 0
    engine = sa.create_engine(database_url(database))
    with engine.begin() as connection:
        past = {"received_at": datetime.now(UTC) - timedelta(days=31)}
        connection.execute(tables.studies.update().where(tables.studies.c.study_id == old["study_id"]).values(past))
    engine.dispose()
    server = serve("--workers", "0", "--retention-days", "30")
    with httpx.Client(base_url=server.url, headers=CSRF, timeout=TIMEOUT_S) as client:
        until(lambda: client.get("/api/v1/studies").json()["total"] == 1)
        assert client.get(f"/api/v1/studies/{old['study_id']}").status_code == 404
    until(lambda: not list((tmp_path / "s").rglob(f"*{old['upload_id']}*")))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed: apt-get install openssl")
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-out", files[0], "-keyout", files[1]]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return files


def test_tls_is_spoken_by_the_server_itself_and_needs_a_login(
    serve: Serve, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    users = tmp_path / "users"
    password = "a long enough password"
    add = [HEMOSCOPE, "users", "add", "agnes", "--users", str(users)]
    subprocess.run(add, input=f"{password}\n", text=True, check=True, capture_output=True)
    tls = ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1])]
    server = serve("--users", str(users), "--workers", "0", "--host", "0.0.0.0", *tls)
    assert server.url.startswith("https://0.0.0.0:")
    url = server.url.replace("0.0.0.0", "localhost")
    context = ssl.create_default_context(cafile=certificate[0])
    with httpx.Client(base_url=url, verify=context, timeout=TIMEOUT_S) as client:
        assert client.get("/api/v1/studies").status_code == 401
        answer = client.post("/api/v1/login", json={"user": "agnes", "password": password})
        assert answer.status_code == 200
        assert "Secure" in answer.headers["Set-Cookie"]
        assert "Strict-Transport-Security" in answer.headers
        assert client.get("/api/v1/studies").json()["total"] == 0
        content = random.Random(20).randbytes(1 << 20)  # many reads of the TLS layer
        csrf = {"X-CSRF-Token": answer.json()["csrf_token"]}
        sent = client.post("/api/v1/uploads", files=[("files", ("x", content))], headers=csrf)
        assert sent.status_code == 202
        stored = (tmp_path / "s").glob("[0-9a-f]*/source/[0-9]*")
        assert [one.read_bytes() for one in stored] == [content]
    assert server.stop() == 0


def test_the_server_reports_a_port_that_is_taken(serve: Serve, tmp_path: Path, tiny_bundle: Path) -> None:
    port = serve("--workers", "0").url.rpartition(":")[2]
    options = ["--storage", str(tmp_path / "s"), "--model", str(tiny_bundle), "--workers", "0", "--port", port]
    done = subprocess.run([HEMOSCOPE, "serve", *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "choose another --port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see the workers")
def test_every_accepted_study_ends_in_a_result_however_often_server_and_worker_are_killed(
    serve: Serve, archive: bytes
) -> None:
    chance, accepted = random.Random(20), []
    for turn in range(20):
        server = serve()
        with httpx.Client(base_url=server.url, headers=CSRF, timeout=TIMEOUT_S) as client:
            until(lambda client=client: client.get("/ready").status_code == 200)  # type: ignore[misc]
            answer = client.post("/api/v1/uploads", files=[("files", ("x", archive))])
            accepted.append(answer.json()["study"]["study_id"])
        time.sleep(chance.uniform(0, 1.5))
        victims = [server.process.pid] if turn % 2 else [*children_of(server.process.pid), server.process.pid]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    server = serve()
    with httpx.Client(base_url=server.url, headers=CSRF, timeout=TIMEOUT_S) as client:

        def states() -> dict[str, str]:
            listed = client.get("/api/v1/studies?limit=1000").json()["studies"]
            return {study["study_id"]: study["state"] for study in listed}

        until(lambda: set(states().values()) == {"done"})
        assert set(states()) == set(accepted)
        for study_id in accepted:
            document = client.get(f"/api/v1/studies/{study_id}/findings").json()
            assert len(document["studies"]) == 1
    assert server.stop() == 0
