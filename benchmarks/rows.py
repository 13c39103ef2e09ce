"""What a benchmark of ``make bench`` reports: one row, with the limit, what was measured, and beside what."""

from dataclasses import dataclass
from typing import Literal


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
