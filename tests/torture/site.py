"""A site under faults: real servers with their workers over one storage and one database, and what they owe.

What was accepted must end in a result or a named failure, once; an upload whose answer was lost may be listed or not.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from hemoscope.store.settings import Settings
from hemoscope.store.store import open_store
from hemoscope.store.values import StudyState, WorklistQuery
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

from ..store.conftest import Cluster
from .dicom_targets import zip_of
from .store_machine import predictor
from .tally import Count
from .target import REPOSITORY

TIMEOUT_S = 20.0
READY_WITHIN_S = 30.0
ENDED_WITHIN_S = 120.0
HEADERS = {"X-CSRF-Token": "local"}
DISK_BYTES = 64 << 20
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
_SLICES = ((2, 32), (30, 96))
# What a study may fail with here: workers that are killed or have no memory. Anything else is a wrong name.
NAMED = {"worker_killed", "out_of_memory"}


class Server:
    """A running server; it can be killed and started again over the same storage."""

    def __init__(self, words: list[str], log: Path, environment: dict[str, str]) -> None:
        self._words, self.log, self._environment = words, log, environment
        self.start()

    def start(self) -> None:
        """Start the process; ``url`` waits until it listens."""
        command = (sys.executable, "-m", "tests.torture.serve", *self._words)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Its address, once it listens."""
        if self._url is None:
            assert self.process.stdout is not None
            found = re.search(r"http://\S+", self.process.stdout.readline())
            assert found, f"the server did not start:\n{self.log.read_text()[-3000:]}"
            self._url = found[0]
        return self._url

    @property
    def workers(self) -> list[int]:
        """Its child processes."""
        with suppress(FileNotFoundError, ProcessLookupError):
            tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
            return [int(child) for task in tasks for child in (task / "children").read_text().split()]
        return []

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Site:
    """One or two servers; ``cluster`` is their PostgreSQL, or None for SQLite beside the studies."""

    def __init__(
        self, folder: Path, *, cluster: Cluster | None, disk: bool, faketime: bool, chance: random.Random
    ) -> None:
        self.folder, self.cluster, self.chance = folder, cluster, chance
        self.disk = folder / "disk" if disk else None
        self.storage = (self.disk or folder) / "storage"
        self.clock = folder / "clock" if faketime and FAKETIME is not None else None
        self.database = cluster.url if cluster is not None else f"sqlite:///{self.storage}/hemoscope.sqlite3"
        self.accepted: set[str] = set()
        self.undecided = 0
        self.wrong: set[str] = set()
        self.failed = 0
        self.refused: dict[str, int] = {}
        if self.disk is not None:
            self.disk.mkdir()
            _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(self.disk))
        words = [
            "--port",
            "0",
            "--storage",
            str(self.storage),
            "--model",
            str(predictor().bundle.folder),
            "--threads",
            "1",
        ]
        number = 1 if cluster is None else 2
        self.servers = [Server(words, folder / f"log-{one}", self._environment()) for one in range(number)]
        self.client = httpx.Client(headers=HEADERS, timeout=TIMEOUT_S)

    def _environment(self) -> dict[str, str]:
        found = {**os.environ, "HEMOSCOPE_DATABASE": self.database, "OMP_NUM_THREADS": "1"}
        if self.clock is not None:
            self.clock.write_text("+0")
            found |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.clock), "FAKETIME_NO_CACHE": "1"}
            found |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        return found

    def upload(self, times: int = 1) -> None:
        """Upload studies to one of the servers each; an answer may be a refusal, but no error without a name."""
        for _ in range(times):
            server = self.chance.choice(self.servers)
            files = [("files", ("x", content_of(self.chance.randrange(len(_SLICES)))))]
            try:
                answer = self.client.post(f"{server.url}/api/v1/uploads", files=files)
            except httpx.HTTPError:
                self.undecided += 1
                continue
            if answer.status_code == 202:
                self.accepted.add(answer.json()["study"]["study_id"])
            else:
                code = answer.json().get("code", "none")
                assert answer.status_code != 500 or code == "storage_unusable", answer.text
                self.refused[code] = self.refused.get(code, 0) + 1

    def ready(self) -> bool:
        """Whether every server is ready."""
        try:
            return all(self.client.get(f"{one.url}/ready").status_code == 200 for one in self.servers)
        except httpx.HTTPError:
            return False

    def studies(self) -> list[dict[str, Any]]:
        """The worklist."""
        found: list[dict[str, Any]] = []
        while True:
            address = f"{self.servers[-1].url}/api/v1/studies?limit=1000&offset={len(found)}"
            page = self.client.get(address).json()["studies"]
            found += page
            if len(page) < 1000:
                return found

    def settle(self) -> Count:
        """Wait until the servers are ready and all that was accepted has ended; count what did not."""
        count, began = Count(done=1), time.monotonic()
        if not wait_for(self.ready, ENDED_WITHIN_S):
            return Count(done=1, found=1, slowest_s=ENDED_WITHIN_S)
        count.slowest_s = time.monotonic() - began
        count.found += count.slowest_s > READY_WITHIN_S
        listed = self._ended()
        unfinished = [one for one in listed.values() if one["state"] not in ("done", "failed")]
        count.lost = len(self.accepted - listed.keys()) + len(unfinished)
        count.doubled = max(0, len(listed) - len(self.accepted) - self.undecided)
        count.failed = sum(one["state"] == "failed" for one in listed.values()) - self.failed
        self.failed += count.failed
        wrong = {study_id for study_id, one in listed.items() if not _is_right(one)} - self.wrong
        self.wrong |= wrong
        count.found += len(wrong)
        sys.stderr.writelines(f"wrong: {listed[one]}\n" for one in wrong)
        return count

    def _ended(self) -> dict[str, dict[str, Any]]:
        """Wait until every study listed has ended; return that list, by study, or the last one.

        An upload whose client gave up may be accepted at any time: a list fetched later could hold it, still waiting.
        """
        listed: dict[str, dict[str, Any]] = {}

        def all_ended() -> bool:
            listed.clear()
            listed.update({one["study_id"]: one for one in self.studies()})
            return all(one["state"] in ("done", "failed") for one in listed.values())

        wait_for(all_ended, ENDED_WITHIN_S)
        return listed

    def forgive(self) -> None:
        """Take what is listed now as what is owed, so that one loss is counted once."""
        with suppress(httpx.HTTPError, KeyError):
            self.accepted = {one["study_id"] for one in self.studies()}
            self.undecided = 0

    def close(self) -> Count:
        """End the servers; compare the worklist with results and pixels, and look for tracebacks in the logs."""
        self.client.close()
        for server in self.servers:
            server.process.send_signal(signal.SIGTERM)
        for server in self.servers:
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(60)
            server.kill()
        count = self._compare()
        logs = [server.log.read_text(errors="replace") for server in self.servers]
        count.found += sum("Traceback" in log for log in logs)
        if self.disk is not None:
            _run("umount", "-l", str(self.disk))
        return count

    def _compare(self) -> Count:
        """Count studies that are done and have no result, or whose pixels are gone."""
        store = open_store(Settings(database=self.database, storage=self.storage))
        try:
            listed = store.studies(WorklistQuery(limit=1000))[0]
            done = [one for one in listed if one.state is StudyState.DONE]
            count = Count()
            for one in done:
                try:
                    assert store.findings_json(one.study_id)
                    assert store.pixels(one.study_id, 0)
                except Exception:  # noqa: BLE001 - whatever keeps a user from it
                    count.lost += 1
            return count
        finally:
            store.close()


