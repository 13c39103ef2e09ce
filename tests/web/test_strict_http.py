"""What is no HTTP/1.1, or could be read in two ways, is refused over a real connection as a problem, and closed."""

import asyncio
import json
from collections.abc import Callable

import pytest
import uvicorn
from fastapi.testclient import TestClient
from uvicorn.server import ServerState

from hemoscope.store.settings import Settings
from hemoscope.web.connections import Connections

Rooms = Callable[..., TestClient]
HOST = b"Host: localhost\r\n"
CHUNKED = b"POST /api/v1/login HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + HOST


def exchanged(room: TestClient, request: bytes) -> bytes:
    """What a server with this application answers until it closes the connection, or is silent for a while."""

    async def run() -> bytes:
        config = uvicorn.Config(room.app, log_config=None, lifespan="off", ws="none")
        config.load()
        protocol, state = Connections(Settings(), None).protocol(), ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: protocol(config, state, {}, loop), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(request)
            try:
                async with asyncio.timeout(20):
                    return await reader.read()
            finally:
                writer.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health HTTP/1.1\r\n" + HOST + b"X: 1\r\n 2\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + HOST + b"X: 1\r\n\t2\r\n\r\n",
        b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n",
        b"GET /health HTTP/0.9\r\n" + HOST + b"\r\n",
        b"GET /health HTTP/1.1\nHost: localhost\n\n",
        b"POST /api/v1/login HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\r\n\r\n",
        CHUNKED + b"\r\nnot a length\r\n",
        CHUNKED + b"\r\n" + 2000 * b"1\r\n \r\n" + b"0\r\n\r\n",
    ],
    ids=[
        "folded with a space",
        "folded with a tab",
        "version 2",
        "version 0.9",
        "bare LF",
        "chunks in 1.0",
        "no host",
        "no HTTP",
        "no chunk",
        "tiny chunks",
    ],
)
def test_it_is_refused_as_a_problem_with_the_headers_of_every_answer(make_room: Rooms, request_bytes: bytes) -> None:
    answer = exchanged(make_room(), request_bytes + b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    for header in (b"content-security-policy: ", b"cache-control: no-store", b"connection: close", b"problem+json"):
        assert header in head.lower()
    assert json.loads(body)["code"] == "malformed_request", "the only answer: what follows is no request"


@pytest.mark.parametrize("chunk", [b"5\r\n     \r\n" * 500, b"40\r\n" + 64 * b" " + b"\r\n"], ids=["few", "large"])
def test_a_body_in_sound_chunks_is_read(make_room: Rooms, chunk: bytes) -> None:
    text = b"2\r\n{}\r\n0\r\n\r\n"
    answer = exchanged(make_room(), CHUNKED + b"Connection: close\r\n\r\n" + chunk + text)
    assert answer.startswith(b"HTTP/1.1 409"), "the server has no users"


@pytest.mark.parametrize(
    "host", ["localhost:80@evil.example", "evil@localhost", "[::1]evil", "localhost:port", "localhost/x", "local host"]
)
def test_a_host_header_that_is_no_host_is_refused(make_room: Rooms, host: str) -> None:
    answer = make_room().get("/health", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_host")
    assert answer.headers["Connection"] == "close"
