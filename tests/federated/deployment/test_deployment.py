"""A federation of real processes on loopback, from the command line: four sites, secure aggregation, three rounds.

Between the sites and the server stand two listeners: one that keeps the bytes of the wire, and behind it one that has
the server's own key and keeps what the TLS holds. So what is said of the traffic is said of what really left.
"""

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.data.cache import Cache

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a federation is deployed on Linux"),
    pytest.mark.timeout(900),  # three to four minutes on two idle cores
]

SITES = ("riverside", "hilltop", "lakeside", "seaview")
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
FEDERATION = """
name = "on-loopback"
experiment = "experiment.toml"
rounds = 3
min_sites = 3
round_timeout = 75.0
[secure_aggregation]
enabled = true
shares = 3
threshold = 2
[histograms]
least_cell = 2
every = 0
"""


class Taps:
    """Listeners that pass on to another port and keep what goes by, in a thread of their own until they are closed."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.taps: list[Tap] = []
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def open(self, onto: int, keys: Path | None = None) -> "Tap":
        """With the server's keys it ends TLS and begins it anew, and keeps what is inside."""
        tap = Tap(onto=onto, keys=keys)
        asyncio.run_coroutine_threadsafe(tap.listen(), self.loop).result(10)
        self.taps.append(tap)
        return tap

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def _end(self) -> None:
        for tap in self.taps:
            if tap.server is not None:
                tap.server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Tap:
    """One listener, and of every connection what went up (from a site) and down."""

    onto: int
    keys: Path | None
    port: int = 0
    connections: list[tuple[bytearray, bytearray]] = field(default_factory=list)
    server: asyncio.Server | None = None

    @property
    def up(self) -> bytes:
        return b"|".join(bytes(up) for up, _ in self.connections)

    @property
    def down(self) -> bytes:
        return b"|".join(bytes(down) for _, down in self.connections)

    async def listen(self) -> None:
        ours = theirs = None
        if self.keys is not None:
            ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ours.load_cert_chain(self.keys / "server.crt", self.keys / "server.key")
            theirs = ssl.create_default_context(cafile=str(self.keys / "ca.crt"))

        async def pass_on(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
            outs = [near_out]
            with contextlib.suppress(OSError):  # a side went away: what was said is kept
                far_in, far_out = await asyncio.open_connection("127.0.0.1", self.onto, ssl=theirs)
                outs.append(far_out)
                up, down = bytearray(), bytearray()
                self.connections.append((up, down))
                ways = self._copy(near_in, far_out, up), self._copy(far_in, near_out, down)
                await asyncio.wait([asyncio.create_task(way) for way in ways], return_when=asyncio.FIRST_COMPLETED)
            for out in outs:
                out.transport.abort()

        self.server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=ours)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                kept.extend(data)
                sink.write(data)
                await sink.drain()


class Hospitals:
    """Four sites with made patients of their own, a server, and the commands that start them."""

    def __init__(self, made: Any, make_hospital: Callable[[Path, Sequence[str]], Cache]) -> None:
        from hemoscope.federated.deployment.processes import free_port

        self.made, self.folder, self.run_folder = made, made.folder, made.folder / "run"
        self.caches = {name: self._hospital(name, make_hospital) for name in SITES}
        (self.folder / "experiment.toml").write_text(EXPERIMENT)
        (self.folder / "federation.toml").write_text(FEDERATION)
        self.port = free_port()
        self.taps = Taps()
        self.inside = self.taps.open(self.port, made.keys / "server")
        self.outside = self.taps.open(self.inside.port)

    def _hospital(self, name: str, make_hospital: Callable[[Path, Sequence[str]], Cache]) -> Cache:
        folder = self.folder / name
        cache = make_hospital(folder / "data", [f"{name.upper()}-PATIENT-{number:02d}" for number in range(12)])
        policy = "[policy]\nsecure_aggregation = true\nmin_sites = 3\nleast_cell = 2\n"
        (folder / "site.toml").write_text(f'name = "{name}"\ndata = "data"\nwork = "work"\nthreads = 1\n{policy}')
        return cache

    def command(self, name: str, *words: str, until: str) -> subprocess.Popen[str]:
        """``hemoscope federated WORDS``, once it has said what it must say."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return self.made.start(name, [str(HEMOSCOPE), "federated", *words], environment, until, seconds=240.0)

    def server(self) -> subprocess.Popen[str]:
        words = ["--keys", str(self.made.keys / "server"), "--folder", str(self.made.state), "--port", str(self.port)]
        return self.command("server", "server", *words, until="ready on")

    def site(self, name: str) -> subprocess.Popen[str]:
        keys = self.made.keys / "sites" / name
        words = [str(self.folder / name / "site.toml"), "--keys", str(keys)]
        return self.command(name, "site", *words, "--server", f"127.0.0.1:{self.outside.port}", until="SuperNode ID")

    def run(self, *words: str) -> subprocess.Popen[str]:
        settings = [str(self.folder / "federation.toml"), "--server", str(self.made.state)]
        return self.command("run", "run", *settings, "--output", str(self.run_folder), *words, until="split: started")

    def rounds(self) -> list[dict[str, Any]]:
        path = self.run_folder / "split" / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def audit(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name / "work" / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, what: Callable[[], bool], seconds: float = 400.0) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="module")
def journey(
    tmp_path_factory: pytest.TempPathFactory,
    new_deployment: Callable[..., Any],
    make_hospital: Callable[[Path, Sequence[str]], Cache],
) -> Iterator[Hospitals]:
    """Three rounds: a site is killed in the second and comes back, the server in the third and the run is resumed."""
    made = new_deployment(tmp_path_factory.mktemp("federation"), sites=SITES)
    hospitals = Hospitals(made, make_hospital)
    try:
        go_through(hospitals)
        yield hospitals
    finally:
        made.close()
        hospitals.taps.close()


def go_through(hospitals: Hospitals) -> None:
    """The journey; each step's traces are looked at by a test of its own."""
    server = hospitals.server()
    with ThreadPoolExecutor(len(SITES)) as pool:
        sites = dict(zip(SITES, pool.map(hospitals.site, SITES), strict=True))
    running = hospitals.run()

    hospitals.wait_for(lambda: trains(hospitals, "seaview", 2))
    sites["seaview"].kill()
    sites["seaview"].wait()
    sites["seaview"] = hospitals.site("seaview")

    hospitals.wait_for(lambda: len(hospitals.rounds()) == 2 and trains(hospitals, "riverside", 3))
    server.kill()
    server.wait()
    assert running.wait(30) == 1, hospitals.logs()

    hospitals.server()
    assert hospitals.run("--resume").wait(400) == 0, hospitals.logs()
    for process in sites.values():
        process.terminate()
        process.wait(20)


