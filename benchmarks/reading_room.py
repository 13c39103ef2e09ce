"""Measures latency of the reading room: first picture, findings, and the worklist while twenty studies arrive.

Starts ``hemoscope serve`` with one worker and the default model, and sends requests from the same machine, so client
and server share its processors. Limits: first picture 1.5 s and findings 5 s after the last byte of
a 36-slice study; twenty studies at once all read, the worklist's 95th percentile below 200 ms meanwhile.

    .venv/bin/python benchmarks/reading_room.py
    .venv/bin/python benchmarks/reading_room.py --study SERIES --at-once 0
"""

import argparse
import io
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

_HEADERS = {"X-CSRF-Token": "local"}
_BOUNDARY = "reading-room-benchmark"
_PIECE = 1 << 20


@contextmanager
def room(storage: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """Start a reading room with these options of ``serve``, and yield its address when it is ready."""
    command = [str(Path(sys.executable).with_name("hemoscope")), "serve", "--port", "0", "--storage", str(storage)]
    command += ["--requests-per-minute", "100000", *options]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True) as server:  # noqa: S603  # our own
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http")).rstrip("/")
        try:
            while httpx.get(f"{url}/ready").status_code != 200:
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait()


def zipped(files: list[Path]) -> bytes:
    """Return the files as one uncompressed ZIP."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, path in enumerate(files):
            archive.writestr(f"{number:04d}.dcm", path.read_bytes())
    return stream.getvalue()


def upload(url: str, content: bytes, client: httpx.Client | None = None) -> tuple[str, float]:
    """Upload one ZIP; return the study's id and the time at which the last byte was sent.

    Without a client, a new one is made, which costs a tenth of a second of a processor.
    """
    handed = [0.0]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.zip"\r\n\r\n'.encode()
    body = head + content + f"\r\n--{_BOUNDARY}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]
        handed[0] = time.perf_counter()

    headers = {
        **_HEADERS,
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(body)),
    }
    post = httpx.post if client is None else client.post
    answer = post(f"{url}/api/v1/uploads", content=pieces(), headers=headers, timeout=120)
    answer.raise_for_status()
    return answer.json()["study"]["study_id"], handed[0]


def wait_for(url: str, study_id: str, what: str, *, every_s: float = 0.02, client: httpx.Client | None = None) -> None:
    """Poll until the study has pixels, or is done."""
    get = httpx.get if client is None else client.get
    while True:
        study = get(f"{url}/api/v1/studies/{study_id}").json()
        if study["state"] == "failed":
            sys.exit(f"the study failed: {study['error_code']}")
        if study["has_pixels"] if what == "pixels" else study["state"] == "done":
            return
        time.sleep(every_s)


def one_study(url: str, content: bytes) -> tuple[float, float]:
    """Return seconds from the last byte to the first picture, and to the findings."""
    study_id, handed = upload(url, content)
    wait_for(url, study_id, "pixels")
    httpx.get(f"{url}/api/v1/studies/{study_id}/slices/0/pixels").raise_for_status()
    picture = time.perf_counter() - handed
    wait_for(url, study_id, "findings")
    return picture, time.perf_counter() - handed


def many_studies(url: str, content: bytes, count: int) -> tuple[float, list[float]]:
    """Upload several at once; return seconds until all are read, and latencies of worklist requests meanwhile."""
    start, stop, calls = time.perf_counter(), threading.Event(), []

    def look() -> None:
        with httpx.Client() as client:
            while not stop.wait(0.05):
                asked = time.perf_counter()
                client.get(f"{url}/api/v1/studies").raise_for_status()
                calls.append(time.perf_counter() - asked)

    def send() -> None:
        wait_for(url, upload(url, content)[0], "findings", every_s=1.0)

    watcher = threading.Thread(target=look)
    watcher.start()
    senders = [threading.Thread(target=send) for _ in range(count)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    stop.set()
    watcher.join()
    studies = httpx.get(f"{url}/api/v1/studies", params={"state": "done", "limit": 100}).json()
    if studies["total"] < count:
        sys.exit(f"only {studies['total']} studies were read")
    return time.perf_counter() - start, calls


def main() -> None:
    """Measure and print the results with the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="folder of one series; a phantom of 36 slices if not given")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=20, metavar="N", help="studies uploaded together; 0 skips this")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = (
            sorted(chosen.study.iterdir())
            if chosen.study
            else list(write_series(make_phantom(seed=1, shape=(36, 512, 512)), folder / "in"))
        )
        content = zipped(files)
        with room(folder / "storage") as url:
            pictures, findings = zip(*(one_study(url, content) for _ in range(chosen.runs)), strict=True)
            took, calls = many_studies(url, content, chosen.at_once) if chosen.at_once else (0.0, [])
    limits = ("1.5 s", "5 s") if chosen.study is None else ("-", "-")  # the limits are for 36 slices
    table = Table("what", "measured", "limit", title=f"{len(files)} slices, {len(content) / 1e6:.0f} MB a study")
    waits = {"first picture after the last byte": pictures, "findings after the last byte": findings}
    for (what, seconds), limit in zip(waits.items(), limits, strict=True):
        table.add_row(what, f"{np.median(seconds):.2f} s (worst {max(seconds):.2f})", limit)
    if calls:
        table.add_row(f"{chosen.at_once} studies at once, all read", f"{took:.1f} s", "none lost")
        middle, high = np.quantile(calls, [0.5, 0.95]) * 1000
        quantiles = f"{high:.0f} ms (median {middle:.0f}, worst {max(calls) * 1000:.0f})"
        table.add_row(f"worklist meanwhile, 95th percentile of {len(calls)}", quantiles, "200 ms")
    Console().print(table)


if __name__ == "__main__":
    main()
