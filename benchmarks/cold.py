"""Cold start: ``hemoscope predict`` of one slice beside importing what it needs, and ``hemoscope --help``.

    .venv/bin/python benchmarks/bench.py cold

Wall time of new processes, in turns, medians: compiling the network overlaps with importing what reads DICOM, which
processor time would not show. So run it on an idle machine.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rows import Row, quick

ROUNDS = quick(7)
PROGRAM = str(Path(sys.executable).with_name("hemoscope"))
SLICE = Path(__file__).resolve().parents[1] / "examples" / "sample" / "ct-ich-077-16.dcm"
IMPORTS = "import openvino, pydicom, numpy, scipy.ndimage, PIL.Image"


def rows() -> Iterator[Row]:
    """Measure the two commands."""
    commands = {
        "predict": [PROGRAM, "predict", str(SLICE), "--format", "json"],
        "imports": [sys.executable, "-c", IMPORTS],
        "help": [PROGRAM, "--help"],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            found[name].append(wall_of(command))
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    yield Row(
        what="predict of one slice, cold",
        limit="the imports, and compiling the network: .35 CPU s, half of it beside the imports on the second core",
        measured=median["predict"],
        beside="importing OpenVINO, pydicom, NumPy, scipy.ndimage and Pillow",
        compared=median["imports"],
        unit="s",
        bar=1.25,
        better="at most",
    )
    yield Row(
        what="hemoscope --help",
        limit="starting Python: .02 s",
        measured=median["help"],
        beside="the bar",
        compared=0.15,
        unit="s",
        bar=1.0,
        better="at most",
    )


def wall_of(command: list[str]) -> float:
    """Return the wall seconds of a new process; it must exit with 0, or 5 for a study of one slice."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    _, status, _ = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 5):
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - began
