"""``make torture``: fuzzing, state machines, the API's contract and fault rounds, until the time is up.

Prints one table of this run and one of all runs, whose counts are kept in the folder. The exit code is 1 if this run
found, lost or doubled anything.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import coverage_guided
from .fuzz import fuzz, kind_named, reproduce
from .machines import run_contract, run_store_machine
from .rounds import run_faults
from .tally import Tally, table
from .targets import TARGETS

_UNSHARED = "HEMOSCOPE_TORTURE_UNSHARED"
_CYCLE_S = 240.0
_SHARES = {"fuzz": 0.3, "guided": 0.15, "machine": 0.1, "contract": 0.1, "faults": 0.35}


def main() -> int:
    """Run; see ``--help``."""
    arguments = _parser().parse_args()
    if arguments.reproduce:
        kind, path = arguments.reproduce
        sys.stdout.write(f"{reproduce(kind_named(kind), Path(path))}\n")
        return 0
    _own_mounts()
    tally = Tally(arguments.folder)
    parts = {name: share for name, share in _SHARES.items() if name in arguments.parts}
    if "guided" in parts and not coverage_guided.available():
        sys.stderr.write("atheris is not installed: no coverage-guided fuzzing\n")
        del parts["guided"]
    end = time.monotonic() + 60 * arguments.minutes
    while (left := end - time.monotonic()) > 1:
        for name, share in parts.items():
            seconds = min(left, _CYCLE_S) * share / sum(parts.values())
            _PARTS[name](tally, min(seconds, max(end - time.monotonic(), 1)))
    sys.stdout.write(f"This run:\n\n{table(tally.now)}\n\nAll runs:\n\n{table(tally.counts)}\n")
    return 0 if tally.clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torture", description="Looks for what breaks Hemoscope.")
    add = parser.add_argument
    add("--minutes", type=float, default=60, metavar="N", help="how long (%(default)s)")
    add("--folder", type=Path, default=Path("build/torture"), metavar="DIR", help="counts and findings (%(default)s)")
    add("--parts", nargs="+", choices=tuple(_SHARES), default=tuple(_SHARES), help="what to run (all)")
    add("--reproduce", nargs=2, metavar=("KIND", "FILE"), help="run one input that was kept, and show its traceback")
    return parser


def _own_mounts() -> None:
    """Begin again in a mount namespace, as root: nobody else sees the disks, and they end with this run."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or _UNSHARED in os.environ or unshare is None:
        return
    if subprocess.run((unshare, "-m", "true"), capture_output=True, check=False).returncode == 0:
        words = (unshare, "-m", sys.executable, "-m", "tests.torture", *sys.argv[1:])
        os.execve(unshare, words, {**os.environ, _UNSHARED: "1"})


def _fuzz(tally: Tally, seconds: float) -> None:
    weights = sum(target.weight for target in TARGETS.values())
    for kind, target in TARGETS.items():
        tally.add(f"fuzz: {kind}", fuzz(tally, kind, seconds * target.weight / weights))


def _guided(tally: Tally, seconds: float) -> None:
    """Guide one target for the whole time: its process takes seconds to start."""
    kinds = [kind for kind, target in TARGETS.items() if target.guided]
    kind = min(kinds, key=lambda one: tally.counts[f"guided: {one}"].done / TARGETS[one].weight)
    tally.add(f"guided: {kind}", coverage_guided.fuzz_guided(tally, kind, max(seconds, 5)))


def _machine(tally: Tally, seconds: float) -> None:
    tally.add("store and queue (steps)", run_store_machine(tally, seconds))


def _contract(tally: Tally, seconds: float) -> None:
    tally.add("REST requests", run_contract(tally, seconds))


_PARTS: dict[str, Callable[[Tally, float], None]] = {
    "fuzz": _fuzz,
    "guided": _guided,
    "machine": _machine,
    "contract": _contract,
    "faults": run_faults,
}


if __name__ == "__main__":
    sys.exit(main())
