"""``make bench``: every benchmark that has a bar, one after the other, in one table.

Each module of ``MODULES`` has a function ``rows()`` that measures and yields ``Row``. Run it on an idle machine.
"""

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rows import Row

MODULES: tuple[str, ...] = ("cold", "study")


def main() -> int:
    """Measure, print the table, and write it as JSON beside the machine's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="benchmarks to run (all)")
    parser.add_argument("--output", type=Path, help="write the rows as JSON too")
    arguments = parser.parse_args()
    found = [row for name in arguments.modules or MODULES for row in _measured(name)]
    print(table(found))
    if arguments.output:
        document = {"machine": platform.processor() or platform.machine(), "rows": [asdict(row) for row in found]}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _measured(name: str) -> Iterator[Row]:
    print(f"{name}...", file=sys.stderr)
    yield from importlib.import_module(name).rows()


def table(rows: list[Row]) -> str:
    """Markdown: a line a row."""
    head = ["what", "limit", "measured", "beside", "ratio", "bar", "met"]
    lines = [
        [
            row.what,
            row.limit,
            f"{row.measured:.3g} {row.unit}",
            f"{row.beside}: {row.compared:.3g} {row.unit}",
            f"{row.ratio:.2f}",
            f"{row.better} {row.bar:g}",
            "yes" if row.met else "no",
        ]
        for row in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


if __name__ == "__main__":
    sys.exit(main())
