"""HTTP/1.1 as RFC 9112 has it: what a proxy in front may read in another way is refused, and the connection closed.

h11 still reads folded headers, lines that end in LF alone and versions that do not exist. It also reads a body of any
number of chunks of one byte, each of which takes as long as a thousand.
"""

import re
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hemoscope.web.problems import Problem
from hemoscope.web.security_headers import secured_headers

_VERSIONS = (b"1.0", b"1.1")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\n[ \t]")
# After the first chunks, their mean size may not be less: clients send kilobytes in a chunk.
_FREE_CHUNKS, _LEAST_MEAN = 1024, 64


class StrictConnection(h11.Connection):
    """The server's side of one connection, which also refuses what h11 tolerates."""

    def __init__(self) -> None:
        """Start before the first request."""
        super().__init__(h11.SERVER)
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> Any:
        """Return the next event. Raises RemoteProtocolError, which ends the connection."""
        before = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            _check_head(event, before[: len(before) - len(self.trailing_data[0])])
        elif isinstance(event, h11.Data):
            self._count(event)
        return event

    def _count(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._bytes += len(data.data)
        if self._chunks > _FREE_CHUNKS and self._bytes < _LEAST_MEAN * (self._chunks - 1):
            raise _malformed("the chunks of the body are too small")


class StrictHttp(H11Protocol):
    """uvicorn's protocol over a strict connection; requests that are no HTTP get a problem, as all others do."""

    def __init__(self, *arguments: Any) -> None:
        """Take the arguments of uvicorn's protocol."""
        super().__init__(*arguments)
        self.conn = StrictConnection()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Answer if that is still possible, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = _NO_HTTP.response()
            secured = {**secured_headers(self.scheme or "http"), "Cache-Control": "no-store", "Connection": "close"}
            added = [(name.encode(), value.encode()) for name, value in secured.items()]
            head = h11.Response(status_code=400, headers=[*answer.raw_headers, *added], reason=b"Bad Request")
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _check_head(request: h11.Request, head: bytes) -> None:
    if request.http_version not in _VERSIONS:
        raise _malformed("no such version")
    if _BARE_LF.search(head):
        raise _malformed("a line ends in LF alone")
    if _FOLDED.search(head):
        raise _malformed("a header is folded")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and request.http_version == b"1.0":
        raise _malformed("Transfer-Encoding in HTTP/1.0")


def _malformed(why: str) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError(why)


_NO_HTTP = Problem(
    400,
    code="malformed_request",
    detail="This is no request that HTTP/1.1 (RFC 9112) allows.",
    remedy="Send it again, well formed: no folded headers, lines that end in CRLF, chunks that are not tiny",
)
