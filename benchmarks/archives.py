"""``hemoscope predict`` over many small studies: is memory flat, and what do two workers gain?

Studies of 20 synthetic slices (``synthetic_archive``), the default model, one thread a process, as CSV. Wall time: run
it on an idle machine, where it takes six minutes.

    .venv/bin/python benchmarks/bench.py archives
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from predict import run_apart
from rows import Row, quick
from synthetic_archive import write_archive

FEW, MANY = quick(1_000, 40), quick(10_000, 80)


def rows() -> Iterator[Row]:
    """Measure 1,000 and 10,000 slices in one process, and 10,000 in two."""
    with tempfile.TemporaryDirectory(prefix="hemoscope-bench-") as name:
        few, many = Path(name) / "few", Path(name) / "many"
        write_archive(few, FEW)
        write_archive(many, MANY)
        small, one = (run_apart(_command(folder, "--threads", "1")) for folder in (few, many))
        two = run_apart(_command(many, "--workers", "2", "--threads", "1"))
    if one["output"] != two["output"]:
        sys.exit("two workers gave other rows than one process")
    yield Row(
        what=f"predict of {MANY:,} slices, one process: peak memory",
        limit="3.5 kB a slice, for its header, where it lies and its row in the result",
        measured=one["peak_bytes"] / 1e6,
        beside=f"{FEW:,} slices",
        compared=small["peak_bytes"] / 1e6,
        unit="MB",
        bar=1.1,
        better="at most",
    )
    yield Row(
        what=f"predict of {MANY:,} slices, two workers, the same rows: slices a second",
        limit=(
            f"{two['cpu_s']:.0f} CPU s on two processors: {two['cpu_s'] / 2:.0f} s of {two['wall_s']:.0f}; one process "
            f"uses the second processor too, to read and prepare: {one['cpu_s']:.0f} CPU s in {one['wall_s']:.0f} s"
        ),
        measured=MANY / two["wall_s"],
        beside="one process",
        compared=MANY / one["wall_s"],
        unit="slices/s",
        bar=1.8,
        better="at least",
    )


def _command(folder: Path, *options: str) -> list[str]:
    program = str(Path(sys.executable).with_name("hemoscope"))
    return [program, "predict", str(folder), "--format", "csv", *options]
