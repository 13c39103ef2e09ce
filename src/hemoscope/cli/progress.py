"""Progress on stderr: a bar on a terminal, one line per minute in a log; stdout is only for results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hemoscope.progress import StageProgress

_QUIET = 60.0  # seconds between lines in a log; short jobs print none


@contextmanager
def progress_bar() -> Iterator[StageProgress]:
    """Yield ``show(stage, done, total)``; the bar restarts with each stage and is removed at the end."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield progress_lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, rate="")

        def show(stage: str, done: int, total: int) -> None:
            if bar.tasks[0].description != stage or bar.tasks[0].total != total:
                bar.reset(task, description=stage, total=total)
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:,.3g}/s" if speed else "")

        yield show


def progress_lines(clock: Callable[[], float] = time.monotonic) -> StageProgress:
    """Return a ``show`` for jobs without a terminal: progress, rate and time left, at most once a minute."""
    stage_now, began, first = "", clock(), 0
    spoke = began

    def show(stage: str, done: int, total: int) -> None:
        nonlocal stage_now, began, first, spoke
        now = clock()
        if stage != stage_now:
            # Work done before a stage was resumed does not count for the rate.
            stage_now, began, first = stage, now, done
        if now - spoke < _QUIET:
            return
        spoke = now
        rate = (done - first) / (now - began) if now > began else 0.0
        rest = f", {rate:,.3g}/s, {_duration((total - done) / rate)} left" if rate > 0 else ""
        sys.stderr.write(f"{stage} {done:,} of {total:,}{rest}\n")
        sys.stderr.flush()

    return show


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