def trains(hospitals: Hospitals, name: str, number: int) -> bool:
    """Whether a site was asked for its share of this round's sum, and so trains now."""
    asked = [line for line in hospitals.audit(name) if line["direction"] == "in" and line["round"] == str(number)]
    return any("collect_masked_vectors" in line["kind"] for line in asked)


def test_three_rounds_finish_although_a_site_and_the_server_are_killed(journey: Hospitals) -> None:
    completed = [one for one in journey.rounds() if not one.get("void")]
    assert [one["number"] for one in completed] == [1, 2, 3]
    assert [len(one["used"]) for one in completed] == [4, 3, 4]
    assert len(completed[1]["lost"]) == 1


def test_the_run_leaves_weights_and_a_record_that_say_how_it_was_trained(journey: Hospitals) -> None:
    part = journey.run_folder / "split"
    assert (part / "weights.safetensors").stat().st_size > 10_000
    assert (part / "part.json").is_file()
    assert json.loads((journey.run_folder / "federation.json").read_text())["secure_aggregation"]["enabled"]


def needles(journey: Hospitals) -> dict[str, list[bytes]]:
    """What must not leave: names of patients, paths, names of sites, and the pixels of every slice, as stored and as
    the network reads them."""
    found: dict[str, list[bytes]] = {"identity": [], "path": [str(journey.folder).encode()], "pixels": []}
    for name, cache in journey.caches.items():
        found["identity"] += [str(patient).encode() for patient in cache.manifest["patient_id"].unique()]
        found["identity"] += [name.encode(), f"{name.upper()}-PATIENT".encode()]
        for series in cache.manifest["series_id"].unique():
            for image in cache.read_series(str(series)).volume.hounsfield:
                found["pixels"] += pixel_needles(np.asarray(image))
    return found


def pixel_needles(image: np.ndarray) -> list[bytes]:
    """Rows through the middle of a slice that are no background, in every plain way to write numbers."""
    rows = [image[line, 24:40] for line in range(24, 40, 4)]
    plain = [row for row in rows if len(np.unique(row)) >= 8]
    return [row.astype(kind).tobytes() for row in plain for kind in ("<i2", "<f4", "<f8", "<i4")]


def held(capture: bytes, wanted: list[bytes]) -> list[bytes]:
    return [needle for needle in wanted if needle in capture]


def test_the_wire_shows_tls_and_nothing_else(journey: Hospitals) -> None:
    wire = journey.outside.up + journey.outside.down
    assert len(wire) > 1_000_000
    assert journey.outside.up.startswith(b"\x16\x03")  # a TLS record with a handshake, RFC 8446, section 5.1
    assert b"/v1/fleet/" not in wire
    for kind, wanted in needles(journey).items():
        assert not held(wire, wanted), kind


def test_inside_the_tls_there_is_no_pixel_patient_path_or_name_of_a_site(journey: Hospitals) -> None:
    up = journey.inside.up
    assert b"POST /v1/fleet/push-object" in up  # so it is the inside, with what was sent
    assert b"collect_masked_vectors" in journey.inside.down
    wanted = needles(journey)
    assert len(wanted["pixels"]) > 100
    for kind, some in wanted.items():
        assert not held(up, some), kind
        assert some[-1] in held(up + some[-1] + up[:10], some), f"a needle of {kind} would have been found"


def test_the_audit_files_account_for_what_left(journey: Hospitals) -> None:
    out = [line for name in SITES for line in journey.audit(name) if line["direction"] == "out"]
    assert {line["kind"].split(": ")[-1] for line in out} >= {"setup", "share_keys", "collect_masked_vectors", "unmask"}
    recorded = sum(line["bytes"] for line in out)
    # Everything of a message goes in requests of this kind; each has Flower's ids around it, and each message a frame.
    sent = re.findall(
        rb"POST /v1/fleet/push-object.*?content-length: (\d+)", journey.inside.up, re.DOTALL | re.IGNORECASE
    )
    pushed = sum(map(int, sent))
    assert 0.5 * recorded < pushed < recorded + 1000 * len(sent)
    text = "".join((journey.folder / name / "work" / "audit.jsonl").read_text() for name in SITES)
    assert not held(text.encode(), [needle for some in needles(journey).values() for needle in some])


def test_nothing_is_left_running(journey: Hospitals) -> None:
    server = [pid for pid, line in journey.made.alive().items() if "superlink" in line]
    for process in journey.made.started:
        process.terminate()
        process.wait(20)
    assert server
    assert not journey.made.wait_until_none_is_alive(5)
