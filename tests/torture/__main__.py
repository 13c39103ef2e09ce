"""``make torture``: fuzzing, state machines, the API's contract and fault rounds, until the time is up.

Prints one table of this run and one of all runs, whose counts are kept in the folder. The exit code is 1 if this run
found, lost or doubled anything.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from . import coverage_guided
from .fuzz import counted_as, fuzz, kind_named, reproduce
from .machines import run_contract, run_store_machine
from .rounds import run_faults
from .tally import Count, Tally, table
from .targets import TARGETS

_UNSHARED = "HEMOSCOPE_TORTURE_UNSHARED"
_CYCLE_S = 240.0
# In this order: what starts real servers comes first, so that it gets its time on a busy machine too.
_SHARES = {"faults": 0.35, "machine": 0.1, "contract": 0.1, "guided": 0.15, "fuzz": 0.3}


def main() -> int:
    """Run; see ``--help``."""
    arguments = _parser().parse_args()
    if arguments.reproduce:
        kind, path = arguments.reproduce
        sys.stdout.write(f"{reproduce(kind_named(kind), Path(path))}\n")
        return 0
    _own_mounts()
    lock = _locked(arguments.folder)
    tally = Tally(arguments.folder)
    parts = {name: share for name, share in _SHARES.items() if name in arguments.parts}
    if "guided" in parts and not coverage_guided.available():
        sys.stderr.write("atheris is not installed: no coverage-guided fuzzing\n")
        del parts["guided"]
    try:
        _run(tally, parts, time.monotonic() + 60 * arguments.minutes)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
    lock.close()
    sys.stdout.write(f"This run:\n\n{table(tally.now)}\n\nAll runs:\n\n{table(tally.counts)}\n")
    return 0 if tally.clean else 1


def _locked(folder: Path) -> TextIO:
    """Lock the folder: two runs would each write their own counts."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"{folder} is used by another run. Give another --folder") from None
    return lock


def _run(tally: Tally, parts: dict[str, float], end: float) -> None:
    """Give each part its share of each cycle; a part that cannot go on is found, and the others go on."""
    while parts and (left := end - time.monotonic()) > 1:
        total, cycle = sum(parts.values()), min(left, _CYCLE_S)
        for name, share in list(parts.items()):
            try:
                _PARTS[name](tally, min(cycle * share / total, max(end - time.monotonic(), 1)))
            except Exception:  # noqa: BLE001 - the table of the others is worth having
                del parts[name]
                tally.add(name, Count(done=1, found=1))
                sys.stderr.write(f"{name} cannot go on:\n{traceback.format_exc()}\n")


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
        tally.add(counted_as(kind), fuzz(tally, kind, seconds * target.weight / weights))


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
