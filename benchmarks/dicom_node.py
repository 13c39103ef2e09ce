"""Measures how fast the DICOM node takes a series over C-STORE, beside DCMTK's storescp, in turns, in one run.

The node writes each image to the disk (fsync) before it acknowledges it; storescp does not. Both are sent to by
storescu from the same machine, uncompressed or in the syntax of the files, and the rates are compared.

    .venv/bin/python benchmarks/dicom_node.py SERIES [--rounds 3]
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

_NODE = """
[node]
ae_title = "SCP"
port = 0
quiet_seconds = 3600

[[peer]]
ae_title = "STORESCU"
addresses = ["127.0.0.1"]
"""


@contextmanager
def node(folder: Path) -> Iterator[int]:
    """Start the node, and yield its port."""
    (folder / "node.toml").write_text(_NODE)
    program = Path(sys.executable).with_name("hemoscope")
    command = [program, "listen", folder / "node.toml", "--storage", folder / "store"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:  # noqa: S603  # our own
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            yield int(line.partition("port ")[2].split()[0])
        finally:
            server.terminate()
            server.wait()


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """Start DCMTK's storescp, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = ["storescp", "-aet", "SCP", "+xa", "-od", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:  # noqa: S603  # by name
        try:
            while subprocess.run(  # noqa: S603  # by name
                ["echoscu", "-aec", "SCP", "127.0.0.1", str(port)],  # noqa: S607
                stderr=subprocess.DEVNULL,
                check=False,
            ).returncode:
                time.sleep(0.1)
            yield port
        finally:
            server.terminate()
            server.wait()


def rate(port: int, series: Path, images: int) -> float:
    """Send the series, and return images a second."""
    started = time.perf_counter()
    command = ["storescu", "-xs", "-aet", "STORESCU", "-aec", "SCP", "+sd", "127.0.0.1", str(port), str(series)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # by name
    return images / (time.perf_counter() - started)


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path, help="folder of one series")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = sum(1 for path in arguments.series.rglob("*") if path.is_file())
    table = Table("round", "node, images/s", "storescp, images/s", "ratio")
    for number in range(1, arguments.rounds + 1):
        found = []
        for server in (node, storescp):
            with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as port:
                found.append(rate(port, arguments.series, images))
        table.add_row(str(number), f"{found[0]:.0f}", f"{found[1]:.0f}", f"{found[0] / found[1]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
