"""Progress callbacks: plain callables, so that no package depends on a user interface."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the items done and their total."""

StageProgress = Callable[[str, int, int], None]
"""Called with the stage's name, the items done and their total."""


def no_progress(_done: int, _total: int) -> None:
    """Show nothing."""


def no_stage_progress(_stage: str, _done: int, _total: int) -> None:
    """Show nothing."""
