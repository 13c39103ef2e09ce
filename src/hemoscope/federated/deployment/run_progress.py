"""What the server's application tells those who ask on its machine: where it is, whom it waits for, why it gave up.

Both are files beside the run's job, under its id: ``ID.progress.json`` and ``ID.error``.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock

from hemoscope.files import write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """Where a run is.

    Attributes:
        stage: as the server's application names it, such as ``split: round``.
        done: of ``total``.
        total: how much there is.
        since: seconds since 1970, when it began to wait as it does now.
        waiting: Flower's ids of the nodes whose replies are awaited.
    """

    stage: str = ""
    done: int = 0
    total: int = 0
    since: float = 0.0
    waiting: tuple[int, ...] = ()


class ProgressFile:
    """Writes a run's progress, from any thread."""

    def __init__(self, jobs: Path, job: str, clock: Callable[[], float] = time.time) -> None:
        """Write beside this job."""
        self._path, self._clock = progress_path(jobs, job), clock
        self._lock, self._now = Lock(), RunProgress()

    def show(self, stage: str, done: int, total: int) -> None:
        """A stage begins, or goes on: a ``StageProgress``."""
        with self._lock:
            if (stage, done, total) != (self._now.stage, self._now.done, self._now.total):
                self._write(RunProgress(stage=stage, done=done, total=total, since=self._clock()))

    def ask(self, nodes: Iterable[int]) -> None:
        """These nodes were asked for a reply."""
        with self._lock:
            waiting = tuple(sorted({*self._now.waiting, *nodes}))
            self._write(replace(self._now, waiting=waiting, since=self._clock()))

    def leave(self, nodes: Iterable[int]) -> None:
        """These nodes replied, or are no longer waited for."""
        with self._lock:
            waiting = tuple(sorted({*self._now.waiting} - {*nodes}))
            if waiting != self._now.waiting:
                self._write(replace(self._now, waiting=waiting))

    def _write(self, progress: RunProgress) -> None:
        self._now = progress
        write_text(self._path, json.dumps(asdict(progress)) + "\n", mode=0o600)


def progress_path(jobs: Path, job: str) -> Path:
    """Where the progress of a job's run is written."""
    return jobs / f"{job}.progress.json"


def error_path(jobs: Path, job: str) -> Path:
    """Where the error that ended a job's run is written, if trying again would not help."""
    return jobs / f"{job}.error"


def read_progress(jobs: Path, job: str) -> RunProgress | None:
    """How far a job's run is; None where it has not begun."""
    try:
        described = json.loads(progress_path(jobs, job).read_text())
    except FileNotFoundError:
        return None
    return RunProgress(**{**described, "waiting": tuple(described["waiting"])})


def read_error(jobs: Path, job: str) -> str | None:
    """The error that ended a job's run; None where there is none."""
    try:
        return error_path(jobs, job).read_text()
    except FileNotFoundError:
        return None
