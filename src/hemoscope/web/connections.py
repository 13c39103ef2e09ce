"""Connections: how many at a time, and how long a client may take to send a request or to take an answer.

uvicorn has no such limits: a client that never ends its headers, or never reads an answer, keeps its connection. The
class that uvicorn makes for each connection (its option ``http``) is therefore one of ours, which counts and times, and
passes everything on to uvicorn's own. It also does the TLS handshake, so that this counts and takes no longer either.
"""

import asyncio
import ipaddress
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from hemoscope.store.settings import Settings
from hemoscope.web.rate_limits import network_of
from hemoscope.web.strict_http import StrictHttp

CONNECTION = "hemoscope_connection"
_LOGGED_AGAIN_S = 60.0
_READ_AT_ONCE = 16 << 10  # parsed in one go, while nobody else is served: tiny chunks take long to parse

_log = logging.getLogger(__name__)


class Connections:
    """The connections of one process, counted by address; ``tls`` is used for those that come from now on."""

    def __init__(self, settings: Settings, tls: ssl.SSLContext | None) -> None:
        """Start without any."""
        self.settings = settings
        self.tls = tls
        self._of_address: Counter[str] = Counter()
        self._open = 0
        self._refused = 0
        self._logged = float("-inf")
        self._proxies = _networks(settings.trusted_proxy)

    def enter(self, peer: str) -> str | None:
        """Count a connection, and return what ``leave`` takes; None if there are too many.

        A trusted proxy's connections are limited only together with all others: they are those of its clients.
        """
        address = network_of(peer)
        of_address = self._of_address[address]
        crowded = of_address >= self.settings.connections_per_address and not self._is_proxy(peer)
        if crowded or self._open >= self.settings.connections:
            self._log_refusal(address)
            return None
        self._open += 1
        self._of_address[address] += 1
        return address

    def leave(self, address: str) -> None:
        """Count a connection as closed."""
        self._open -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def protocol(self) -> type[asyncio.Protocol]:
        """The class that uvicorn makes for each connection."""
        counted = self

        class Counted(LimitedConnection):
            connections = counted

        return cast("type[asyncio.Protocol]", Counted)  # asyncio takes either kind, uvicorn's annotation names one

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in proxy for proxy in self._proxies)

    def _log_refusal(self, address: str) -> None:
        self._refused += 1
        if time.monotonic() - self._logged >= _LOGGED_AGAIN_S:
            self._logged = time.monotonic()
            _log.warning(
                "too many connections: %d are open, %d of them from %s; refused since the last such line: %d",
                *(self._open, self._of_address[address], address, self._refused),
            )
            self._refused = 0


