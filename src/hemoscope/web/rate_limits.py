"""Rate limits: one token bucket per client, in the memory of one process.

Several web processes count separately, so the site's limit is that of one process times their number, except for
passwords (``store.login_attempts``); use a reverse proxy for a stricter one. At most ``_CLIENTS`` addresses are kept,
the least recent are dropped.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

_CLIENTS = 10_000
_Key = TypeVar("_Key", bound=Hashable)


class RateLimiter:
    """Allows a burst of ``per_minute`` requests of a client, then as many per minute.

    Examples:
        >>> limiter = RateLimiter(per_minute=2, clock=lambda: 0.0)
        >>> [limiter.wait_s("a") for _ in range(3)]
        [0.0, 0.0, 30.0]

    """

    def __init__(self, *, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with every bucket full."""
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Take a token from the client's bucket; return 0, or the seconds until there is one."""
        now, client = self._clock(), network_of(client)
        level, since = self._buckets.pop(client, (self._capacity, now))
        level = min(self._capacity, level + (now - since) * self._per_second)
        allowed = level >= 1
        self._buckets[client] = (level - 1 if allowed else level, now)
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - level) / self._per_second


class AccountLimiter:
    """Limits attempts to log in to one account, whatever their addresses, without locking its user out.

    An address from which somebody has logged in to the account is not limited by it: strangers who try passwords cannot
    keep the user away from the places where they work.
    """

    def __init__(self, *, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without any known address."""
        self._attempts = RateLimiter(per_minute=per_minute, clock=clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._neighbourhoods: OrderedDict[str, None] = OrderedDict()

    def wait_s(self, account: str, client: str) -> float:
        """Count an attempt; return 0, or the seconds to wait. Unknown names are counted like known ones."""
        return 0.0 if self.knows(account, client) else self._attempts.wait_s(account)

    def knows(self, account: str, client: str) -> bool:
        """Whether the account's user has logged in from this address."""
        return (account, network_of(client)) in self._known

    def succeeded(self, account: str, client: str) -> None:
        """Remember an address from which the account's user has logged in."""
        _remember(self._known, (account, network_of(client)))
        _remember(self._neighbourhoods, neighbourhood_of(client))

    def familiar(self, client: str) -> bool:
        """Whether anybody has logged in from the address's neighbourhood."""
        return neighbourhood_of(client) in self._neighbourhoods


def _remember(known: OrderedDict[_Key, None], key: _Key) -> None:
    known[key] = None
    known.move_to_end(key)
    while len(known) > _CLIENTS:
        known.popitem(last=False)


def network_of(client: str) -> str:
    """The network in which one client can choose its address: the /64 of IPv6 (RFC 4291), else the address itself."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4 or address.ipv4_mapped:
        return client
    return str(ipaddress.ip_network((address, 64), strict=False))


def neighbourhood_of(client: str) -> str:
    """What one organisation usually has: the /24 of IPv4, the /48 of IPv6 (RFC 6177), else the address itself.

    Examples:
        >>> neighbourhood_of("192.0.2.7"), neighbourhood_of("2001:db8:1:2::7")
        ('192.0.2.0/24', '2001:db8:1::/48')

    """
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 6 and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))