def _is_right(study: dict[str, Any]) -> bool:
    """Whether a study is not finished yet, has all its slices, or failed by a name that fits."""
    if study["state"] == "failed":
        return study["error_code"] in NAMED
    return study["state"] != "done" or study["instances"] in {slices for slices, _ in _SLICES}


@cache
def content_of(kind: int) -> bytes:
    """A study as a ZIP: a tiny one, or one that takes long enough to be killed while it is read."""
    slices, size = _SLICES[kind]
    with tempfile.TemporaryDirectory(prefix="hemoscope-torture-") as folder:
        paths = write_series(make_phantom(seed=kind, shape=(slices, size, size)), Path(folder), seed=kind)
        return zip_of({path.name: path.read_bytes() for path in paths})


def wait_for(condition: Callable[[], object], limit_s: float) -> bool:
    """Wait until a condition holds; False if it does not within the limit."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with suppress(httpx.HTTPError, KeyError, ValueError):
            if condition():
                return True
        time.sleep(0.1)
    return False


def can_mount() -> bool:
    """Whether this process may mount a file system that nobody else sees."""
    return os.geteuid() == 0 and bool(os.environ.get("HEMOSCOPE_TORTURE_UNSHARED"))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextmanager
def running_site(*, postgresql: bool, faketime: bool, chance: random.Random) -> Iterator[Site]:
    """A site in a temporary folder; the caller closes it for its counts."""
    folder = Path(tempfile.mkdtemp(prefix="hemoscope-torture-"))
    cluster = None
    if postgresql:
        cluster = Cluster(Path(tempfile.mkdtemp(prefix="hemoscope-pg-")))
        cluster.start()
    site = Site(folder, cluster=cluster, disk=can_mount(), faketime=faketime, chance=chance)
    try:
        yield site
    finally:
        for server in site.servers:
            if server.process.poll() is None:
                server.kill()
        if cluster is not None:
            cluster.stop()
            shutil.rmtree(cluster.home)
        shutil.rmtree(folder, ignore_errors=True)
