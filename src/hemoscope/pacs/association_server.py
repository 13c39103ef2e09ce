"""pynetdicom's server with what an open network port needs: bounded PDUs, TLS in its own thread, limits per address.

A connection waits until it gets one of the places for associations, before its request is answered. Of those that
wait, each address may have a few; a further one closes the oldest, so that idle sockets keep nobody out. Waiting
connections end soon anyway (``acse_timeout``), and without TLS they cost one thread each until their request is there.
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

from hemoscope.pacs.bounded_sockets import BoundedSocket, BoundedTLSSocket, Budget

_log = logging.getLogger("hemoscope.pacs")
_HANDSHAKE_SECONDS = 5.0
_WAITING_OF_AN_ADDRESS = 8
_MOST_WAITING = 64
_LOCAL_LIMIT_EXCEEDED = (2, 3, 2)  # rejected for now, by the presentation related provider (PS3.8 9.3.4)
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
            if not over and len(self._waiting) >= _MOST_WAITING:
                over = [next(iter(self._waiting))]
            closing = [self._waiting.pop(other)[0] for other in over]
            self._waiting[address] = (connection, monotonic())
        for one in closing:
            one.end()

    def associate(self, address: _Address, *, most: int) -> bool:
        """Give a connection that waits one of ``most`` places for associations; False if none is free."""
        with self._lock:
            if len(self._associated) >= most or address not in self._waiting:
                return False
            self._associated[address], _ = self._waiting.pop(address)
            return True

    def rejected(self, address: _Address) -> None:
        """Take the place of a connection back, which then has its time of waiting to end."""
        with self._lock:
            found = self._associated.pop(address, None)
            if found is not None:
                self._waiting[address] = (found, monotonic())

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
            one.end()
            self.remove(address)


class BoundedAssociationServer(ThreadedAssociationServer):
    """An association server for ``AE.make_server(server_class=...)``.

    ``tls`` returns the context of the moment, so that renewed certificates need no restart; None for no TLS. ``admits``
    says whether an address may connect at all. ``most_bytes`` is the most that a peer may send before an answer, and
    ``budget`` counts what all have sent.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        *arguments: Any,
        tls: Callable[[], ssl.SSLContext] | None,
        admits: Callable[[str], bool],
        most_bytes: int,
        budget: Budget,
        **options: Any,
    ) -> None:
        """Start to listen, with the arguments of pynetdicom's server."""
        self._tls = tls
        self._admits = admits
        self._most_bytes = most_bytes
        self._budget = budget
        entity = arguments[0]
        self._waiting_s = float(entity.acse_timeout)
        # pynetdicom ends idle associations itself, in time for both sides to know.
        self._connections = Connections(waiting_s=self._waiting_s, idle_s=2 * entity.network_timeout)
        super().__init__(*arguments, **options)
        self.bind(evt.EVT_REJECTED, lambda event: self._connections.rejected(_peer(event)))
        self.bind(evt.EVT_CONN_CLOSE, lambda event: self._connections.remove(_peer(event)))

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, at once: TLS begins in the connection's own thread."""
        assert self.socket is not None, "it listens"
        accepted, address = self.socket.accept()
        bounded = BoundedSocket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        bounded.settimeout(self.ae.network_timeout)
        bounded.most_bytes, bounded.budget = self._most_bytes, self._budget
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
            connection = self._secured(request, client_address[:2])
            self._connections.add(client_address[:2], connection)
            if isinstance(connection, BoundedTLSSocket) or connection.has_request(self._waiting_s):
                self.finish_request(connection, client_address)
                return
        except Exception as error:  # noqa: BLE001 - a peer may send anything; the others go on
            _log.warning("a connection ended before its association: %s", type(error).__name__)
        self._connections.remove(client_address[:2])
        self.shutdown_request(request)

    def associate(self, event: evt.Event, *, most: int) -> None:
        """Give the association that an event requests one of ``most`` places, or reject it if none is free.

        pynetdicom would count the threads of connections that have no association yet, or none any more, too.
        """
        if self._connections.associate(_peer(event), most=most):
            return
        _log.warning("an association was rejected: there are %d, as many as most_associations allows", most)
        event.assoc.acse.send_reject(*_LOCAL_LIMIT_EXCEEDED)
        event.assoc.kill()  # returns once the peer, or the time limit, has ended the connection

    def end(self) -> None:
        """Stop to listen; associations go on."""
        # pynetdicom's own shutdown wants a server that its application entity started.
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def _secured(self, request: BoundedSocket, address: _Address) -> _Connection:
        if self._tls is None:
            return request
        context = self._tls()
        context.sslsocket_class = BoundedTLSSocket
        request.settimeout(_HANDSHAKE_SECONDS)
        secured = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        assert isinstance(secured, BoundedTLSSocket), "as the context was told"
        # It has taken the descriptor: only by this one can a handshake that is idle, or one too many, be ended.
        self._connections.add(address, secured)
        try:
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        secured.settimeout(self.ae.network_timeout)
        secured.most_bytes, secured.budget = self._most_bytes, self._budget
        return secured

    def shutdown_request(self, request: Any) -> None:
        """End a connection; None is one that pynetdicom's other thread has closed since the caller looked at it."""
        if request is not None:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Log without the address and without a traceback, whose messages may quote what was sent."""
        _log.warning("a connection failed")

    def service_actions(self) -> None:
        """End idle connections; socketserver calls this twice a second."""
        super().service_actions()
        self._connections.end_idle()


def _peer(event: evt.Event) -> _Address:
    return event.assoc.requestor.address, event.assoc.requestor.port
