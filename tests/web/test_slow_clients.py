"""Slow and greedy clients on real sockets: each loses its connection, and others are served all the while."""

import itertools
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from hemoscope.store.values import Role
from hemoscope.web.credentials import hash_token, write_entry

pytestmark = pytest.mark.journey

TIMEOUT_S = 120
HEADER_S, BODY_S, PER_ADDRESS, PER_USER = 2, 1, 320, 3
BOUNDARY = "a-boundary"
TOKENS = {name: f"{name}-token-0123456789abcdef" for name in ("agnes", "bruno")}


@dataclass(frozen=True, kw_only=True)
class Room:
    """A running server."""

    url: str
    storage: Path
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=TIMEOUT_S)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def open_sockets(self) -> int:
        """Connections that the server itself holds open, its listening socket among them."""
        links = Path(f"/proc/{self.pid}/fd").iterdir()
        found = 0
        for link in links:
            with suppress(OSError):
                found += str(link.readlink()).startswith("socket:")
        return found


def serving(folder: Path, bundle: Path, *options: str) -> Iterator[Room]:
    for name, token in TOKENS.items():
        write_entry(folder / "tokens", name, Role.READER, hash_token(token))
    limits = {
        "header-seconds": HEADER_S,
        "body-seconds": BODY_S,
        "least-rate": 20_000,
        "connections-per-address": PER_ADDRESS,
        "uploads-per-user": PER_USER,
    }
    command = [str(Path(sys.executable).with_name("hemoscope")), "serve", "--port", "0", "--workers", "0"]
    command += [
        "--storage",
        str(folder / "s"),
        "--model",
        str(bundle),
        "--token-file",
        str(folder / "tokens"),
        *options,
    ]
    command += [part for name, value in limits.items() for part in (f"--{name}", str(value))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    with process, ExitStack() as ending:
        ending.callback(process.kill)
        line = process.stdout.readline()
        found = re.search(r"https?://\S+", line)
        assert found, (folder / "log").read_text()
        yield Room(url=found[0], storage=folder / "s", pid=process.pid)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Room]:
    yield from serving(tmp_path_factory.mktemp("slow"), tiny_bundle)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def alive(connections: list[socket.socket]) -> int:
    """How many of these the server has not closed."""
    found = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            found += connection.recv(1 << 16) != b""
        except BlockingIOError:
            found += 1
        except OSError:
            pass
    return found


def opened(server: Room, number: int, first: bytes, stack: ExitStack) -> list[socket.socket]:
    connections = [stack.enter_context(server.connect()) for _ in range(number)]
    for connection in connections:
        with suppress(OSError):
            connection.sendall(first)
    return connections


