"""Many studies in the reading room's queue beside their single times, and the time of a report.

Starts ``hemoscope serve`` with one worker a processor and one thread a worker, as a busy site would.

    .venv/bin/python benchmarks/bench.py queue_and_report
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from processor_time import children_s
from reading_room import room, upload, wait_for, zipped
from rows import Row, quick

from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

STUDIES = quick(50, 4)
_SLICES, _SIDE = 12, 512  # of a study: long enough to be read, short enough for fifty
_SINGLE = quick(5)


def rows() -> Iterator[Row]:
    """Measure: single studies one after the other, fifty at once, and a report, the first time and again."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, httpx.Client(timeout=120) as client:
        folder = Path(name)
        files = list(write_series(make_phantom(seed=1, shape=(_SLICES, _SIDE, _SIDE)), folder / "in"))
        content = zipped(files)
        options = ("--workers", str(cores), "--threads", "1")
        with room(folder / "storage", options) as url:
            for _ in range(cores):  # every worker has loaded its model
                read_one(client, url, content)
            single = statistics.median(read_one(client, url, content) for _ in range(_SINGLE))
            before, mine = children_s(), time.process_time()
            together, study_id = read_many(client, url, content, STUDIES)
            busy, mine = children_s() - before, time.process_time() - mine
            yield Row(
                what=f"{STUDIES} studies of {_SLICES} slices queued, {cores} workers",
                limit=(
                    f"{busy:.1f} CPU s of server and workers on {cores} processors: {busy / cores:.1f} s; "
                    f"they were busy {busy / cores / together:.0%} of the time; this client, {mine:.1f} CPU s"
                ),
                measured=together,
                beside="sum of their single times / processors",
                compared=STUDIES * single / cores,
                unit="s",
                bar=1.15,
                better="at most",
            )
            for words, seconds in (("first", fetch(url, study_id)), ("again", fetch(url, study_id))):
                yield Row(
                    what=f"report as PDF, {words}",
                    limit="pictures of three windows and a heat map to draw and compress, about .25 s each",
                    measured=seconds,
                    beside="the bar",
                    compared=1.0,
                    unit="s",
                    bar=1.0,
                    better="at most",
                )


def read_one(client: httpx.Client, url: str, content: bytes) -> float:
    """Return the seconds from the last byte of an upload to its findings."""
    study_id, handed = upload(url, content, client)
    wait_for(url, study_id, "findings", client=client)
    return time.perf_counter() - handed


def read_many(client: httpx.Client, url: str, content: bytes, count: int) -> tuple[float, str]:
    """Upload several studies, then return the seconds until all are read, from the first upload on, and one of them."""
    start = time.perf_counter()
    ids = [upload(url, content, client)[0] for _ in range(count)]
    for study_id in ids:
        wait_for(url, study_id, "findings", every_s=0.2, client=client)
    return time.perf_counter() - start, ids[-1]


def fetch(url: str, study_id: str) -> float:
    """Return the seconds for the PDF of a study."""
    start = time.perf_counter()
    httpx.get(f"{url}/api/v1/studies/{study_id}/report.pdf", timeout=120).raise_for_status()
    return time.perf_counter() - start
