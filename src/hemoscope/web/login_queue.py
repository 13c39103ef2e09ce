"""The queue for hashing passwords, which takes memory and a tenth of a second each: few at a time, and few that wait.

Who logs in where the same user did before goes first. If the queue is full, such a login takes the place of the newest
of the others; without one, it is answered with 503 as they are.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hemoscope.web.problems import Problem


class LoginQueue:
    """The queue of one process."""

    def __init__(self, *, at_a_time: int, waiting: int) -> None:
        """Allow so many hashes at a time, and so many that wait."""
        self._free = at_a_time
        self._most = waiting
        self._known: deque[asyncio.Future[bool]] = deque()
        self._strangers: deque[asyncio.Future[bool]] = deque()

    @asynccontextmanager
    async def place(self, *, known: bool) -> AsyncIterator[None]:
        """Wait for a place within the block. Raises Problem 503 if too many wait."""
        if self._free:
            self._free -= 1
        elif not await self._turn(known=known):
            raise _too_many()
        try:
            yield
        finally:
            self._release()

    async def _turn(self, *, known: bool) -> bool:
        """Wait; False if there is no place to wait, or it was taken by somebody who is known."""
        if len(self._known) + len(self._strangers) >= self._most:
            if not (known and self._strangers):
                return False
            _settle(self._strangers.pop(), granted=False)
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue = self._known if known else self._strangers
        queue.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                self._release()
            elif turn in queue:
                queue.remove(turn)
            raise

    def _release(self) -> None:
        while queue := self._known or self._strangers:
            if _settle(queue.popleft(), granted=True):
                return
        self._free += 1


def _settle(turn: asyncio.Future[bool], *, granted: bool) -> bool:
    """Let one go on; False if its request was cancelled at this moment."""
    if turn.done():
        return False
    turn.set_result(granted)
    return True


def _too_many() -> Problem:
    return Problem(
        503,
        code="too_many_logins_at_once",
        detail="More people log in at this moment than the server checks at a time.",
        remedy="Wait a few seconds and log in again",
        headers={"Retry-After": "5"},
    )
