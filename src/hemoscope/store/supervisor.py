"""Starts worker processes, restarts them when they exit, and deletes studies past their retention period.

Workers are spawned, never forked: a fork of a process with threads (uvicorn, OpenVINO) may deadlock. A dead worker's
job is freed at once. A worker that keeps dying is restarted with growing delays, up to half a minute.
"""

import logging
import secrets
import subprocess
import sys
import threading
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

from hemoscope.errors import StoreError
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store

_log = logging.getLogger("hemoscope.store")
_LOOK_EVERY_S = 0.1
_OVERDUE_EVERY_S = 1.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_LONG_LIFE_S = 30.0
_SWEEP_EVERY_S = 600.0
_SHUTDOWN_TIMEOUT_S = 10.0


@dataclass(slots=True, kw_only=True)
class _Slot:
    """One of the worker processes to keep running, and when the next one may be started."""

    worker_id: str = ""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    not_before: float = 0.0
    pause: float = _FIRST_PAUSE_S


class Supervisor:
    """``with Supervisor(store, settings):`` keeps ``settings.workers`` running until the block ends."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
    ) -> None:
        """Plan the workers.

        Args:
            store: this process's store; the workers open their own.
            settings: number of workers (0 only deletes old studies and leftovers), time limit, retention.
        """
        self._store = store
        self._settings = settings
        self._slots = [_Slot() for _ in range(settings.workers)]
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
        """Ask the workers to give their jobs back and exit; kill those that do not within ten seconds."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for slot in self._slots:
            if slot.process is not None:
                _close_input(slot.process)
        for slot in self._slots:
            if slot.process is not None:
                self._terminate(slot.worker_id, slot.process)

    def _terminate(self, worker_id: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a worker to exit, kill it after the timeout, and free its job."""
        try:
            process.wait(_SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        try:
            self._store.jobs.worker_died(worker_id)
        except StoreError as error:
            _log.warning("a worker's job waits until its lease runs out: %s", error.code)

    def _watch(self) -> None:
        overdue_at = 0.0
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                for slot in self._slots:
                    self._look_at(slot)
                if monotonic() >= overdue_at:
                    overdue_at = monotonic() + _OVERDUE_EVERY_S
                    self._end_overdue()
            except (StoreError, OSError) as error:  # the database cannot be reached, or no process can be started
                _log.warning("workers cannot be supervised: %s", type(error).__name__)

    def _look_at(self, slot: _Slot) -> None:
        """Start the worker of a slot, or free the job of one that died."""
        if slot.process is None:
            if monotonic() >= slot.not_before:
                self._start(slot)
            return
        if slot.process.poll() is None:
            return
        self._store.jobs.worker_died(slot.worker_id)
        _log.warning("worker %d exited with status %d", slot.process.pid, slot.process.returncode)
        _close_input(slot.process)
        lived = monotonic() - slot.started
        slot.pause = _FIRST_PAUSE_S if lived > _LONG_LIFE_S else min(2 * slot.pause, _LONGEST_PAUSE_S)
        slot.not_before = monotonic() + slot.pause
        slot.process = None

    def _start(self, slot: _Slot) -> None:
        slot.worker_id, slot.started = secrets.token_hex(16), monotonic()
        # -P: nothing is imported from the working directory. A session of its own keeps the terminal's Ctrl-C from
        # the workers, which shut down cleanly when their input closes.
        command = [sys.executable, "-P", "-m", "hemoscope.store.worker"]
        slot.process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own
        try:
            if slot.process.stdin is not None:
                slot.process.stdin.write(self._settings.to_line(slot.worker_id))
                slot.process.stdin.flush()
        except BrokenPipeError:
            _log.warning("worker %d exited before it received its settings", slot.process.pid)

    def _end_overdue(self) -> None:
        for slot in self._slots:
            if slot.process is None:
                continue
            if self._store.jobs.fail_overdue(slot.worker_id, after=self._settings.time_limit):
                _log.warning("worker %d exceeded the time limit and is killed", slot.process.pid)
                slot.process.kill()
                slot.process.wait()

    def _tidy(self) -> None:
        while True:
            try:
                if self._settings.retention_days is not None:
                    self._store.retention(self._settings.retention_days)
                self._store.sweep()
            except (StoreError, OSError) as error:
                _log.warning("retention is postponed: %s", type(error).__name__)
            if self._stop.wait(_SWEEP_EVERY_S):
                return


def _close_input(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe that a worker watches; it may have been closed already."""
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            _log.debug("worker %d exited before its input was closed", process.pid)
