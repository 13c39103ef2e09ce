"""A federation of real processes on loopback, from the command line: four sites, secure aggregation, three rounds.

Between the sites and the server stand two listeners: one that keeps the bytes of the wire, and behind it one that has
the server's own key and keeps what the TLS holds. So what is said of the traffic is said of what really left.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")


pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a federation is deployed on Linux"),
    pytest.mark.timeout(900),  # three to four minutes on two idle cores
]

SITES = ("riverside", "hilltop", "lakeside", "seaview")

POLICY = "[policy]\nsecure_aggregation = true\nmin_sites = 3\nleast_cell = 2\n"
FEDERATION = """
name = "on-loopback"
experiment = "experiment.toml"
rounds = 3
min_sites = 3
round_timeout = 300.0
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


class Tapped:
    """The hospitals, with the two listeners between them and the server."""

    def __init__(self, hospitals: Any) -> None:
        self.hospitals, self.made, self.caches = hospitals, hospitals.made, hospitals.caches
        self.folder, self.run_folder, self.audit, self.rounds = (
            hospitals.folder,
            hospitals.run_folder,
            hospitals.audit,
            hospitals.rounds,
        )
        self.taps = Taps()
        self.inside = self.taps.open(hospitals.port, hospitals.made.keys / "server")
        self.outside = self.taps.open(self.inside.port)
        hospitals.port_for_sites = self.outside.port


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory, new_hospitals: Callable[..., Any]) -> Iterator[Tapped]:
    """Three rounds: a site's application is killed in the second, in the third the server, which is started again."""
    hospitals = new_hospitals(tmp_path_factory.mktemp("federation"), sites=SITES, federation=FEDERATION, policy=POLICY)
    tapped = Tapped(hospitals)
    try:
        go_through(hospitals)
        yield tapped
    finally:
        hospitals.made.close()
        tapped.taps.close()


def go_through(hospitals: Any) -> None:
    """The journey; each step's traces are looked at by a test of its own."""
    server = hospitals.server()
    sites = hospitals.all_sites()
    running = hospitals.run()

    hospitals.wait_for(lambda: trains(hospitals, "seaview", 2))
    (application,) = hospitals.pids("processes flwr-clientapp ", of="seaview")
    os.kill(application, signal.SIGKILL)

    hospitals.wait_for(lambda: len(hospitals.rounds()) == 2 and trains(hospitals, "riverside", 3))
    server.kill()
    server.wait()
    hospitals.server()
    assert running.wait(400) == 0, hospitals.logs()
    for process in sites.values():
        process.terminate()
        process.wait(120)


def trains(hospitals: Any, name: str, number: int) -> bool:
    """Whether a site was asked for its share of this round's sum, and so trains now."""
    asked = [line for line in hospitals.audit(name) if line["direction"] == "in" and line["round"] == str(number)]
    return any("collect_masked_vectors" in line["kind"] for line in asked)


def test_three_rounds_finish_although_a_sites_application_and_the_server_are_killed(journey: Tapped) -> None:
    completed = [one for one in journey.rounds() if not one.get("void")]
    assert [one["number"] for one in completed] == [1, 2, 3]
    assert [len(one["used"]) for one in completed] == [4, 3, 4]
    assert len(completed[1]["lost"]) + len(completed[1]["refused"]) == 1


def test_the_run_leaves_weights_and_a_record_that_say_how_it_was_trained(journey: Tapped) -> None:
    part = journey.run_folder / "split"
    assert (part / "weights.safetensors").stat().st_size > 10_000
    assert (part / "part.json").is_file()
    assert json.loads((journey.run_folder / "federation.json").read_text())["secure_aggregation"]["enabled"]


def needles(journey: Tapped) -> dict[str, list[bytes]]:
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


def test_the_wire_shows_tls_and_nothing_else(journey: Tapped) -> None:
    wire = journey.outside.up + journey.outside.down
    assert len(wire) > 1_000_000
    assert journey.outside.up.startswith(b"\x16\x03")  # a TLS record with a handshake, RFC 8446, section 5.1
    assert b"/v1/fleet/" not in wire
    for kind, wanted in needles(journey).items():
        assert not held(wire, wanted), kind


def test_inside_the_tls_there_is_no_pixel_patient_path_or_name_of_a_site(journey: Tapped) -> None:
    up = journey.inside.up
    assert b"POST /v1/fleet/push-object" in up  # so it is the inside, with what was sent
    assert b"collect_masked_vectors" in journey.inside.down
    wanted = needles(journey)
    assert len(wanted["pixels"]) > 100
    for kind, some in wanted.items():
        assert not held(up, some), kind
        assert some[-1] in held(up + some[-1] + up[:10], some), f"a needle of {kind} would have been found"


def test_the_audit_files_account_for_what_left(journey: Tapped) -> None:
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


def test_nothing_is_left_running(journey: Tapped) -> None:
    server = [pid for pid, line in journey.made.alive().items() if "superlink" in line]
    for process in journey.made.started:
        process.terminate()
        process.wait(120)
    assert server
    assert not journey.made.wait_until_none_is_alive(5)
