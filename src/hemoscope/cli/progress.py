"""A progress bar on stderr, shown only where stderr is a terminal; stdout stays clean for results."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Show = Callable[[str, int, int], None]


@contextmanager
def progress_bar() -> Iterator[Show]:
    """Yield ``show(stage, done, total)``; the bar starts anew with each stage and is gone in the end."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _stage, _done, _total: None
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
