"""Sockets that end a connection whose PDU is too long or too slow, before its bytes fill the memory.

A PDU states its own length in its first six bytes (PS3.8 9.3.1), and pynetdicom collects that many. ``recv`` is the one
place through which all of them pass, in plain and in TLS connections.
"""

import logging
import socket
import ssl
import struct
from contextlib import suppress
from time import monotonic
from typing import Any

_log = logging.getLogger("hemoscope.pacs")
_HEADER = struct.Struct(">BxI")
# What a peer may send: P-DATA of the size that we announce, and association requests with many presentation contexts.
MOST_PDU_BYTES = 1 << 20
# A PDU of the largest size in this time is 35 kB a second, less than any hospital's network.
PDU_SECONDS = 30.0


class Bounded:
    """Follows the PDUs in what is received; one that is too long or too slow raises ConnectionAbortedError.

    A message has many PDUs, and its sender waits for an answer before the next message (PS3.7 9.1.1.1), so what comes
    between two answers is one message: ``most_bytes`` limits it.
    """

    most_bytes = 1 << 30
    active_at = 0.0  # by the monotonic clock
    _left = 0
    _since_answer = 0
    _header = b""
    _deadline = float("inf")

    def _follow(self, received: bytes) -> None:
        self._since_answer += len(received)
        if self._since_answer > self.most_bytes:
            raise _ended("a message is longer than most_image_mib")
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

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send bytes; an answer begins a new message."""
        self._since_answer, self.active_at = 0, monotonic()
        return super().send(data, flags)

    def shutdown(self, how: int, /) -> None:
        """End the connection; one that has ended is no error, since pynetdicom would not close it then."""
        with suppress(OSError):
            super().shutdown(how)


class BoundedTLSSocket(Bounded, ssl.SSLSocket):
    """A connection over TLS; ``SSLContext.sslsocket_class`` makes a context use it."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive at most ``buflen`` bytes. Raises ConnectionAbortedError for a PDU that is too long or too slow."""
        received = super().recv(buflen, flags)
        self._follow(received)
        return received

    def send(self, data: Any, flags: int = 0) -> int:
        """Send bytes; an answer begins a new message."""
        self._since_answer, self.active_at = 0, monotonic()
        return super().send(data, flags)

    def shutdown(self, how: int, /) -> None:
        """End the connection; one that has ended is no error, since pynetdicom would not close it then."""
        with suppress(OSError):
            super().shutdown(how)
