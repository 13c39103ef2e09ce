"""Measures the time from the end of a modality's C-STORE to the report in the archive, and the time to build a report.

A phantom of 36 slices of 512 x 512 pixels goes by storescu to ``hemoscope listen``, ``hemoscope serve`` reads it with
the model that ships, and the report arrives at DCMTK's storescp, which stands for the archive. By default the node
waits for 10 s until it takes a study for complete; that is part of the time.

    .venv/bin/python benchmarks/pacs_turnaround.py [--rounds 3] [--series FOLDER]

The report of a whole series is built from ``--series`` or ``HEMOSCOPE_DATA``/cq500-series (238 slices), else from a
phantom of as many slices.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rows import Row, quick

_SLICES = 36
_LONG = 238
_QUIET_S = 10.0
_WAIT_S = 120.0
_NODE = """
[node]
ae_title = "HEMOSCOPE"
port = 0

[[peer]]
ae_title = "STORESCU"
addresses = ["127.0.0.1"]

[[destination]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = {}
"""
_Command = list[str]


@contextmanager
def _server(command: _Command, said: str) -> Iterator[str]:
    """Run a server, and yield the line with which it says that it is there."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield next((line for line in process.stdout if said in line), "")
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _phantom(folder: Path, *, slices: int, rows: int, seed: int) -> Path:
    from hemoscope.testing.dicom_writer import write_series
    from hemoscope.testing.phantom import make_phantom

    write_series(make_phantom(seed=seed, shape=(slices, rows, rows)), folder, seed=seed)
    return folder


def turnaround(folder: Path, rounds: int) -> list[float]:
    """Return for each round the seconds from the end of the send to the report in the archive."""
    archive = folder / "archive"
    archive.mkdir()
    port = _free_port()
    (folder / "node.toml").write_text(_NODE.format(port))
    program = str(Path(sys.executable).with_name("hemoscope"))
    store = ["--storage", str(folder / "store")]
    found: list[float] = []
    with ExitStack() as running:
        scp = subprocess.Popen(["storescp", "-aet", "PACS", "-od", str(archive), str(port)])  # noqa: S603, S607
        running.callback(scp.wait)
        running.callback(scp.terminate)
        listen = [program, "listen", str(folder / "node.toml"), *store]
        place = running.enter_context(_server(listen, "listens as")).partition("port ")[2].split()[0]
        serve = [program, "serve", "--port", "0", "--node", str(folder / "node.toml"), *store]
        running.enter_context(_server(serve, "is at"))
        for number in range(rounds):
            images = _phantom(folder / f"images-{number}", slices=_SLICES, rows=512, seed=number)
            send = ["storescu", "-nh", "-aet", "STORESCU", "-aec", "HEMOSCOPE", "+sd", "127.0.0.1", place, str(images)]
            subprocess.run(send, check=True, capture_output=True)  # noqa: S603  # by name
            found.append(_until_report(archive, number + 1))
    return found


def _until_report(archive: Path, reports: int) -> float:
    started = time.perf_counter()
    while len(list(archive.glob("SR*"))) < reports:
        if time.perf_counter() - started > _WAIT_S:
            sys.exit(f"no report came in {_WAIT_S:.0f} s")
        time.sleep(0.02)
    return time.perf_counter() - started


def report_seconds(series: Path, rounds: int) -> tuple[int, list[float]]:
    """Return the slices of a series, and for each round the processor time to build its report, read from its files."""
    from hemoscope.dicom.archive import open_archive
    from hemoscope.inference.inputs import load_model
    from hemoscope.reports.dicom_results.build import ResultKind, dicom_results
    from hemoscope.reports.dicom_results.source_study import source_study
    from hemoscope.reports.report import model_identity

    model = load_model()
    archive = open_archive(series)
    (reading,) = model.predict(archive, maps=True).studies
    found = []
    for _ in range(rounds):
        started = time.process_time()
        source = source_study(reading.findings, archive.load)
        dicom_results(
            reading,
            source,
            model.bundle.card,
            model_identity(model.bundle, model.engine.precision),
            kinds=[ResultKind.REPORT],
        )
        found.append(time.process_time() - started)
    return len(reading.findings.slices), found


def _series(given: Path | None, folder: Path) -> Path:
    data = os.environ.get("HEMOSCOPE_DATA")
    if given is not None:
        return given
    if data is not None:
        return Path(data) / "cq500-series"
    return _phantom(folder / "long", slices=_LONG, rows=256, seed=99)


def rows(rounds: int = 3, series: Path | None = None) -> Iterator[Row]:
    """Yield both rows."""
    rounds = quick(rounds)
    with tempfile.TemporaryDirectory() as folder:
        measured = turnaround(Path(folder), rounds)
        yield Row(
            what=f"end of send to the report in the archive, {_SLICES} slices of 512 x 512",
            limit=f"{_QUIET_S:g} s quiet, until the study counts as complete; reading, scoring and sending after that",
            measured=statistics.median(measured),
            beside="one second",
            compared=1.0,
            unit="s",
            bar=15,
            better="at most",
        )
    with tempfile.TemporaryDirectory() as folder:
        slices, built = report_seconds(_series(series, Path(folder)), rounds)
        yield Row(
            what=f"report of {slices} slices in DICOM, their files read again",
            limit="each file is parsed once more, 2 ms",
            measured=statistics.median(built),
            beside="one second",
            compared=1.0,
            unit="CPU s",
            bar=2,
            better="at most",
        )


def main() -> None:
    """Measure, and print both rows."""
    from bench import table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--series", type=Path, help="folder of one long series")
    arguments = parser.parse_args()
    print(table(list(rows(arguments.rounds, arguments.series))))


if __name__ == "__main__":
    main()
