"""Ends a SuperNode that waits for a reply that nobody will give, so that its supervisor starts it again.

Flower's SuperNode takes one message at a time and waits for its application's reply without an end. An application that
was killed before it had fetched the message, or while it sent the reply, leaves it waiting for ever; so does one that
ended with an error before it had the message. A SuperNode that takes its leave is counted as away, and the server is
told that the message is lost: it need not wait for the round's deadline.

The launcher of an application holds a lock as long as the application lives, and says in the locked file whether it
ended in order (``working``). What the SuperNode does is read from the lines that it logs.
"""

import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hemoscope.federated.flower_internals import RECEIVING, REPLY_OVER, SENDING

APPLICATION_LOCK = "application.lock"  # in the folder of Flower's own files (FLWR_HOME)
PATIENCE = 30.0  # seconds without an application; on a busy machine its launcher may take some of them to start
_LOOK = 1.0
_IN_ORDER = b"ended in order\n"


class ReplyWatch:
    """Follows a SuperNode's log, and says when it waits in vain."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE) -> None:
        """Watch the application of this folder."""
        self._lock, self._clock, self._patience = folder / APPLICATION_LOCK, clock, patience
        self._waiting = self._sending = False
        self._alone_since = clock()

    def note(self, record: logging.LogRecord) -> bool:
        """A filter of the SuperNode's logger that keeps every line."""
        said = record.getMessage()
        if said.startswith(RECEIVING):
            self._waiting, self._sending, self._alone_since = True, False, self._clock()
        elif said.startswith(SENDING):
            self._sending = True
        elif any(part in said for part in REPLY_OVER):
            self._waiting = False
        return True

    def in_vain(self) -> bool:
        """Whether a reply is awaited, and there was nobody to give it for ``patience``."""
        if not self._waiting or not self._nobody_works():
            self._alone_since = self._clock()
        return self._clock() - self._alone_since > self._patience

    def _nobody_works(self) -> bool:
        """Whether no application lives. One that ended in order left its whole reply; sending that may take long."""
        try:
            with self._lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return not (self._sending and file.read() == _IN_ORDER)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False


def watch_replies(folder: Path, give_up: Callable[[], None]) -> None:
    """Call ``give_up`` once, from another thread, when the SuperNode of this process waits in vain."""
    watch = ReplyWatch(folder)

    def look() -> None:
        while not watch.in_vain():
            time.sleep(_LOOK)
        sys.stderr.write("the application ended without a reply; leaving the server, which asks again\n")
        sys.stderr.flush()
        give_up()

    logging.getLogger("flwr").addFilter(watch.note)
    threading.Thread(target=look, name="reply-watch", daemon=True).start()


@contextmanager
def working(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold an application's lock, whatever ends this process; yields what to call when it ended in order."""
    descriptor = os.open(folder / APPLICATION_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.ftruncate(descriptor, 0)
        yield lambda: _say_in_order(descriptor)
    finally:
        os.close(descriptor)


def _say_in_order(descriptor: int) -> None:
    os.pwrite(descriptor, _IN_ORDER, 0)
