"""Fuzzing by mutation: runs children for a while, counts their inputs, and keeps those that broke something."""

import json
import re
import subprocess
import sys
from pathlib import Path

from .fuzz_child import RESIDENT_GROWTH
from .tally import Count, Tally
from .target import REPOSITORY, input_of
from .targets import TARGETS

_START_S = 120.0  # for imports, on a busy machine


def fuzz(tally: Tally, kind: str, seconds: float) -> Count:
    """Fuzz one target for so many seconds; numbers go on from the inputs counted, so that none is repeated."""
    folder = _folder(tally, kind)
    first = tally.counts[counted_as(kind)].done
    command = (sys.executable, "-W", "error", "-m", "tests.torture.fuzz_child", kind, str(folder))
    (folder / "current").unlink(missing_ok=True)
    child = subprocess.Popen(
        (*command, str(first), f"{seconds:.1f}"), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        output, errors = child.communicate(timeout=seconds + _START_S)
    except subprocess.TimeoutExpired:
        child.kill()
        output, errors = child.communicate()
    if child.returncode == 0:
        return _counted(tally, kind, folder, first, json.loads(output.splitlines()[-1]))
    return _crashed(tally, kind, folder, first, child.returncode, errors)


def _folder(tally: Tally, kind: str) -> Path:
    folder = (tally.folder / "fuzz" / kind.replace(" ", "-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def counted_as(kind: str) -> str:
    """The name of a target's counts."""
    return f"fuzz: {kind}"


def _counted(tally: Tally, kind: str, folder: Path, first: int, report: dict[str, object]) -> Count:
    """Take the counts of a child that ended in order."""
    number, broken = int(str(report["next"])), report["broken"]
    assert isinstance(broken, dict)
    for path in sorted(folder.glob("found/*")):
        tally.keep(kind, path.name, path.read_bytes())
        path.unlink()
    found = sum(broken.values())
    for where, times in broken.items():
        sys.stderr.write(f"{kind}: {times} times {where}\n")
    if int(str(report["grown"])) > RESIDENT_GROWTH:
        found += 1
        sys.stderr.write(
            f"{kind}: memory grew by {int(str(report['grown'])) >> 20} MiB in inputs {first} to {number}\n"
        )
    return Count(done=number - first, found=found)


def _crashed(tally: Tally, kind: str, folder: Path, first: int, status: int, errors: bytes) -> Count:
    """Keep the input that ended a child, and go on after it the next time."""
    if not (folder / "current").exists():
        raise RuntimeError(f"{kind}: fuzzing could not start:\n{errors.decode(errors='replace')[-3000:]}")
    number = int((folder / "current").read_text())
    seeds = [path.read_bytes() for path in sorted((folder / "seeds").iterdir())]
    tally.keep(kind, f"{number}.bin", input_of(TARGETS[kind], seeds, number))
    tally.keep(kind, f"{number}.txt", f"ended with status {status}\n".encode() + errors[-10000:])
    sys.stderr.write(f"{kind}: input {number} ended the process with status {status}\n")
    return Count(done=number + 1 - first, found=1)


def reproduce(kind: str, path: Path) -> str:
    """Run one kept input in this process; returns how it ended, or raises what it raised."""
    import tempfile

    from .target import run_one

    with tempfile.TemporaryDirectory(prefix="hemoscope-torture-") as work:
        return run_one(TARGETS[kind], path.read_bytes(), Path(work))


def kind_named(text: str) -> str:
    """The kind of a target by its name, or the beginning of it."""
    named = [
        kind for kind in TARGETS if re.sub(r"\W", "", kind).casefold().startswith(re.sub(r"\W", "", text).casefold())
    ]
    if len(named) != 1:
        raise SystemExit(f"{text}: not one of {', '.join(TARGETS)}")
    return named[0]
