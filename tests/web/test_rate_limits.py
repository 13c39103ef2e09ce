"""How often one client may send requests, whatever addresses it can choose from."""

import pytest

from hemoscope.web.rate_limits import AccountLimiter, RateLimiter


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("unknown", "unknown", True),
    ],
)
def test_a_client_cannot_begin_anew_from_another_address_of_its_own_network(
    first: str, second: str, same: bool
) -> None:
    limiter = RateLimiter(per_minute=1, clock=lambda: 0.0)
    assert limiter.wait_s(first) == 0
    assert (limiter.wait_s(second) > 0) is same


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("per_minute", "wait_s"), [(1, 60.0), (3, 20.0), (8, 7.5)])
def test_the_wait_is_exactly_the_time_until_the_next_request_is_allowed(per_minute: int, wait_s: float) -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute=per_minute, clock=clock)
    assert [limiter.wait_s("a") for _ in range(per_minute)] == [0.0] * per_minute
    assert limiter.wait_s("a") == pytest.approx(wait_s)
    assert limiter.wait_s("a") == pytest.approx(wait_s), "a refused request costs nothing"
    clock.now = wait_s / 4
    assert limiter.wait_s("a") == pytest.approx(wait_s * 3 / 4)
    clock.now = wait_s * 0.999
    assert 0 < limiter.wait_s("a") == pytest.approx(wait_s / 1000)
    clock.now = wait_s * 1.001
    assert limiter.wait_s("a") == 0.0


def test_a_bucket_never_holds_more_than_one_minute_of_requests() -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute=2, clock=clock)
    assert limiter.wait_s("a") == 0.0
    clock.now = 3600.0
    assert [limiter.wait_s("a") for _ in range(3)] == [0.0, 0.0, 30.0]


@pytest.mark.parametrize(
    ("client", "familiar"),
    [
        ("192.0.2.200", True),
        ("::ffff:192.0.2.9", True),
        ("192.0.3.7", False),
        ("2001:db8:1:ffff::1", True),
        ("2001:db8:2::1", False),
        ("unknown", False),
    ],
)
def test_who_comes_from_where_anybody_has_logged_in_is_familiar(client: str, familiar: bool) -> None:
    limiter = AccountLimiter(per_minute=1)
    assert not limiter.familiar(client)
    limiter.succeeded("agnes", "192.0.2.7")
    limiter.succeeded("agnes", "2001:db8:1:2::3")
    assert limiter.familiar(client) is familiar


def test_strangers_who_try_passwords_neither_get_many_nor_lock_the_user_out() -> None:
    clock = Clock()
    limiter = AccountLimiter(per_minute=3, clock=clock)
    limiter.succeeded("agnes", "192.0.2.1")
    strangers = [f"198.51.100.{number}" for number in range(9)]
    waits = [limiter.wait_s("agnes", address) for address in strangers]
    assert [wait > 0 for wait in waits] == [False] * 3 + [True] * 6
    assert limiter.wait_s("agnes", "192.0.2.1") == 0, "where she has logged in before"
    assert limiter.wait_s("bruno", strangers[0]) == 0
    assert limiter.wait_s("agnes", "192.0.2.2") == pytest.approx(20), "elsewhere she waits, but not for long"
    clock.now = 20.0
    assert limiter.wait_s("agnes", "192.0.2.2") == 0