def post(path: str, body: bytes, *, length: int | None = None, user: str = "agnes", kind: str = "") -> bytes:
    kind = kind or f"multipart/form-data; boundary={BOUNDARY}"
    head = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {TOKENS[user]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def part(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    "first",
    [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ", b"POST /api/v1/login HTTP/1.1\r\nX: 1\r\n"],
    ids=["nothing", "get", "post"],
)
def test_of_300_connections_without_complete_headers_none_stays_and_others_are_served(
    server: Room, first: bytes
) -> None:
    with ExitStack() as stack:
        slow = opened(server, 300, first, stack)
        assert server.get("/health").status_code == 200
        until(lambda: alive(slow) == 0)
        assert server.get("/health").status_code == 200


def drip(connection: socket.socket, text: bytes) -> None:
    """Send one byte after the other until the server has closed the connection."""
    with suppress(OSError):
        for letter in itertools.chain(text, itertools.repeat(ord("x"), 20_000)):
            connection.sendall(bytes([letter]))
            time.sleep(0.02)
    assert alive([connection]) == 0


def wait_header_time(server: Room) -> None:
    """Wait until a connection that is opened now has been closed for its headers."""
    with server.connect() as clock:
        until(lambda: alive([clock]) == 0)


def test_headers_that_arrive_byte_by_byte_are_cut_off_too(server: Room) -> None:
    with server.connect() as slow:
        drip(slow, b"GET /health HTTP/1.1\r\nX: ")


def test_a_connection_that_waits_between_requests_is_kept_but_not_the_next_half_request(server: Room) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with server.connect() as kept:
        for _ in range(2):
            kept.sendall(whole)
            assert read_answer(kept).startswith(b"HTTP/1.1 200")
            wait_header_time(server)
        kept.sendall(whole[:-5])
        until(lambda: alive([kept]) == 0)


def test_what_is_left_of_a_refused_body_does_not_keep_a_connection(server: Room) -> None:
    with server.connect() as slow:
        slow.sendall(post("/health", b"{", length=60_000))
        assert read_answer(slow).startswith(b"HTTP/1.1 405")
        drip(slow, b"")


@pytest.mark.parametrize("path", ["/health", "/login", "/api/v1/uploads"])
def test_a_body_that_is_still_coming_after_the_answer_ends_the_connection(server: Room, path: str) -> None:
    """Without a login; the chunks are tiny, which take longest to parse."""
    method = "POST" if path.endswith("uploads") else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as client:
        client.sendall(head.encode())
        answer = read_answer(client)
        assert answer.startswith(b"HTTP/1.1 401" if method == "POST" else b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        sent = send_all_it_takes(client, b"1\r\nx\r\n" * 10_000, most=100 << 20)
        assert sent < 100 << 20
    assert server.get("/health").status_code == 200


def test_a_request_with_two_lengths_is_refused_and_what_follows_is_no_request(server: Room) -> None:
    head = "POST /api/v1/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as client:
        client.sendall(head.encode() + b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""
        with suppress(ConnectionError):
            while more := client.recv(1 << 16):
                received += more
    assert received.startswith(b"HTTP/1.1 400")
    assert b"two_lengths" in received
    assert received.count(b"HTTP/1.1") == 1


def send_all_it_takes(connection: socket.socket, part: bytes, *, most: int) -> int:
    """Send until the server has closed the connection; return the number of bytes."""
    sent = 0
    with suppress(ConnectionError):
        while sent < most:
            sent += connection.send(part)
    return sent


def test_a_refused_body_that_came_with_its_headers_leaves_the_connection_open(server: Room) -> None:
    with server.connect() as kept:
        for _ in range(2):
            kept.sendall(post("/health", b"{}"))
            answer = read_answer(kept)
            assert answer.startswith(b"HTTP/1.1 405")
            assert b"connection: close" not in answer.lower()


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer that has a Content-Length."""
    answer = b""
    while (head := re.search(rb"(?is)content-length: (\d+).*?\r\n\r\n", answer)) is None or len(
        answer
    ) < head.end() + int(head[1]):
        received = connection.recv(1 << 16)
        assert received, answer
        answer += received
    return answer


@pytest.mark.parametrize("path", ["/api/v1/uploads", "/api/v1/login"])
def test_a_body_that_stalls_or_drips_is_refused_with_the_cause(server: Room, path: str) -> None:
    kind = "application/json" if path.endswith("login") else ""
    with server.connect() as slow:
        slow.sendall(post(path, b"", length=10_000, kind=kind))
        answer = b""
        slow.settimeout(0.1)
        while b"body_too_slow" not in answer:
            with suppress(TimeoutError):
                received = slow.recv(1 << 16)
                assert received, answer
                answer += received
            with suppress(OSError):
                slow.sendall(b"-")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()
    assert list(server.storage.glob("[0-9a-f]*/source/*")) == []


def test_one_user_cannot_hold_all_places_of_uploads(server: Room) -> None:
    """The slow bodies of one user are refused for the fourth; another user uploads meanwhile."""
    filler = part(b"x" * 600_000)  # at the least rate they have half a minute, in which the rest is asked
    with ExitStack() as stack:
        slow = opened(server, PER_USER, post("/api/v1/uploads", filler, length=10_000_000), stack)
        until(lambda: len(list(server.storage.glob("[0-9a-f]*/source"))) >= PER_USER)
        one_more = post("/api/v1/uploads", part(b"x") + END)
        with server.connect() as further:
            further.sendall(one_more)
            answer = read_answer(further)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 5" in answer.lower()
        files = [("files", ("x", b"content"))]
        headers = {"Authorization": f"Bearer {TOKENS['bruno']}"}
        other = httpx.post(f"{server.url}/api/v1/uploads", files=files, headers=headers, timeout=TIMEOUT_S)
        assert other.status_code == 202
        until(lambda: alive(slow) == 0)
    until(lambda: len(list(server.storage.glob("[0-9a-f]*/source"))) == 1)


def test_a_client_that_does_not_take_its_answers_is_closed(server: Room) -> None:
    before = server.open_sockets()
    ask = f"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKENS['agnes']}\r\n\r\n".encode()
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(("127.0.0.1", server.port))
        greedy.settimeout(0.2)
        with suppress(OSError):
            greedy.sendall(ask * 2000)
        until(lambda: server.open_sockets() <= before)


def test_one_address_has_a_limited_number_of_connections(server: Room) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with ExitStack() as stack:
        # Each asks as soon as it is there: one that waits for the others may be late with its headers.
        served = [asked for _ in range(PER_ADDRESS + 30) for asked in opened(server, 1, whole, stack)]
        until(lambda: sum(answered(one) for one in served) == PER_ADDRESS)
        other = socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.2", 0), timeout=TIMEOUT_S)
        with closing(other):
            other.sendall(whole)
            assert other.recv(1 << 16).startswith(b"HTTP/1.1 200")
    until(lambda: server.get("/health").status_code == 200)


def answered(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1 << 16, socket.MSG_PEEK).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def test_thousands_of_tiny_files_stop_soon_after_their_client(server: Room) -> None:
    with server.connect() as client:
        client.sendall(post("/api/v1/uploads", part(b"x") * 6000, length=100_000_000))
        until(lambda: len(list(server.storage.glob("[0-9a-f]*/source/000100"))) > 0)
    until(lambda: len(list(server.storage.glob("[0-9a-f]*/source/000001"))) <= 1)
    assert server.get("/health").status_code == 200
