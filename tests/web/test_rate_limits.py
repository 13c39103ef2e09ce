"""How often one client may ask, whatever addresses it can choose from."""

import pytest

from hemoscope.web.rate_limits import RateLimiter


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
