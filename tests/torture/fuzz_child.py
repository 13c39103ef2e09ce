"""The process that fuzzes one target: ``python -m tests.torture.fuzz_child KIND FOLDER FIRST SECONDS``.

It runs inputs from number ``FIRST`` on for so many seconds, with limits on memory and on the time of each. The number
of the current input stands in ``FOLDER/current``, so that the parent knows which one crashed or hung. The last line of
stdout is JSON: how many inputs ended how, and the memory that the process grew by.
"""

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from .target import Target, input_of, run_one
from .targets import TARGETS

SECONDS_PER_INPUT = 20
# What libraries and one thread's stack reserve, and generous room above it; a jump past it is a MemoryError or worse.
ADDRESS_SPACE = 8 << 30
FURTHER_DATA = 1 << 30
RESIDENT_GROWTH = 400 << 20
_KEPT_OF_A_KIND = 3


def seeds_of(kind: str, folder: Path) -> list[bytes]:
    """The seeds, made once: generated identifiers differ from run to run."""
    place = folder / "seeds"
    if not place.exists():
        with tempfile.TemporaryDirectory(prefix="hemoscope-torture-") as work:
            made = TARGETS[kind].seeds(Path(work))
        draft = folder / "seeds.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for number, seed in enumerate(made):
            (draft / f"{number:03d}").write_bytes(seed)
        draft.rename(place)
    return [path.read_bytes() for path in sorted(place.iterdir())]


def limit_memory() -> None:
    """Limit what further input may take."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    data = int(status.split("VmData:")[1].split()[0]) * 1024 + FURTHER_DATA
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Fuzzer:
    """Runs inputs of one target and keeps those that break its contract."""

    def __init__(self, kind: str, folder: Path) -> None:
        """Load seeds and libraries."""
        self.target: Target = TARGETS[kind]
        self.folder = folder
        self.seeds = seeds_of(kind, folder)
        self.outcomes: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.work = folder / "work"
        self.work.mkdir(exist_ok=True)
        for seed in self.seeds:  # loads every decoder before memory is measured
            self.clean(self.work)
            run_one(self.target, seed, self.work)
        self._resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @property
    def grown_bytes(self) -> int:
        """How much the most memory of the process has grown."""
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._resident) * 1024

    def run(self, number: int) -> None:
        """Run one input."""
        self.clean(self.work)
        data = input_of(self.target, self.seeds, number)
        signal.alarm(SECONDS_PER_INPUT)
        try:
            self.outcomes[run_one(self.target, data, self.work)] += 1
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            self._keep(number, data, error)
        finally:
            signal.alarm(0)

    def _keep(self, number: int, data: bytes, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        self.broken[where] += 1
        if self.broken[where] <= _KEPT_OF_A_KIND:
            (self.folder / "found").mkdir(exist_ok=True)
            (self.folder / "found" / f"{number}.bin").write_bytes(data)
            (self.folder / "found" / f"{number}.txt").write_text("".join(traceback.format_exception(error)))

    @staticmethod
    def clean(folder: Path) -> None:
        """Remove what the input before left."""
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def main(kind: str, place: str, first: int, seconds: float) -> None:
    """Fuzz."""
    folder = Path(place)
    fuzzer = Fuzzer(kind, folder)
    limit_memory()
    current = os.open(folder / "current", os.O_WRONLY | os.O_CREAT, 0o600)
    number, end = first, time.monotonic() + seconds
    while time.monotonic() < end:
        os.pwrite(current, f"{number:020d}".encode(), 0)
        fuzzer.run(number)
        number += 1
    report = {"next": number, "outcomes": fuzzer.outcomes, "broken": fuzzer.broken, "grown": fuzzer.grown_bytes}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
