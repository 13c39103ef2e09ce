"""Measures cold run time and peak memory of ``hemoscope predict``.

Each run is a new process, so the time includes imports, model loading, reading, inference and report.

    .venv/bin/python benchmarks/predict.py examples/sample
    .venv/bin/python benchmarks/predict.py SERIES --runs 5 --threads 2
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Run the command several times and print wall seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="what to predict")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    command = [str(Path(sys.executable).with_name("hemoscope")), "predict", str(arguments.path), "--format", "json"]
    command += ["--threads", str(arguments.threads)] if arguments.threads else []
    walls, peaks = zip(*(measure(command) for _ in range(arguments.runs)), strict=True)
    print(f"wall: median {statistics.median(walls):.2f} s, of {', '.join(f'{wall:.2f}' for wall in walls)}")
    print(f"peak memory: {max(peaks):.0f} MB; processors: {os.cpu_count()}")
    return 0


def measure(command: list[str]) -> tuple[float, float]:
    """Return wall seconds and peak resident memory (MB) of one new process."""
    found = run_apart(command)
    return found["wall_s"], found["peak_bytes"] / 1e6


def run_apart(command: list[str]) -> dict[str, Any]:
    """Run a command and return what ``measured_process`` prints of it.

    It is started by a process of its own: on Linux, the peak of a child counts that of its parent until it runs the
    command, and a benchmark may hold PyTorch. It must exit with 0, 4 (inputs refused) or 5 (incomplete study).
    """
    helper = [sys.executable, "-P", "-m", "hemoscope.training.measured_process", *command]
    found: dict[str, Any] = json.loads(subprocess.run(helper, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603  # our own command
    if found["exit_code"] not in (0, 4, 5):
        sys.exit(f"{' '.join(command)} ended with {found['exit_code']}: {found['errors']}")
    return found


if __name__ == "__main__":
    sys.exit(main())
