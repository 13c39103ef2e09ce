"""Attempts to log in are counted for all processes that share a database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from hemoscope.store import login_attempts
from hemoscope.store.store import Store

Opened = Callable[..., Store]
Clock = Callable[[float], None]
ADDRESS, ACCOUNT = {"address 192.0.2.1": 2}, {"account agnes": 3}


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """``set_clock(seconds)``: the database's clock stands there."""

    def build(seconds: float) -> None:
        moment = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=seconds)
        monkeypatch.setattr(login_attempts, "server_time", lambda _connection: moment)

    build(0)
    return build


def test_two_processes_give_one_address_and_one_account_no_more_attempts_than_one(
    opened: Opened, set_clock: Clock
) -> None:
    stores = [opened(), opened()]
    assert [stores[turn % 2].count_login(ADDRESS) for turn in range(4)] == [0, 0, 30, 30]
    others = [{f"address 192.0.2.{number}": 2, **ACCOUNT} for number in range(2, 6)]
    assert [stores[turn % 2].count_login(one) for turn, one in enumerate(others)] == [0, 0, 0, 20]
    set_clock(20)
    assert stores[1].count_login(others[-1]) == 0
    assert stores[0].count_login(ADDRESS) == pytest.approx(10)


@pytest.mark.parametrize("jump_s", [-3600, 61, 3600])
def test_a_clock_that_is_set_locks_nobody_out(store: Store, set_clock: Clock, jump_s: float) -> None:
    assert [store.count_login(ADDRESS) for _ in range(3)] == [0, 0, 30]
    set_clock(jump_s)
    assert [store.count_login(ADDRESS) for _ in range(3)] == [0, 0, 30]


def test_the_table_holds_a_minute_and_nothing_that_may_be_a_password(store: Store, set_clock: Clock) -> None:
    typed = "a password in the wrong field"
    for second in range(0, 300, 10):
        set_clock(second)
        names = {f"address 192.0.2.{second}": 5, login_attempts.account_name(typed, known=False): 5}
        store.count_login(names)
    with store.database.reading() as connection:
        names = [row.name for row in connection.execute(login_attempts._attempts.select())]
    assert len(names) <= 8
    assert not [name for name in names if typed in name]
