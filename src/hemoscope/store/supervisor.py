"""Starts worker processes, restarts them when they exit, and deletes studies past their retention period.

Workers are spawned, never forked: a fork of a process with threads (uvicorn, OpenVINO) may deadlock. A dead worker's
job is freed at once. A worker that keeps dying is restarted with growing delays, up to a quarter of a minute. The time
that a job has run is measured here, by the monotonic clock: no clock that is set makes it exceed the limit.
"""

import logging
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

from hemoscope.store.background import BackgroundLoop, Vitals, described
from hemoscope.store.jobs import UploadJob
from hemoscope.store.node_file import sending_node
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store

_log = logging.getLogger("hemoscope.store")
_STDERR = 2
_LOOK_EVERY_S = 0.1
_OVERDUE_EVERY_S = 1.0
_BLIND_AFTER_S = 10.0
# More than a step may take: the database's timeout several times over, and a sweep of a large storage.
_WATCH_STUCK_AFTER_S = 180.0
_SWEEP_STUCK_AFTER_S = 3 * 3600.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
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
        self._running: dict[UploadJob, float] = {}
        self._overdue_at = 0.0
        self._looked = float("-inf")
        self._clock = store.clock_watch()
        self._loops = (
            self._loop("supervise-workers", self._watch, _LOOK_EVERY_S, _WATCH_STUCK_AFTER_S),
            self._loop("sweep-store", self._tidy, _SWEEP_EVERY_S, _SWEEP_STUCK_AFTER_S),
        )

    @staticmethod
    def _loop(name: str, step: Callable[[], object], every_s: float, stuck_after_s: float) -> BackgroundLoop:
        return BackgroundLoop(name, step, every_s=every_s, stuck_after_s=stuck_after_s)

    @property
    def vitals(self) -> tuple[Vitals, ...]:
        """The threads that must be at work while the block lasts."""
        return tuple(loop.vitals for loop in self._loops)

    def __enter__(self) -> Self:
        """Start."""
        for loop in self._loops:
            loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask the workers to give their jobs back and exit; kill those that do not within ten seconds."""
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            loop.join()
        for slot in self._slots:
            if slot.process is not None:
                _close_input(slot.process)
        for slot in self._slots:
            if slot.process is not None:
                self._terminate(slot.worker_id, slot.process)

    def reload(self) -> None:
        """Let the workers read the file of the node again, each before its next upload.

        Raises:
            ConfigError: the file is wrong; the workers go on with what they read before.
        """
        sending_node(self._settings)
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send_signal(signal.SIGHUP)

    def _terminate(self, worker_id: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a worker to exit, kill it after the timeout, and free its job."""
        try:
            process.wait(_SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        try:
            self._store.jobs.worker_died(worker_id)
        except Exception as error:  # noqa: BLE001 - the other workers must be ended too
            _log.warning("a worker's job waits until its lease runs out: %s", described(error))

    def _watch(self) -> None:
        for slot in self._slots:
            self._look_at(slot)
        if monotonic() >= self._overdue_at:
            self._overdue_at = monotonic() + _OVERDUE_EVERY_S
            self._end_overdue()

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
        command = [sys.executable, "-P", "-m", "hemoscope.store.worker_process", self._settings.log_format]
        # Its log is its stdout, that is our stderr. What a Python prints that cannot even start is dropped.
        slot.process = subprocess.Popen(  # noqa: S603 - our own
            command, stdin=subprocess.PIPE, stdout=_STDERR, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            if slot.process.stdin is not None:
                slot.process.stdin.write(self._settings.to_line(slot.worker_id))
                slot.process.stdin.flush()
        except BrokenPipeError:
            _log.warning("worker %d exited before it received its settings", slot.process.pid)

    def _end_overdue(self) -> None:
        """Fail the jobs that this process has seen for longer than the time limit, and kill their workers.

        After a pause in its looks it begins anew: while the database was away no worker could end its job or give it
        back, and a fault of the site costs nothing.
        """
        workers = {slot.worker_id: slot.process for slot in self._slots if slot.process is not None}
        if not workers:
            return
        held, at, limit = self._store.jobs.held_by(workers.keys()), monotonic(), self._settings.time_limit
        seen = self._running if at - self._looked <= _BLIND_AFTER_S else {}
        self._running, self._looked = {job: seen.get(job, at) for job in held}, at
        for job, since in self._running.items():
            if at - since > limit.total_seconds() and self._store.jobs.fail_overdue(job, limit=limit):
                process = workers[job.worker_id]
                _log.warning("worker %d exceeded the time limit and is killed", process.pid)
                process.kill()
                process.wait()

    def _tidy(self) -> None:
        """Delete by age unless the clock was set lately, then what crashes left behind, also if the first fails."""
        try:
            if self._clock.steady(self._store.time()):
                self._delete_by_age()
        finally:
            self._store.sweep()

    def _delete_by_age(self) -> None:
        """Delete studies past their retention, and what was swept long ago, also if the first fails."""
        days = self._settings.retention_days
        try:
            if days is not None and (deleted := self._store.retention(days)):
                _log.info("%d studies past their retention deleted", deleted)
        finally:
            self._store.empty_trash()


def _close_input(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe that a worker watches; it may have been closed already."""
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            _log.debug("worker %d exited before its input was closed", process.pid)
