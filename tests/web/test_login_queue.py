"""Who hashes a password next, and who is asked to come back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hemoscope.web.login_queue import LoginQueue, Rank
from hemoscope.web.problems import Problem


class Logins:
    """Logins in one queue that end when they are told to."""

    def __init__(self, queue: LoginQueue) -> None:
        self._queue = queue
        self._end: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.begun: list[str] = []
        self.refused: list[str] = []
        self.answers: list[tuple[int, str]] = []

    async def come(self, *names: str, rank: Rank = Rank.STRANGE, network: str = "") -> None:
        for name in names:
            self._end[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._log_in(name, rank, network))
            await settled()

    async def end(self, *names: str) -> None:
        for name in names:
            self._end[name].set()
            await settled()

    async def _log_in(self, name: str, rank: Rank, network: str) -> None:
        try:
            async with self._queue.place(rank=rank, network=network):
                self.begun.append(name)
                await self._end[name].wait()
        except Problem as problem:
            self.refused.append(name)
            self.answers.append((problem.status_code, dict(problem.headers or {})["Retry-After"]))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def with_logins(test: Callable[[Logins], Awaitable[None]], *, waiting: int = 2) -> None:
    async def run() -> None:
        await test(Logins(LoginQueue(at_a_time=1, waiting=waiting)))

    asyncio.run(run())


def test_few_wait_and_the_others_are_asked_to_come_back() -> None:
    async def test(logins: Logins) -> None:
        await logins.come("a", "b", "c", "d", "e")
        assert (logins.begun, logins.refused) == (["a"], ["d", "e"])
        assert logins.answers == [(503, "5")] * 2
        await logins.end("a", "b", "c")
        assert logins.begun == ["a", "b", "c"]
        await logins.come("f")
        assert logins.begun[-1] == "f", "every place is free again"

    with_logins(test)


def test_who_is_known_goes_first_and_takes_the_place_of_the_newest_stranger() -> None:
    async def test(logins: Logins) -> None:
        await logins.come("a", "b", "c")
        await logins.come("agnes", "bruno", "carla", rank=Rank.KNOWN)
        assert logins.refused == ["c", "b", "carla"]
        await logins.end("a", "agnes", "bruno")
        assert logins.begun == ["a", "agnes", "bruno"]

    with_logins(test)


def test_where_somebody_logged_in_before_a_new_user_goes_before_any_stranger() -> None:
    async def test(logins: Logins) -> None:
        await logins.come("a", "b", "c")
        await logins.come("nurse", rank=Rank.FAMILIAR)
        await logins.come("agnes", rank=Rank.KNOWN)
        await logins.come("d")
        assert logins.refused == ["c", "b", "d"]
        await logins.end("a", "agnes", "nurse")
        assert logins.begun == ["a", "agnes", "nurse"]

    with_logins(test)


@pytest.mark.parametrize("rank", Rank)
def test_a_flood_from_few_networks_leaves_a_place_for_every_other(rank: Rank) -> None:
    async def test(logins: Logins) -> None:
        for number in range(50):
            await logins.come(f"flood-{number}", rank=rank, network=f"of-the-flood-{number % 2}")
        await logins.come("new", rank=rank, network="of-a-hospital")
        await logins.come("another", rank=rank, network="of-another")
        assert not {"new", "another"} & set(logins.refused)
        before = list(logins.refused)
        for number in range(50, 100):
            await logins.come(f"flood-{number}", rank=rank, network=f"of-the-flood-{number % 2}")
        assert logins.refused == [*before, *(f"flood-{number}" for number in range(50, 100))]
        await logins.end(*logins.tasks)
        assert logins.begun[-2:] == ["new", "another"]

    with_logins(test, waiting=4)


@pytest.mark.parametrize("granted", [False, True], ids=["waiting", "just granted"])
def test_a_request_that_is_cancelled_keeps_no_place(*, granted: bool) -> None:
    async def test(logins: Logins) -> None:
        await logins.come("a", "b", "c")
        if granted:
            logins._end["a"].set()
            while "a" in logins.begun and not logins.tasks["a"].done():
                await asyncio.sleep(0)
        logins.tasks["b"].cancel()
        await settled()
        await logins.end("a")
        assert logins.begun[-1] == "c"
        await logins.end("c")
        await logins.come("d")
        assert logins.begun[-1] == "d"

    with_logins(test)
