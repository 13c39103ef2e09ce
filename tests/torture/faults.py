"""The faults of a site: each is a context in which something is broken, and works again at its end."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .serve import LEASE_S
from .site import Server, Site

Fault = Callable[[Site], Any]
CLOCK = "clock that jumps"


@contextmanager
def kill_a_worker(site: Site) -> Iterator[None]:
    """Kill -9 of one of the workers, at any moment."""
    site.upload(2)
    yield
    time.sleep(site.chance.uniform(0, 1.0))
    for pid in site.chance.choice(site.servers).workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def kill_a_server(site: Site) -> Iterator[None]:
    """Kill -9 of a server with its supervisor; its workers notice and end."""
    site.upload(2)
    time.sleep(site.chance.uniform(0, 1.0))
    _restarted(site.chance.choice(site.servers), ())
    yield


@contextmanager
def kill_all(site: Site) -> Iterator[None]:
    """Kill -9 of every process at once, as if the power failed."""
    site.upload(2)
    time.sleep(site.chance.uniform(0, 1.0))
    workers = [pid for server in site.servers for pid in server.workers]
    for server in site.servers:
        _restarted(server, workers)
    yield


def _restarted(server: Server, workers: Any) -> None:
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.kill()
    server.start()


@contextmanager
def paused_worker(site: Site) -> Iterator[None]:
    """Stop a worker until its lease has run out, then let it go on: its result is another's by now."""
    site.upload(2)
    workers = site.chance.choice(site.servers).workers
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    yield
    time.sleep(LEASE_S + 1)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def full_disk(site: Site) -> Iterator[None]:
    """Fill the disk of the studies, and of SQLite."""
    assert site.disk is not None
    site.upload()
    filler = site.disk / "filler"
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        yield
        time.sleep(site.chance.uniform(0, 2.0))
    finally:
        filler.unlink()


@contextmanager
def read_only_disk(site: Site) -> Iterator[None]:
    """Make the disk of the studies read-only while nothing writes to it."""
    assert site.disk is not None
    mounted = _remounted(site.disk, "ro")
    try:
        yield
        time.sleep(site.chance.uniform(0, 2.0) * mounted)
    finally:
        _remounted(site.disk, "rw")


def _remounted(disk: Path, how: str) -> bool:
    """A disk that is being written to is busy: try for a while."""
    command = ("mount", "-o", f"remount,bind,{how}", str(disk))
    for _ in range(50):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.05)
    return False


@contextmanager
def little_memory(site: Site) -> Iterator[None]:
    """Let workers take no more memory than they have."""
    pids = [pid for server in site.servers for pid in server.workers]
    with _limited(pids, resource.RLIMIT_DATA, lambda pid: _data_bytes(pid) + site.chance.choice((1, 8)) * (1 << 20)):
        yield
        site.upload()
        time.sleep(site.chance.uniform(0.5, 2.0))


@contextmanager
def few_descriptors(site: Site) -> Iterator[None]:
    """Let servers and workers open no more files than they have open, or hardly more."""
    pids = [pid for server in site.servers for pid in (*server.workers, server.process.pid)]
    with _limited(pids, resource.RLIMIT_NOFILE, lambda pid: _descriptors(pid) + site.chance.choice((0, 1, 3, 8))):
        yield
        time.sleep(site.chance.uniform(0.5, 2.0))


def _data_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmData:")[1].split()[0]) * 1024


def _descriptors(pid: int) -> int:
    return max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()) + 1


@contextmanager
def _limited(pids: list[int], what: int, soft: Callable[[int], int]) -> Iterator[None]:
    before = {}
    for pid in pids:
        # A process that was killed has neither memory nor files until its parent has looked.
        with suppress(ProcessLookupError, FileNotFoundError, IndexError, ValueError):
            before[pid] = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (soft(pid), before[pid][1]))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, what, limits)


@contextmanager
def clock_that_jumps(site: Site) -> Iterator[None]:
    """Set the clock by hours or days while studies are read, and back at the end."""
    assert site.clock is not None
    site.upload(2)
    seconds = site.chance.choice((-86400, -3600, -60, 60, 3600, 86400, 40 * 86400))
    site.clock.write_text(f"{seconds:+d}")
    yield
    time.sleep(site.chance.uniform(0.5, 2.0))
    site.clock.write_text("+0")


@contextmanager
def locked_database(site: Site) -> Iterator[None]:
    """Hold SQLite's write lock."""
    connection = sqlite3.connect(site.database.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        time.sleep(site.chance.uniform(0.5, 3.0))
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextmanager
def database_gone(site: Site) -> Iterator[None]:
    """Stop PostgreSQL for a while."""
    assert site.cluster is not None
    site.cluster.stop()
    try:
        yield
        time.sleep(site.chance.uniform(0.5, 3.0))
    finally:
        site.cluster.start()


@contextmanager
def database_in_recovery(site: Site) -> Iterator[None]:
    """PostgreSQL refuses every connection: it recovers (57P03)."""
    assert site.cluster is not None
    with site.cluster.recovering():
        yield
        time.sleep(site.chance.uniform(0.5, 3.0))


@contextmanager
def no_connection_left(site: Site) -> Iterator[None]:
    """PostgreSQL has no connection left (53300)."""
    assert site.cluster is not None
    with site.cluster.exhausted():
        yield
        time.sleep(site.chance.uniform(0.5, 3.0))


def faults_of(site: Site) -> dict[str, Fault]:
    """The faults that can be made here, by their names in the table."""
    always: dict[str, Fault] = {
        "kill -9 of workers": kill_a_worker,
        "kill -9 of a server": kill_a_server,
        "kill -9 of all": kill_all,
        "paused worker": paused_worker,
        "memory limit": little_memory,
        "descriptor limit": few_descriptors,
    }
    disk: dict[str, Fault] = {"full disk": full_disk}
    if site.cluster is not None:
        disk["read-only disk"] = read_only_disk  # an open SQLite file keeps its disk writable
    database: dict[str, Fault] = {
        "database gone": database_gone,
        "database in recovery": database_in_recovery,
        "database without connections": no_connection_left,
    }
    return {
        **always,
        **(disk if site.disk is not None else {}),
        **({CLOCK: clock_that_jumps} if site.clock is not None else {}),
        **(database if site.cluster is not None else {"locked database": locked_database}),
    }


def have_postgresql() -> bool:
    """Whether PostgreSQL's programs are installed."""
    return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
