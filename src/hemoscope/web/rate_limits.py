"""How often one client may ask: a token bucket a client, in the memory of one process.

Several web processes count apart, so the site's limit is that of one process times their number; a reverse proxy is the
place for a stricter one. An address is kept until its bucket is full again, at most ``_CLIENTS`` of them.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

_CLIENTS = 10_000


class RateLimiter:
    """Lets ``per_minute`` requests of a client through at once, and as many each minute from then on.

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
        """Take one from the client's bucket; 0 if there was one, else the seconds until there is."""
        now, client = self._clock(), _network(client)
        level, since = self._buckets.pop(client, (self._capacity, now))
        level = min(self._capacity, level + (now - since) * self._per_second)
        allowed = level >= 1
        self._buckets[client] = (level - 1 if allowed else level, now)
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - level) / self._per_second


def _network(client: str) -> str:
    """What one client can choose its address in: the /64 of IPv6, where every machine has a whole one (RFC 4291)."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4 or address.ipv4_mapped:
        return client
    return str(ipaddress.ip_network((address, 64), strict=False))
