"""The version before performance work beside this one: processor time of a thin series, and what studies changed.

Needs the repository's history (``git archive``), and the libraries of this version.

    .venv/bin/python benchmarks/bench.py versions
    .venv/bin/python benchmarks/versions.py --probabilities benchmarks/results/versions.md
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from rows import Row, UnavailableError, quick, shared_data

BEFORE = "b0d7d0b5"
_ROOT = Path(__file__).resolve().parents[1]
_SETS = ("rsna-dicom", "cq500-series", "field-cases")
# A study warm, files to findings, in a process of its own: living decoders are children whose time counts.
_WARM = """
import json, os, resource, sys, time
from pathlib import Path
from hemoscope.dicom.archive import open_archive
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.predictor import Predictor

def used():
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(one.ru_utime + one.ru_stime for one in found)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total

predictor = Predictor(load_bundle(None))
files = sorted(Path(sys.argv[1]).glob("*.dcm"))
for _ in range(2):
    before = used()
    (outcome,) = predictor.studies(open_archive(files))
    assert outcome.reading is not None
    print(json.dumps(used() - before))
"""


@contextmanager
def earlier() -> Iterator[Path]:
    """Yield the folder of the earlier version's packages. Raises UnavailableError without the history."""
    command = ["git", "-C", str(_ROOT), "archive", BEFORE, "src"]
    done = subprocess.run(command, check=False, capture_output=True)  # noqa: S603  # our own command
    if done.returncode:
        msg = f"commit {BEFORE} is not here: clone the repository with its history"
        raise UnavailableError(msg)
    with tempfile.TemporaryDirectory(prefix="hemoscope-bench-") as name:
        with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
            archive.extractall(name, filter="data")
        yield Path(name) / "src"


def rows() -> Iterator[Row]:
    """Measure both versions in turn."""
    series = shared_data("cq500-series")
    found: dict[str, list[float]] = {"before": [], "now": []}
    with earlier() as packages:
        for _ in range(quick(5)):
            for name, source in (("before", packages), ("now", _ROOT / "src")):
                found[name].append(float(run(source, "-c", _WARM, str(series)).splitlines()[-1]))
    yield Row(
        what="default model, 238 thin slices, files to findings, warm: processor time",
        limit="201 of 238 slices have to be scored to keep their probabilities",
        measured=median(found["now"]),
        beside=f"commit {BEFORE}, which scored every slice",
        compared=median(found["before"]),
        unit="CPU s",
        bar=0.40,
        better="at most",
    )


def run(source: Path, *arguments: str) -> str:
    """Run Python with the packages of a version, and return its output; findings may be incomplete."""
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, *arguments], check=False, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(source)}
    )
    if done.returncode not in (0, 3, 4, 5):
        sys.exit(f"a version ended with {done.returncode}")
    return done.stdout.decode()


def studies(source: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Return what ``hemoscope predict`` finds in every study of a folder, by the series that was read."""
    report = json.loads(run(source, "-m", "hemoscope", "predict", str(data), "--format", "json"))
    return {study["series_instance_uid"]: study for study in report["studies"]}


def compared() -> str:
    """Return a table of what changed in the studies of each set."""
    lines = ["| set | studies | only in one version | other triage | largest change of a study's probability |"]
    lines.append("|---|---|---|---|---|")
    with earlier() as packages:
        for data in _SETS:
            before, now = (studies(source, shared_data(data)) for source in (packages, _ROOT / "src"))
            both = sorted(before.keys() & now.keys())
            changes = [
                max(
                    abs(value - now[uid]["probabilities"][name]) for name, value in before[uid]["probabilities"].items()
                )
                for uid in both
            ]
            other = sum(before[uid]["triage"] != now[uid]["triage"] for uid in both)
            alone = len(before.keys() ^ now.keys())
            lines.append(f"| {data} | {len(both)} | {alone} | {other} | {max(changes, default=0):.1e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table of what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probabilities", type=Path, required=True, metavar="FILE.md")
    chosen = parser.parse_args()
    chosen.probabilities.write_text(compared(), encoding="utf-8")


if __name__ == "__main__":
    main()
