"""Sees that a process stands still: each of its threads waits for another one, and none is left that works.

Python 3.11 waits for ever in ``Thread.start`` if the new thread dies before its first instruction, for lack of memory;
a pool waits as long for a thread that died later. No error reaches anybody then, and no limit on memory ends it.
"""

import concurrent.futures.thread
import sys
import threading
import time

# Where a thread waits for another one, in this Python's own library; a pool's idle thread waits in ``_worker``.
_WAITING = {
    (threading.__file__, "wait"),
    (threading.__file__, "_wait_for_tstate_lock"),
    (threading.__file__, "join"),  # from Python 3.13 on
    (concurrent.futures.thread.__file__, "_worker"),
    (concurrent.futures.thread.__file__, "submit"),  # for the lock that a thread holds while it starts one
}
# What daemon threads and the system's own accounts use beside: a worker that computes uses far more, even starved.
_CPU_S, _CPU_SHARE = 0.01, 0.01


class Standstill:
    """Asked regularly by one daemon thread. Daemon threads serve the others: what they do does not count."""

    def __init__(self, *, after_s: float = 15.0) -> None:
        """Report a process that stood still for ``after_s`` seconds."""
        self._after_s = after_s
        self._used_s = 0.0
        self._since: float | None = None

    def lasts(self) -> bool:
        """Whether nothing but daemon threads ran, and nothing could, since ``after_s`` seconds."""
        used_s, now = time.process_time() - time.thread_time(), time.monotonic()
        if not _all_wait():
            self._since = None
        elif self._since is None or used_s - self._used_s > _CPU_S + _CPU_SHARE * (now - self._since):
            self._used_s, self._since = used_s, now
        return self._since is not None and now - self._since > self._after_s

    def reset(self) -> None:
        """Begin anew: there is nothing to do, so that waiting is right."""
        self._since = None


def _all_wait() -> bool:
    """Whether each thread but daemons waits in Python for another; a wait in native code is for the system's work."""
    daemons = {one.ident for one in threading.enumerate() if one.daemon}
    frames = sys._current_frames()
    codes = [frame.f_code for ident, frame in frames.items() if ident not in daemons]
    return all((code.co_filename, code.co_name) in _WAITING for code in codes)