class LimitedConnection(asyncio.BufferedProtocol):
    """One connection: admitted or closed at once, and closed when its client is too slow.

    Headers, with the TLS handshake before the first ones, must arrive within ``header_seconds``. An answer must be
    taken at ``least_rate``, measured over each ``body_seconds``. ``SlowBodies`` limits the bodies of requests.
    asyncio fills one small buffer at a time, so that other clients are served between two of them.
    """

    connections: Connections

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Make uvicorn's own protocol; requests find this connection in their ``state``."""
        self._http: asyncio.Protocol = StrictHttp(config, server_state, {**app_state, CONNECTION: self}, _loop)
        self._loop = _loop or asyncio.get_running_loop()
        self._transports: list[asyncio.Transport] = []
        self._address: str | None = None
        self._passed_on = False
        self._early = bytearray()
        self._buffer = memoryview(bytearray(_READ_AT_ONCE))
        self._ignoring = False
        self._requests = 0
        self._writing_paused = False
        self._headers = _Timer(self._loop)
        self._answer = _Timer(self._loop)
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or close it."""
        tcp = cast("asyncio.Transport", transport)
        self._transports.append(tcp)
        peer = tcp.get_extra_info("peername")
        self._address = self.connections.enter(str(peer[0]) if peer else "unknown")
        if self._address is None:
            tcp.abort()
            return
        self._time_headers()
        if self.connections.tls is None:
            self._pass_on(tcp)
        else:
            tcp.pause_reading()  # nothing may be read before the handshake
            self._handshake = self._loop.create_task(self._shake_hands(tcp, self.connections.tls))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio names it)
        """Where asyncio puts the next bytes: never more than are parsed at once."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass bytes on; the first of a new request begin the time of its headers."""
        data = bytes(self._buffer[:nbytes])
        if self._ignoring:
            self._transports[-1].pause_reading()  # uvicorn may have resumed it
            return
        if not self._passed_on:
            self._early += data  # came together with the end of the handshake
            return
        if not self._requests and not self._headers.running:
            self._time_headers()
        self._http.data_received(data)

    def ignore_rest(self) -> None:
        """Read and parse no more: the connection is closed after the answer that is being sent."""
        self._ignoring = True
        if self._address is not None:
            self._transports[-1].pause_reading()

    def eof_received(self) -> bool | None:
        """Pass it on: uvicorn closes the connection."""
        return self._http.eof_received() if self._passed_on else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._leave()
        if self._passed_on:
            self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not keep up: from now on it must take bytes at the least rate."""
        self._writing_paused = True
        self._http.pause_writing()
        self._time_answer()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing_paused = False
        self._answer.stop()
        self._http.resume_writing()

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request with complete headers, until it is answered; two overlap for a moment if they are pipelined."""
        self._requests += 1
        self._headers.stop()
        if not self._writing_paused:
            self._answer.stop()  # what is unsent may grow again now: only while writing is paused can it only shrink
        try:
            yield
        finally:
            self._requests -= 1
            if self._unsent() and not self._answer.running:
                self._time_answer()

    def _pass_on(self, transport: asyncio.Transport) -> None:
        self._passed_on = True
        self._http.connection_made(transport)
        if self._early:
            self._http.data_received(bytes(self._early))
            self._early.clear()

    async def _shake_hands(self, tcp: asyncio.Transport, context: ssl.SSLContext) -> None:
        seconds = self.connections.settings.header_seconds
        try:
            tls = await self._loop.start_tls(
                tcp, self, context, server_side=True, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=seconds
            )
        except OSError:  # with ssl.SSLError: the client speaks no TLS, or went away
            tls = None
        if tls is None or self._address is None:
            tcp.abort()
            self._leave()
            return
        self._transports.append(tls)
        self._pass_on(tls)

    def _time_headers(self) -> None:
        self._headers.start(self.connections.settings.header_seconds, self._abort)

    def _time_answer(self) -> None:
        self._answer.start(self.connections.settings.body_seconds, partial(self._check_answer, self._unsent()))

    def _check_answer(self, before: int) -> None:
        settings, unsent = self.connections.settings, self._unsent()
        if unsent and before - unsent < settings.least_rate * settings.body_seconds:
            self._abort()
        elif unsent:
            self._time_answer()

    def _unsent(self) -> int:
        """Bytes that wait for the client, in the TLS layer too until that is being closed."""
        if self._address is None:
            return 0
        tcp, *tls = self._transports
        return tcp.get_write_buffer_size() + sum(one.get_write_buffer_size() for one in tls if not one.is_closing())

    def _abort(self) -> None:
        self._transports[0].abort()

    def _leave(self) -> None:
        self._headers.stop()
        self._answer.stop()
        address, self._address = self._address, None
        if address is not None:
            self.connections.leave(address)


class _Timer:
    """Calls once, unless it is stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._handle is not None

    def start(self, seconds: float, call: Callable[[], None]) -> None:
        self.stop()
        self._handle = self._loop.call_later(seconds, self._expire, call)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _expire(self, call: Callable[[], None]) -> None:
        self._handle = None
        call()


def _networks(proxies: Sequence[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Trusted proxies as uvicorn reads them: addresses, networks, ``*`` for any; what is neither matches no address."""
    if "*" in proxies:
        return (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    found = []
    for proxy in proxies:
        with suppress(ValueError):
            found.append(ipaddress.ip_network(proxy))
    return tuple(found)
