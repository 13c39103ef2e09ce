"""Threads that others depend on: they outlive every error, and say whether they still do their work."""

import logging
import random
import threading
from collections.abc import Callable
from time import monotonic

_log = logging.getLogger("hemoscope.store")
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


class Backoff:
    """Pauses after errors: each up to twice as long as the last, at most five seconds, spread at random."""

    def __init__(self) -> None:
        """Begin with the shortest pause."""
        self._longest = _FIRST_PAUSE_S

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._longest = _FIRST_PAUSE_S

    def next_pause_s(self) -> float:
        """Return the next pause, at random from half of its longest, so that processes do not all return at once."""
        pause = random.uniform(self._longest / 2, self._longest)  # noqa: S311 - no secret
        self._longest = min(2 * self._longest, _LONGEST_PAUSE_S)
        return pause


class Vitals:
    """When a loop was last seen at work; ``watched`` loops are what ``/health`` looks at."""

    def __init__(self, name: str, *, stuck_after_s: float) -> None:
        """Name the loop; ``stuck_after_s`` is more than any of its steps may take."""
        self.name = name
        self._stuck_after_s = stuck_after_s
        self._seen: float | None = None
        self._ended = False

    def seen(self) -> None:
        """Note that the loop is at work, if it had ended: again."""
        self._seen, self._ended = monotonic(), False

    def ended(self) -> None:
        """Note that the loop has ended."""
        self._ended = True

    @property
    def fault(self) -> str | None:
        """What is wrong with the loop: ``ended``, ``not started`` or ``stuck``; None if it works."""
        if self._ended:
            return "ended"
        if self._seen is None:
            return "not started"
        return "stuck" if monotonic() - self._seen > self._stuck_after_s else None


class BackgroundLoop:
    """Calls a function again and again in a thread; an error is logged by its class name, and tried again later."""

    def __init__(self, name: str, step: Callable[[], object], *, every_s: float, stuck_after_s: float) -> None:
        """Prepare a thread that calls ``step`` at once, then ``every_s`` seconds after it returned.

        A step that takes longer than ``stuck_after_s`` counts as stuck.
        """
        self.vitals = Vitals(name, stuck_after_s=stuck_after_s + max(every_s, _LONGEST_PAUSE_S))
        self._step = step
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.vitals.seen()
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after the current step; ``join`` waits for it."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            backoff, pause = Backoff(), 0.0
            while not self._stop.wait(pause):
                self.vitals.seen()
                pause = self._every_s if self._try(backoff) else backoff.next_pause_s()
        finally:
            self.vitals.ended()

    def _try(self, backoff: Backoff) -> bool:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001 - others depend on this thread: no error may end it
            _log.warning("%s: tried again after %s", self.vitals.name, described(error))
            return False
        backoff.reset()
        return True


def described(error: BaseException) -> str:
    """An error for the log: its class, and its code if it is the store's; a message may quote a value or a URL."""
    code = getattr(error, "code", None)
    return f"{type(error).__name__} ({code})" if isinstance(code, str) else type(error).__name__
