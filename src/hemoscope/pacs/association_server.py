"""pynetdicom's server with what an open network port needs: bounded PDUs, TLS in its own thread, limits per address.

A connection counts as waiting until its association is accepted. Of those, each address may have a few; a further one
closes the oldest, so that idle sockets keep nobody out. Waiting connections end soon anyway (``acse_timeout``).
"""

import logging
import socket
import socketserver
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any

from pynetdicom import evt
from pynetdicom.transport import ThreadedAssociationServer

from hemoscope.pacs.bounded_sockets import BoundedSocket, BoundedTLSSocket

_log = logging.getLogger("hemoscope.pacs")
_HANDSHAKE_SECONDS = 5.0
_WAITING_OF_AN_ADDRESS = 8
MOST_WAITING = 64
_Address = tuple[str, int]
_Connection = BoundedSocket | BoundedTLSSocket


class Connections:
    """Every connection, oldest first, and whether it still waits for its association."""

    def __init__(self, *, waiting_s: float, idle_s: float) -> None:
        """Begin without any; a connection may wait, and later be idle, for so long."""
        self._waiting_s, self._idle_s = waiting_s, idle_s
        self._waiting: OrderedDict[_Address, tuple[_Connection, float]] = OrderedDict()
        self._associated: dict[_Address, _Connection] = {}
        self._lock = threading.Lock()

    def add(self, address: _Address, connection: _Connection) -> None:
        """Add a connection that waits; close the oldest of its address, or of all, if there are too many."""
        with self._lock:
            self._waiting.pop(address, None)
            own = [other for other in self._waiting if other[0] == address[0]]
            over = own[: max(len(own) - _WAITING_OF_AN_ADDRESS + 1, 0)]
            if not over and len(self._waiting) >= MOST_WAITING:
                over = [next(iter(self._waiting))]
            closing = [self._waiting.pop(other)[0] for other in over]
            self._waiting[address] = (connection, monotonic())
        for one in closing:
            one.shutdown(socket.SHUT_RDWR)

    def associated(self, address: _Address) -> None:
        """Note that a connection has its association."""
        with self._lock:
            found = self._waiting.pop(address, None)
            if found is not None:
                self._associated[address] = found[0]

    @property
    def count(self) -> int:
        """How many have their association."""
        with self._lock:
            return len(self._associated)

    def remove(self, address: _Address) -> None:
        """Forget a connection; an unknown one is no error."""
        with self._lock:
            self._waiting.pop(address, None)
            self._associated.pop(address, None)

    def end_idle(self) -> None:
        """End connections that have waited, or been idle, for too long, whatever state pynetdicom holds them in."""
        now = monotonic()
        with self._lock:
            late = [(address, one) for address, (one, since) in self._waiting.items() if now - since > self._waiting_s]
            idle = [(address, one) for address, one in self._associated.items() if now - one.active_at > self._idle_s]
        for address, one in (*late, *idle):
            one.shutdown(socket.SHUT_RDWR)
            self.remove(address)


class BoundedAssociationServer(ThreadedAssociationServer):
    """An association server for ``AE.make_server(server_class=...)``.

    ``tls`` returns the context of the moment, so that renewed certificates need no restart; None for no TLS. ``admits``
    says whether an address may connect at all. ``most_bytes`` is the most that a peer may send before an answer.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        *arguments: Any,
        tls: Callable[[], ssl.SSLContext] | None,
        admits: Callable[[str], bool],
        most_bytes: int,
        **options: Any,
    ) -> None:
        """Start to listen, with the arguments of pynetdicom's server."""
        self._tls = tls
        self._admits = admits
        self._most_bytes = most_bytes
        entity = arguments[0]
        # pynetdicom ends idle associations itself, in time for both sides to know.
        self._connections = Connections(waiting_s=entity.acse_timeout, idle_s=2 * entity.network_timeout)
        super().__init__(*arguments, **options)
        self.bind(evt.EVT_ACCEPTED, lambda event: self._connections.associated(_peer(event)))
        self.bind(evt.EVT_CONN_CLOSE, lambda event: self._connections.remove(_peer(event)))

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, at once: TLS begins in the connection's own thread."""
        assert self.socket is not None, "it listens"
        accepted, address = self.socket.accept()
        bounded = BoundedSocket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        bounded.settimeout(self.ae.network_timeout)
        bounded.most_bytes = self._most_bytes
        return bounded, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the address may connect; if so, it waits for its association."""
        if not self._admits(client_address[0]):
            _log.warning("a connection was closed: its address is not that of a peer")
            return False
        self._connections.add(client_address[:2], request)
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Begin TLS, if there is any, then the association; whatever fails ends this connection alone."""
        try:
            connection = self._secured(request)
            self._connections.add(client_address[:2], connection)
            self.finish_request(connection, client_address)
        except Exception as error:  # noqa: BLE001 - a peer may send anything; the others go on
            _log.warning("a connection ended before its association: %s", type(error).__name__)
            self._connections.remove(client_address[:2])
            self.shutdown_request(request)

    @property
    def associations(self) -> int:
        """How many connections have their association."""
        return self._connections.count

    def end(self) -> None:
        """Stop to listen; associations go on."""
        # pynetdicom's own shutdown wants a server that its application entity started.
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def _secured(self, request: BoundedSocket) -> _Connection:
        if self._tls is None:
            return request
        context = self._tls()
        context.sslsocket_class = BoundedTLSSocket
        request.settimeout(_HANDSHAKE_SECONDS)
        secured = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        assert isinstance(secured, BoundedTLSSocket), "as the context was told"
        try:
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        secured.settimeout(self.ae.network_timeout)
        secured.most_bytes = self._most_bytes
        return secured

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Log without the address and without a traceback, whose messages may quote what was sent."""
        _log.warning("a connection failed")

    def service_actions(self) -> None:
        """End idle connections; socketserver calls this twice a second."""
        super().service_actions()
        self._connections.end_idle()


def _peer(event: evt.Event) -> _Address:
    return event.assoc.requestor.address, event.assoc.requestor.port
