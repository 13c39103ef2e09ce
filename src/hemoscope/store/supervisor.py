"""Starts worker processes, starts them anew when they end, and looks after what nobody else does.

Workers are spawned, never forked: a fork of a process with threads (uvicorn, OpenVINO) may lock up. A dead worker's job
is freed at once. A worker that ends again and again is started less and less often, up to every half minute.
"""

import logging
import secrets
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Self

from hemoscope.errors import StoreError
from hemoscope.store.store import Store
from hemoscope.store.worker_settings import WorkerSettings

_log = logging.getLogger("hemoscope.store")
_LOOK_EVERY_S = 0.1
_OVERDUE_EVERY_S = 1.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_LONG_LIFE_S = 30.0
_FAREWELL_S = 10.0


@dataclass(slots=True, kw_only=True)
class _Place:
    """A worker's place: the process in it, and when the next one may be started."""

    worker_id: str = ""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    not_before: float = 0.0
    pause: float = _FIRST_PAUSE_S


class Supervisor:
    """``with Supervisor(store, settings, workers=2):`` keeps two workers at work until the block ends."""

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        *,
        workers: int = 1,
        time_limit: timedelta = timedelta(minutes=15),
        retention_days: int | None = None,
        sweep_every: timedelta = timedelta(minutes=10),
    ) -> None:
        """Plan the workers.

        Args:
            store: this process's store; the workers open their own.
            settings: for every worker.
            workers: how many; 0 only looks after retention and leftovers.
            time_limit: a job that runs longer fails by name, and its worker is ended.
            retention_days: studies older than this are deleted; None keeps them.
            sweep_every: how often retention and leftovers are looked at.
        """
        self._store = store
        self._settings = settings
        self._places = [_Place() for _ in range(workers)]
        self._time_limit = time_limit
        self._retention_days = retention_days
        self._sweep_every = sweep_every
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, name="supervise-workers", daemon=True),
            threading.Thread(target=self._tidy, name="sweep-store", daemon=True),
        ]

    def __enter__(self) -> Self:
        """Start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask the workers to give their jobs back and end; end those that do not within ten seconds."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for place in self._places:
            if place.process is not None:
                _close_input(place.process)
        for place in self._places:
            if place.process is not None:
                self._bury(place.worker_id, place.process)

    def _bury(self, worker_id: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a worker to end, end it where it takes too long, and free what it leaves."""
        try:
            process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        try:
            self._store.jobs.worker_died(worker_id)
        except StoreError as error:
            _log.warning("a worker's job waits for its lease to end: %s", error.code)

    def _watch(self) -> None:
        overdue_at = 0.0
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                for place in self._places:
                    self._look_at(place)
                if monotonic() >= overdue_at:
                    overdue_at = monotonic() + _OVERDUE_EVERY_S
                    self._end_overdue()
            except (StoreError, OSError) as error:  # the database is away, or no process can be started just now
                _log.warning("workers cannot be looked after: %s", type(error).__name__)

    def _look_at(self, place: _Place) -> None:
        """Start the worker of a place, or note that it died."""
        if place.process is None:
            if monotonic() >= place.not_before:
                self._start(place)
            return
        if place.process.poll() is None:
            return
        self._store.jobs.worker_died(place.worker_id)
        _log.warning("worker %d ended with status %d", place.process.pid, place.process.returncode)
        _close_input(place.process)
        lived = monotonic() - place.started
        place.pause = _FIRST_PAUSE_S if lived > _LONG_LIFE_S else min(2 * place.pause, _LONGEST_PAUSE_S)
        place.not_before = monotonic() + place.pause
        place.process = None

    def _start(self, place: _Place) -> None:
        place.worker_id, place.started = secrets.token_hex(16), monotonic()
        # -P: nothing is imported from the folder that the server happens to run in. A session of its own keeps the
        # terminal's Ctrl-C from the workers, which end in order instead when their input does.
        command = [sys.executable, "-P", "-m", "hemoscope.store.worker"]
        place.process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own
        try:
            if place.process.stdin is not None:
                place.process.stdin.write(self._settings.to_line(place.worker_id))
                place.process.stdin.flush()
        except BrokenPipeError:
            _log.warning("worker %d ended before it was told what to do", place.process.pid)

    def _end_overdue(self) -> None:
        for place in self._places:
            if place.process is not None and self._store.jobs.fail_overdue(place.worker_id, after=self._time_limit):
                _log.warning("worker %d took longer than the time limit and is ended", place.process.pid)
                place.process.kill()
                place.process.wait()

    def _tidy(self) -> None:
        while True:
            try:
                if self._retention_days is not None:
                    self._store.retention(self._retention_days)
                self._store.sweep()
            except (StoreError, OSError) as error:
                _log.warning("retention and leftovers have to wait: %s", type(error).__name__)
            if self._stop.wait(self._sweep_every.total_seconds()):
                return


def _close_input(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe that a worker watches; it may be gone already."""
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            _log.debug("worker %d was gone before its input was closed", process.pid)
