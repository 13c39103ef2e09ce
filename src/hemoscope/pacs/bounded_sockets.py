"""Sockets that end a connection whose PDU is too long or too slow, before its bytes fill the memory.

A PDU states its own length in its first six bytes (PS3.8 9.3.1), and pynetdicom collects that many. ``recv`` is the one
place through which all of them pass, in plain and in TLS connections.
"""

import logging
import select
import socket
import ssl
import struct
from contextlib import suppress
from threading import Lock
from time import monotonic, sleep
from typing import Any

_log = logging.getLogger("hemoscope.pacs")
_HEADER = struct.Struct(">BxI")
# What a peer may send: P-DATA of the size that we announce, and association requests with many presentation contexts.
MOST_PDU_BYTES = 1 << 20
# A PDU of the largest size in this time is 35 kB a second, less than any hospital's network.
PDU_SECONDS = 30.0


# Longer association requests are waited for by pynetdicom; real ones have some kilobytes.
_MOST_PEEKED = 32 << 10
_PEEK_AGAIN_S = 0.05
_ENDED = select.POLLHUP | select.POLLRDHUP | select.POLLERR


class Budget:
    """The bytes of all messages that are being received; one too many ends the connection with the longest message.

    So a peer that sends much at once, or never ends its messages, keeps nobody from sending images of usual size.
    """

    def __init__(self, most_bytes: int) -> None:
        """Begin without any message."""
        self._most = most_bytes
        self._held: dict[Bounded, int] = {}
        self._total = 0
        self._lock = Lock()

    def hold(self, connection: "Bounded", count: int) -> "Bounded | None":
        """Note that a connection's message has so many bytes; return the connection to end, None if all fit."""
        with self._lock:
            self._total += count - self._held.get(connection, 0)
            self._held[connection] = count
            if self._total <= self._most:
                return None
            longest = max(self._held, key=self._held.__getitem__)
            self._total -= self._held.pop(longest)
            return longest

    def release(self, connection: "Bounded") -> None:
        """Note that a connection holds no message any more."""
        with self._lock:
            self._total -= self._held.pop(connection, 0)


class Bounded:
    """Follows the PDUs in what is received; one that is too long or too slow raises ConnectionAbortedError.

    A message has many PDUs, and its sender waits for an answer before the next message (PS3.7 9.1.1.1), so what comes
    between two answers is one message: ``most_bytes`` limits it, and ``budget`` all messages together.
    """

    most_bytes = 1 << 30
    budget: Budget | None = None
    active_at = 0.0  # by the monotonic clock
    _left = 0
    _since_answer = 0
    _header = b""
    _deadline = float("inf")

    def _follow(self, received: bytes) -> None:
        self._since_answer += len(received)
        if self._since_answer > self.most_bytes:
            raise _ended("a message is longer than most_image_mib")
        self._hold()
        now = self.active_at = monotonic()
        if self._header or self._left:
            if now > self._deadline:
                raise _ended("a PDU took too long")
        else:
            self._deadline = now + PDU_SECONDS
        taken = min(self._left, len(received))
        self._left -= taken
        rest = received[taken:]
        while rest:
            needed = _HEADER.size - len(self._header)
            self._header, rest = self._header + rest[:needed], rest[needed:]
            if len(self._header) < _HEADER.size:
                return
            _, length = _HEADER.unpack(self._header)
            self._header = b""
            if length > MOST_PDU_BYTES:
                raise _ended("a PDU is longer than the limit")
            self._left = max(length - len(rest), 0)
            rest = rest[length:]

    def _hold(self) -> None:
        longest = None if self.budget is None else self.budget.hold(self, self._since_answer)
        if longest is None:
            return
        error = _ended("all messages together are longer than most_receiving_mib, and its was the longest")
        if longest is self:
            raise error
        longest.end()

    def _answered(self) -> None:
        """Begin a new message."""
        self._since_answer, self.active_at = 0, monotonic()
        if self.budget is not None:
            self.budget.release(self)

    def end(self) -> None:
        """End the connection; one that has ended is no error, since pynetdicom would not close it then."""
        if self.budget is not None:
            self.budget.release(self)
        with suppress(OSError):
            socket.socket.shutdown(self, socket.SHUT_RDWR)  # type: ignore[arg-type]  # both kinds below are sockets


def _ended(why: str) -> ConnectionAbortedError:
    """Log why a connection is ended, which pynetdicom does not, and return the error."""
    _log.warning("a connection was ended: %s", why)
    return ConnectionAbortedError(why)


class BoundedSocket(Bounded, socket.socket):
    """A connection without TLS."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive at most ``size`` bytes. Raises ConnectionAbortedError for a PDU that is too long or too slow."""
        received = super().recv(size, flags)
        self._follow(received)
        return received

    def has_request(self, seconds: float) -> bool:
        """Wait until the first PDU is here as a whole, and leave it there; False if the connection, or the time, ends.

        A thread of ours ends with its connection. Those of pynetdicom, which are two, do not notice it for a while.
        """
        end, poll = monotonic() + seconds, select.poll()
        poll.register(self, select.POLLIN | select.POLLRDHUP)
        while (left := end - monotonic()) > 0:
            events = dict(poll.poll(1000 * left)).get(self.fileno(), 0)
            head = super().recv(_HEADER.size, socket.MSG_PEEK | socket.MSG_DONTWAIT) if events & select.POLLIN else b""
            if len(head) == _HEADER.size:
                length = _HEADER.size + _HEADER.unpack(head)[1]
                if length > _MOST_PEEKED or len(super().recv(length, socket.MSG_PEEK)) == length:
                    return True
            if events & _ENDED:
                return False
            sleep(_PEEK_AGAIN_S)
        return False

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send bytes; an answer begins a new message."""
        self._answered()
        return super().send(data, flags)

    def shutdown(self, how: int, /) -> None:  # noqa: ARG002 - pynetdicom asks for both directions
        """End the connection."""
        self.end()


class BoundedTLSSocket(Bounded, ssl.SSLSocket):
    """A connection over TLS; ``SSLContext.sslsocket_class`` makes a context use it."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive at most ``buflen`` bytes. Raises ConnectionAbortedError for a PDU that is too long or too slow."""
        received = super().recv(buflen, flags)
        self._follow(received)
        return received

    def send(self, data: Any, flags: int = 0) -> int:
        """Send bytes; an answer begins a new message."""
        self._answered()
        return super().send(data, flags)

    def shutdown(self, how: int, /) -> None:  # noqa: ARG002 - pynetdicom asks for both directions
        """End the connection."""
        self.end()
