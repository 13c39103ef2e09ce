"""The queue for hashing passwords, which takes memory and a tenth of a second each: few at a time, and few that wait.

Who logs in where the same user did before goes first, then who comes from a network from which somebody did, then the
others. If the queue is full, a login takes the place of the newest of a lower rank, or of the newest of its own rank
from the network that has most places, if that has at least two more; otherwise it is answered with 503. So a flood from
a few networks leaves room for every other one, and a flood from many leaves room where people work.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum

from hemoscope.web.problems import Problem


class Rank(IntEnum):
    """What is known of the address of a login; the lowest goes first."""

    KNOWN = 0  # this user has logged in from this address
    FAMILIAR = 1  # somebody has logged in from its network
    STRANGE = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A login that waits; oldest first in the queue."""

    rank: Rank
    network: str
    turn: "asyncio.Future[bool]"


class LoginQueue:
    """The queue of one process."""

    def __init__(self, *, at_a_time: int, waiting: int) -> None:
        """Allow so many hashes at a time, and so many that wait."""
        self._free = at_a_time
        self._most = waiting
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def place(self, *, rank: Rank, network: str) -> AsyncIterator[None]:
        """Wait for a place within the block. Raises Problem 503 if too many wait."""
        if self._free:
            self._free -= 1
        elif not await self._turn(rank, network):
            raise _too_many()
        try:
            yield
        finally:
            self._release()

    async def _turn(self, rank: Rank, network: str) -> bool:
        """Wait; False if there is no place to wait, or another login took it."""
        if len(self._waiting) >= self._most:
            loser = self._loser(rank, network)
            if loser is None:
                return False
            self._waiting.remove(loser)
            _settle(loser.turn, granted=False)
        one = _Waiting(rank, network, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        try:
            return await one.turn
        except asyncio.CancelledError:
            if not one.turn.cancelled() and one.turn.result():
                self._release()
            elif one in self._waiting:
                self._waiting.remove(one)
            raise

    def _loser(self, rank: Rank, network: str) -> _Waiting | None:
        """Who gives its place to a login of this rank and network."""
        lowest = max(one.rank for one in self._waiting)
        if lowest > rank:
            return next(one for one in reversed(self._waiting) if one.rank == lowest)
        alike = [one for one in self._waiting if one.rank == rank]
        places = Counter(one.network for one in alike)
        most = max(places.values(), default=0)
        if most < places[network] + 2:
            return None
        return next(one for one in reversed(alike) if places[one.network] == most)

    def _release(self) -> None:
        while self._waiting:
            first = min(self._waiting, key=lambda one: one.rank)  # of several, the oldest
            self._waiting.remove(first)
            if _settle(first.turn, granted=True):
                return
        self._free += 1


def _settle(turn: "asyncio.Future[bool]", *, granted: bool) -> bool:
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
