"""Bodies of requests must arrive at a least rate; the time that the server itself takes to read on does not count.

What an answer leaves unread of a body is never read: the connection is closed.
"""

import asyncio
import time
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemoscope.store.settings import Settings
from hemoscope.web.connections import CONNECTION, LimitedConnection
from hemoscope.web.problems import Problem

_LINGER_S = 1.0  # closing at once would reset the connection, and the client might lose the answer


class SlowBodies:
    """ASGI middleware, the outermost: ends requests with slow bodies, and tells the connection of each request."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        """Wrap ``app``."""
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body timed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = scope.get("state", {}).get(CONNECTION)
        timed = _TimedBody(receive, send, self._settings)
        if not isinstance(connection, LimitedConnection):
            await self._app(scope, timed.receive, timed.send)
            return
        with connection.request():
            answer = _Answer(timed, connection, Headers(scope=scope))
            await self._app(scope, timed.receive, answer.send)
            await answer.end()


class _Answer:
    """One answer; if it begins before the whole body has arrived, the connection is closed after it."""

    def __init__(self, body: "_TimedBody", connection: LimitedConnection, headers: Headers) -> None:
        self._body = body
        self._connection = connection
        self._has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._expects = "expect" in headers  # to receive would ask the client for the body
        self._closing = False
        self._held_open = False

    async def send(self, message: Message) -> None:
        """Send on, but hold the end back where a body is unread, so that uvicorn does not close at once."""
        if message["type"] == "http.response.start":
            self._closing = self._has_body and not await self._body.arrived(ask=not self._expects)
            if self._closing:
                self._connection.ignore_rest()
                MutableHeaders(scope=message)["Connection"] = "close"
        elif self._closing and not message.get("more_body", False):
            self._held_open = True
            message = {**message, "more_body": True}
        await self._body.send(message)

    async def end(self) -> None:
        """Give the client time to take the answer, then let uvicorn close the connection."""
        if self._held_open:
            await asyncio.sleep(_LINGER_S)
            await self._body.send({"type": "http.response.body", "body": b"", "more_body": False})


class _TimedBody:
    """One body: in each ``body_seconds`` spent waiting for it, ``least_rate`` times as many bytes must arrive."""

    def __init__(self, receive: Receive, send: Send, settings: Settings) -> None:
        self._receive = receive
        self._send = send
        self._rate = settings.least_rate
        self._seconds = settings.body_seconds
        self._waited = 0.0
        self._received = 0
        self._complete = False
        self._answered = False

    async def send(self, message: Message) -> None:
        """Note that an answer has begun: after that, a slow body can no longer be answered with a problem."""
        self._answered = True
        await self._send(message)

    async def arrived(self, *, ask: bool) -> bool:
        """Whether the whole body is here; a short one that nobody read mostly came together with the headers."""
        if ask and not self._complete:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    self._complete = not (await self._receive()).get("more_body", False)
        return self._complete

    async def receive(self) -> Message:
        """Return the next part of the body. Raises Problem 408."""
        if self._complete:
            return await self._receive()  # waits for the client to close the connection, however long
        while True:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(max(self._seconds - self._waited, 0)):
                    message = await self._receive()
            except TimeoutError:
                if self._received < self._rate * self._seconds:
                    return self._too_slow()
                self._waited, self._received = 0.0, 0
                continue
            self._waited += time.monotonic() - begun
            self._received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            return message

    def _too_slow(self) -> Message:
        self._complete = True
        if self._answered:
            return {"type": "http.disconnect"}
        raise Problem(
            408,
            code="body_too_slow",
            detail=f"Less than {self._rate * self._seconds:.0f} bytes of the body arrived within {self._seconds:g} s.",
            remedy="Check the network and try again, or ask an administrator to lower --least-rate",
            headers={"Connection": "close"},
        )
