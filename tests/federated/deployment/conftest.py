"""Hospitals with made patients, a server, and the commands that start them, as the documentation says."""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hemoscope.data.cache import Cache

HEMOSCOPE = Path(sys.executable).parent / "hemoscope"

EXPERIMENT = """
name = "small"
[run]
batch_size = 8
init = "none"
split = "patient"
validation = 0.25
test = 0.25
[network]
backbone = "test_efficientnet"
width = 8
pooled = 4
[preprocessing]
size = 32
[sampling]
negatives = 1.0
[optimizer]
ema = 0.0
"""


def port_to_keep() -> int:
    """A free TCP port that the system gives nobody for an outgoing connection: a server comes back to it."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", random.randrange(first // 2, first)))
            return int(tried.getsockname()[1])


class Hospitals:
    """Sites with made patients of their own, a server, and the commands that start them."""

    def __init__(
        self, made: Any, make_hospital: Callable[[Path, Sequence[str]], Cache], *, federation: str, policy: str
    ) -> None:
        self.made, self.folder, self.run_folder = made, made.folder, made.folder / "run"
        self.policy = policy
        self.caches = {name: self._hospital(name, make_hospital) for name in made.sites}
        (self.folder / "experiment.toml").write_text(EXPERIMENT)
        (self.folder / "federation.toml").write_text(federation)
        self.port = self.port_for_sites = port_to_keep()

    def _hospital(self, name: str, make_hospital: Callable[[Path, Sequence[str]], Cache]) -> Cache:
        folder = self.folder / name
        cache = make_hospital(folder / "data", [f"{name.upper()}-PATIENT-{number:02d}" for number in range(12)])
        site = f'name = "{name}"\ndata = "data"\nwork = "work"\nthreads = 1\n{self.policy}'
        (folder / "site.toml").write_text(site)
        return cache

    def command(self, name: str, *words: str, until: str) -> subprocess.Popen[str]:
        """``hemoscope federated WORDS``, once it has said what it must say."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process: subprocess.Popen[str] = self.made.start(
            name, [str(HEMOSCOPE), "federated", *words], environment, until, seconds=240.0
        )
        return process

    def server(self) -> subprocess.Popen[str]:
        words = ["--keys", str(self.made.keys / "server"), "--folder", str(self.made.state), "--port", str(self.port)]
        return self.command("server", "server", *words, until="ready on")

    def site(self, name: str) -> subprocess.Popen[str]:
        keys = self.made.keys / "sites" / name
        words = [str(self.folder / name / "site.toml"), "--keys", str(keys)]
        return self.command(name, "site", *words, "--server", f"127.0.0.1:{self.port_for_sites}", until="SuperNode ID")

    def all_sites(self) -> dict[str, subprocess.Popen[str]]:
        """Start them at once."""
        with ThreadPoolExecutor(len(self.made.sites)) as pool:
            return dict(zip(self.made.sites, pool.map(self.site, self.made.sites), strict=True))

    def run(self, *words: str) -> subprocess.Popen[str]:
        settings = [str(self.folder / "federation.toml"), "--server", str(self.made.state)]
        return self.command("run", "run", *settings, "--output", str(self.run_folder), *words, until="split: started")

    def rounds(self) -> list[dict[str, Any]]:
        path = self.run_folder / "split" / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def audit(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name / "work" / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pids(self, pattern: str, *, of: str = "") -> list[int]:
        """Processes by their command line; those of one site, if it is named."""
        found = [pid for pid, line in self.made.alive().items() if re.search(pattern, line)]
        home = str(self.folder / of).encode()
        return [pid for pid in found if home in (Path("/proc") / str(pid) / "environ").read_bytes()]

    def wait_for(self, what: Callable[[], bool], seconds: float = 400.0) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="session")
def new_hospitals(
    new_deployment: Callable[..., Any], make_hospital: Callable[[Path, Sequence[str]], Cache]
) -> Callable[..., Hospitals]:
    """``new_hospitals(folder, sites=, federation=, policy=)``: for a test that closes its ``made`` itself."""

    def build(folder: Path, *, sites: tuple[str, ...], federation: str, policy: str) -> Hospitals:
        return Hospitals(new_deployment(folder, sites=sites), make_hospital, federation=federation, policy=policy)

    return build


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Two endless loops a core, beside whatever else runs."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()
