"""Progress callbacks: plain callables, so that no package depends on a user interface; and work that is awaited."""

from collections.abc import Callable
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with the items done and their total."""

StageProgress = Callable[[str, int, int], None]
"""Called with the stage's name, the items done and their total."""


def no_progress(_done: int, _total: int) -> None:
    """Show nothing."""


def no_stage_progress(_stage: str, _done: int, _total: int) -> None:
    """Show nothing."""


class Arrival(Protocol):
    """Which slices of a volume have their values already, while others are still decoded."""

    def wait(self, first: int, last: int) -> None:
        """Return once these slices have their values; raise an error if they never will."""
