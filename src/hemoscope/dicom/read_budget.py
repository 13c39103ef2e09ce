"""Counts what reading costs, for each file and for all files that are opened together.

A few kilobytes can declare millions of elements, inflate to gigabytes, or be slow to read for another reason. Elements
and bytes are counted where they are parsed, with the processor time of the thread that parses. A file that exceeds a
limit is refused by name. What an ordinary slice needs is free, so that the others are read even when the limit for all
of them is used up.
"""

from threading import Lock
from time import thread_time
from types import TracebackType
from typing import Self

from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.errors import DicomReadError

# Free for each file; a slice of the field has 30 to 300 elements and takes 1 to 3 ms.
_FREE_ELEMENTS = 400
_FREE_BYTES = 4 << 20
_FREE_S = 0.01
_LOOK_EVERY = 500  # elements between two looks at the clock
_TOGETHER = "with the files before it, it exceeds the limit {}"


class ReadBudget:
    """What the files of one archive, folder or upload may still cost together; threads may share it."""

    def __init__(self, limits: ReadLimits) -> None:
        """Start with the limits for all files: ``archive_elements``, ``archive_bytes``, ``archive_seconds``."""
        self.limits = limits
        self._lock = Lock()
        self._used = (0.0, 0.0, 0.0)

    def open(self, source: str) -> "FileBudget":
        """Return the budget of one reading of a file."""
        return FileBudget(source, self)

    def inflate(self, source: str, size: int) -> None:
        """Count a file that was inflated as a whole. Raises DicomReadError ``too_large``."""
        exceeded = self.take((0.0, max(0.0, size - _FREE_BYTES), 0.0))
        if exceeded is not None:
            raise refusal(source, "too_large", _TOGETHER.format(exceeded))

    def take(self, cost: tuple[float, float, float]) -> str | None:
        """Add elements, inflated bytes and seconds; return the limit that they exceed, None if there is none."""
        most = self.limits
        with self._lock:
            elements, size, seconds = self._used = (
                self._used[0] + cost[0],
                self._used[1] + cost[1],
                self._used[2] + cost[2],
            )
        if elements > most.archive_elements and cost[0] > 0:
            return f"archive_elements = {most.archive_elements}"
        if size > most.archive_bytes and cost[1] > 0:
            return f"archive_bytes = {most.archive_bytes}"
        if seconds > most.archive_seconds and cost[2] > 0:
            return f"archive_seconds = {most.archive_seconds}"
        return None


class FileBudget:
    """What one reading of a file may still cost. ``with budget:`` encloses its work, whose processor time counts.

    ``elements`` is what was counted.
    """

    def __init__(self, source: str, archive: ReadBudget) -> None:
        """Start with the limits for one file: ``elements``, ``inflated_bytes``, ``file_seconds``."""
        self._source = source
        self._limits = archive.limits
        self._archive = archive
        self.elements = 0
        self._bytes = 0
        self._seconds = 0.0
        self._since: float | None = None
        self._depth = 0
        self._look_at = _LOOK_EVERY
        self._taken = (0.0, 0.0, 0.0)
        self._exceeded: DicomReadError | None = None

    def __enter__(self) -> Self:
        """Start the clock, if it does not run."""
        if self._depth == 0:
            self._since = thread_time()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the clock. Raises DicomReadError if a limit was exceeded: pydicom turns some errors into others."""
        self._depth -= 1
        if self._depth == 0:
            self._measure()
            self._since = None
            self._archive.take(self._new_cost())
        if self._exceeded is not None and error is not self._exceeded:
            raise self._exceeded from error

    def count(self, elements: int = 1) -> None:
        """Count data elements, items or fragments.

        Raises:
            DicomReadError: ``too_large``, which names the limit.
        """
        self.elements += elements
        if self.elements > self._limits.elements:
            raise self._refused(f"more data elements than the limit elements = {self._limits.elements}")
        if self.elements >= self._look_at:
            self.look()

    def inflate(self, size: int) -> None:
        """Count bytes that were inflated. Raises DicomReadError ``too_large``."""
        self._bytes += size
        if self._bytes > self._limits.inflated_bytes:
            reason = f"it inflates to more than the limit inflated_bytes = {self._limits.inflated_bytes}"
            raise self._refused(reason)
        self.look()

    def look(self) -> None:
        """Compare the processor time, and the cost of all files, with their limits. Raises DicomReadError."""
        self._look_at = self.elements + _LOOK_EVERY
        self._measure()
        if self._seconds > self._limits.file_seconds:
            reason = f"reading takes more processor time than the limit file_seconds = {self._limits.file_seconds}"
            raise self._refused(reason)
        exceeded = self._archive.take(self._new_cost())
        if exceeded is not None:
            raise self._refused(_TOGETHER.format(exceeded))

    def _measure(self) -> None:
        if self._since is not None:
            now = thread_time()
            self._seconds += now - self._since
            self._since = now

    def _new_cost(self) -> tuple[float, float, float]:
        """Return what is not free and was not taken from the budget of all files yet."""
        cost = (
            max(0.0, self.elements - _FREE_ELEMENTS),
            max(0.0, self._bytes - _FREE_BYTES),
            max(0.0, self._seconds - _FREE_S),
        )
        new = (cost[0] - self._taken[0], cost[1] - self._taken[1], cost[2] - self._taken[2])
        self._taken = cost
        return new

    def _refused(self, reason: str) -> DicomReadError:
        self._exceeded = refusal(self._source, "too_large", reason)
        return self._exceeded
