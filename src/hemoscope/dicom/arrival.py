"""Tells those who read a volume while it is decoded which of its slices are there."""

import threading
from collections.abc import Iterable

import numpy as np

__all__ = ["NeverArrivesError", "SliceArrival"]


class NeverArrivesError(Exception):
    """A slice that was waited for was refused, decoding ended early, or nobody needs what is made of it."""


class SliceArrival:
    """The slices of one volume that are decoded, for any number of threads."""

    def __init__(self, count: int) -> None:
        """Begin with none of ``count`` slices."""
        self._changed = threading.Condition()
        self._there = np.zeros(count, dtype=bool)
        self._over = self._stopped = False

    def add(self, places: Iterable[int]) -> None:
        """Tell that these slices have their values."""
        with self._changed:
            self._there[list(places)] = True
            self._changed.notify_all()

    def end(self) -> None:
        """Tell that no more slices come."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Let those who wait, now or later, do something else, whatever is there."""
        with self._changed:
            self._over = self._stopped = True
            self._changed.notify_all()

    def wait(self, first: int, last: int) -> None:
        """Return once the slices from ``first`` to ``last`` are there. Raises NeverArrivesError."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or bool(self._there[first : last + 1].all()))
            if self._stopped or not self._there[first : last + 1].all():
                raise NeverArrivesError
