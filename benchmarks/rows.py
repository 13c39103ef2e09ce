"""What a benchmark of ``make bench`` reports: one row, with the limit, what was measured, and beside what."""

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

QUICK = "HEMOSCOPE_BENCH_QUICK"  # set by ``bench.py --quick``: does everything run to its end?
_REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement beside another of the same run.

    Attributes:
        what: what was measured, and on what input.
        limit: what bounds it on this machine, with the arithmetic ("64 MB to read: .02 s; 119 GFLOP: 1.3 s").
        measured: the median of ours, in ``unit``.
        beside: what it is compared with.
        compared: the median of that, in ``unit``; 1.0 where the bar is a value and not a ratio.
        unit: "s", "CPU s", "MB", "slices/s"...
        bar: the ratio ``measured / compared`` that is asked for.
        better: whether the ratio shall be at most or at least the bar.
    """

    what: str
    limit: str
    measured: float
    beside: str
    compared: float
    unit: str
    bar: float
    better: Literal["at most", "at least"]

    @property
    def ratio(self) -> float:
        """Ours divided by the other."""
        return self.measured / self.compared

    @property
    def met(self) -> bool:
        """Whether the bar was reached."""
        return self.ratio <= self.bar if self.better == "at most" else self.ratio >= self.bar


class UnavailableError(Exception):
    """What a benchmark needs is not here; the message says what to do."""


def shared_data(name: str) -> Path:
    """Return a folder of the real head CT that the tests read, too. Raises UnavailableError if it is missing."""
    folder = Path(os.environ.get("HEMOSCOPE_DATA", _REPOSITORY.parent / "shared" / "data")) / name
    if not folder.is_dir():
        msg = f"no {name} here: set HEMOSCOPE_DATA to the folder that holds it"
        raise UnavailableError(msg)
    return folder


def quick(full: int, small: int = 1) -> int:
    """Return a number of runs or a size: ``full``, or ``small`` in a trial whose figures do not count."""
    return small if os.environ.get(QUICK) else full


def processor_seconds() -> float:
    """Return the processor time of this process and of its ended children, which a busy machine changes little."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def interleaved(
    *calls: Callable[[], object],
    times: int = 5,
    clock: Callable[[], float] = processor_seconds,
    before: Callable[[], object] = lambda: None,
) -> list[float]:
    """Run calls in turn, A B A B, and return the median of what ``clock`` measures for each.

    ``before`` runs before every call and is not measured.
    """
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(quick(times)):
        for call, seconds in zip(calls, found, strict=True):
            before()
            start = clock()
            call()
            seconds.append(clock() - start)
    return [median(seconds) for seconds in found]
