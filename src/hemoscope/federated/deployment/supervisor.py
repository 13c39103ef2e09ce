"""Programs that must stay alive: watched, started again after a pause, and described in a file for whoever asks.

A program that ends by itself is started again, at first after a second, and after twice as long each time
that it did not last. What the supervisor knows is in ``processes.json`` of a folder: ``hemoscope federated status``
reads it. The supervisor has one thread, since Linux ends a child whose starting thread ends (``tie_to_parent``).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from hemoscope.files import write_text

PROCESSES = "processes.json"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds
LONG_LIFE = 60.0  # seconds; after a life as long as this, the pause is short again
GRACE = 10.0  # seconds between asking a program to end and ending it
_LOOK = 0.2


Pids = Mapping[str, int]


def always(_pids: Pids) -> bool:
    """Nothing to wait for."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to keep alive.

    Attributes:
        name: for people.
        command: gives its command line, asked before each start.
        after: whether it may be started, asked before each start with the process ids of the programs that run.
        ends_with: another program of the supervisor; when that one ends, this one is ended and started again.
        final: exit codes after which the supervisor ends, with code 1: starting again would not help.
        refused: exit codes that say that somebody else refused it; the supervisor ends after ``patience`` of them.
        patience: seconds.
    """

    name: str
    command: Callable[[], Sequence[str]]
    after: Callable[[Pids], bool] = always
    ends_with: str | None = None
    final: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()
    patience: float = 0.0


@dataclass(slots=True)
class _Watched:
    """A program and its present process."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    since: float = field(default_factory=time.time)  # of the present state, by the clock of the machine
    started: float = 0.0  # monotonic
    not_before: float = 0.0
    pause: float = 0.0
    starts: int = 0
    last_end: str = ""
    refused_since: float | None = None


class Supervisor:
    """Keeps programs alive until a signal ends it, or one of them says that it cannot run."""

    def __init__(self, programs: Sequence[Program], folder: Path) -> None:
        """Watch these, and write ``processes.json`` into the folder."""
        self._watched = {program.name: _Watched(program) for program in programs}
        self._folder = folder
        self._stop = threading.Event()

    def run(self) -> int:
        """Until SIGTERM or SIGINT: 0. Where a program cannot run, or another supervisor has the folder: 1."""
        try:
            with FileLock(self._folder / "supervisor.lock", timeout=0), self._signals():
                return self._watch()
        except Timeout:
            _say(f"{self._folder.name} is in use by another server or site. End that one, or name another.")
            return 1

    def _watch(self) -> int:
        try:
            while not self._stop.wait(_LOOK):
                for one in self._watched.values():
                    if not self._look_at(one):
                        return 1
            return 0
        finally:
            self._end_all()

    def _look_at(self, one: _Watched) -> bool:
        """Start a program, or note that it ended; whether the supervisor may go on."""
        if one.process is None:
            if time.monotonic() >= one.not_before and one.program.after(self._pids()):
                self._start(one)
            return True
        if (code := one.process.poll()) is None:
            return True
        return self._ended(one, code)

    def _pids(self) -> dict[str, int]:
        return {name: one.process.pid for name, one in self._watched.items() if one.process is not None}

    def _start(self, one: _Watched) -> None:
        # A group of its own: the terminal's Ctrl-C is for the supervisor, which then ends its programs, once.
        one.started, one.since = time.monotonic(), time.time()
        one.starts += 1
        try:
            one.process = subprocess.Popen(one.program.command(), process_group=0)  # noqa: S603  ours, without a shell
        except OSError as error:  # too many processes, or no memory for one: it may pass
            self._pause(one, f"could not be started ({error.strerror})")
        self._write()

    def _ended(self, one: _Watched, code: int) -> bool:
        program, now = one.program, time.monotonic()
        one.process, one.since = None, time.time()
        if code in program.final:
            return False
        if code not in program.refused:
            one.refused_since = None
        elif one.refused_since is None:
            one.refused_since = one.started
        if one.refused_since is not None and now - one.refused_since > program.patience:
            _say(f"{program.name}: refused for {program.patience:.0f} s. Its own lines above say why; start it again")
            return False
        self._pause(one, ending(code))
        for other in self._watched.values():
            if other.program.ends_with == program.name and other.process is not None:
                _end([other.process])
                other.process, other.last_end, other.since = None, f"ended with {program.name}", time.time()
        self._write()
        return True

    def _pause(self, one: _Watched, why: str) -> None:
        now = time.monotonic()
        lasted = now - one.started > LONG_LIFE
        one.pause = FIRST_PAUSE if lasted or not one.pause else min(2 * one.pause, LONGEST_PAUSE)
        one.not_before, one.last_end = now + one.pause, why
        _say(f"{one.program.name} {why}; starting it again in {one.pause:g} s")

    def _end_all(self) -> None:
        _end([one.process for one in self._watched.values() if one.process is not None])
        (self._folder / PROCESSES).unlink(missing_ok=True)

    def _write(self) -> None:
        programs = [
            {
                "name": one.program.name,
                "pid": None if one.process is None else one.process.pid,
                "since": one.since,
                "restarts": max(0, one.starts - 1),
                "last_end": one.last_end,
            }
            for one in self._watched.values()
        ]
        described = {"supervisor": os.getpid(), "programs": programs}
        try:
            write_text(self._folder / PROCESSES, json.dumps(described, indent=2) + "\n")
        except OSError as error:  # a full disk: the programs are kept alive without a description
            _say(f"{PROCESSES} cannot be written ({error.strerror}); hemoscope federated status is out of date")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop.set()

        kept = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-code}"


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, and end those that have not after ``GRACE``."""
    end = time.monotonic() + GRACE
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
