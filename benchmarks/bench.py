"""``make bench``: every benchmark that has a bar, one after the other, in one table.

Each module of ``MODULES`` has a function ``rows()`` that measures and yields ``Row``. Each runs in a process
of its own: one that fails, or that the system kills, does not lose the others. Run it on an idle machine.

    .venv/bin/python benchmarks/bench.py
    .venv/bin/python benchmarks/bench.py evaluate prepare --output build/bench
    .venv/bin/python benchmarks/bench.py --quick      # one small run of each: does it still work? No figure counts
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import machine
from rows import QUICK, Row

MODULES: tuple[str, ...] = (
    "evaluate",
    "labels",
    "prepare",
    "training_rates",
    "pipeline",
    "cold",
    "study",
    "thin_series",
    "versions",
    "pacs_turnaround",
    "queue_and_report",
    "study_page",
    "archives",
)
_STDERR = 2
_SECONDS = 1800  # of one module; an idle machine needs a tenth


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rows of one module, and why there are no more if it failed."""

    module: str
    rows: tuple[Row, ...]
    seconds: float
    error: str | None = None


def main() -> int:
    """Measure, print the tables, and write them as Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="benchmarks to run (all)")
    parser.add_argument("--output", type=Path, metavar="PATH", help="write PATH.json and PATH.md, too")
    parser.add_argument("--no-ceilings", action="store_true", help="do not measure the machine's own ceilings")
    parser.add_argument("--quick", action="store_true", help="small, single runs, whose figures do not count")
    parser.add_argument("--rows-to", type=Path, help=argparse.SUPPRESS)  # one module, in a process of its own
    arguments = parser.parse_args()
    if arguments.rows_to:
        return write_rows(importlib.import_module(arguments.modules[0]).rows, arguments.rows_to)
    if arguments.quick:
        os.environ[QUICK] = "1"
    described = machine.describe()
    progress("\n".join(machine.warnings(described)))
    ceilings = [] if arguments.no_ceilings or arguments.quick else machine.ceilings(progress)
    found = [measured(name) for name in arguments.modules or MODULES]
    text = document(described, ceilings, found)
    print(text, end="")
    if arguments.output:
        write(arguments.output, text, described, ceilings, found)
    return 1 if any(one.error for one in found) else 0


def progress(text: str) -> None:
    """Say on the terminal what goes on."""
    if text:
        print(text, file=sys.stderr, flush=True)


def measured(name: str) -> Measured:
    """Run one module in a new process, and return the rows that it gave before its end."""
    progress(f"{name}...")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        command = [sys.executable, __file__, name, "--rows-to", str(path)]
        try:
            # What a module prints is progress: the tables alone go to stdout.
            code = subprocess.run(command, stdout=_STDERR, check=False, timeout=_SECONDS).returncode  # noqa: S603
            error = None if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            error = f"took more than {_SECONDS} s"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    documents = [json.loads(line) for line in lines]
    rows = tuple(Row(**one) for one in documents if "error" not in one)
    reasons = [one["error"] for one in documents if "error" in one]
    return Measured(module=name, rows=rows, seconds=time.monotonic() - start, error=(reasons or [error])[0])


def write_rows(rows: Callable[[], Sequence[Row]], path: Path) -> int:
    """Write each row as a line of JSON once it is measured, and the error that ended them, if any."""
    with path.open("w", encoding="utf-8") as stream:
        try:
            for row in rows():
                stream.write(json.dumps(asdict(row)) + "\n")
                stream.flush()
                progress(f"  {row.what}: {row.ratio:.3g} ({row.better} {row.bar:g})")
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs into the table
            stream.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
            progress(f"  {type(error).__name__}: {error}")
            return 1
    return 0


def document(described: dict[str, str], ceilings: Sequence[machine.Ceiling], found: Sequence[Measured]) -> str:
    """Return all of a run as Markdown: the machine, its ceilings, the rows, and what failed."""
    parts = [
        "\n".join(f"- {name}: {value}" for name, value in described.items()),
        *machine.warnings(described),
        markdown([["ceiling", "measured"], *([one.what, f"{one.value:.3g} {one.unit}"] for one in ceilings)]),
        "**Quick: small, single runs. No figure counts.**" if os.environ.get(QUICK) else "",
        table([row for one in found for row in one.rows]),
        duration(found),
        "\n".join(f"- `{one.module}`: {one.error}" for one in found if one.error),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def duration(found: Sequence[Measured]) -> str:
    """Say how long the run took, in all and for each module."""
    each = ", ".join(f"`{one.module}` {one.seconds:.0f}" for one in found)
    return f"{sum(one.seconds for one in found) / 60:.1f} minutes in all; seconds: {each}."


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a row."""
    head = ["what", "limit", "measured", "beside", "ratio", "bar", "met"]
    lines = [
        [
            row.what,
            row.limit,
            f"{row.measured:.3g} {row.unit}",
            f"{row.beside}: {row.compared:.3g} {row.unit}",
            f"{row.ratio:.3g}",
            f"{row.better} {row.bar:g}",
            "yes" if row.met else "no",
        ]
        for row in rows
    ]
    return markdown([head, *lines])


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table, whose first line is its head; nothing for a head alone."""
    if len(lines) < 2:
        return ""
    cells = [[cell.replace("|", r"\|") for cell in line] for line in (lines[0], ["---"] * len(lines[0]), *lines[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def write(
    path: Path,
    text: str,
    described: dict[str, str],
    ceilings: Sequence[machine.Ceiling],
    found: Sequence[Measured],
) -> None:
    """Write a run as Markdown and as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    values = {
        "machine": described,
        "ceilings": [asdict(one) for one in ceilings],
        "modules": [asdict(o) for o in found],
    }
    path.with_suffix(".json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
