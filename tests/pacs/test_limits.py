"""What connections together may take of threads and memory."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic, sleep

import pytest

from hemoscope.pacs.bounded_sockets import BoundedSocket, Budget
from hemoscope.pacs.node import DicomNode

Pair = Callable[[Budget], tuple[BoundedSocket, socket.socket]]
WAIT_S = 60.0
PDU = 1000


@pytest.fixture
def pair() -> Iterator[Pair]:
    """``pair(budget)``: our end of a connection, and that of its peer."""
    with ExitStack() as held:

        def build(budget: Budget) -> tuple[BoundedSocket, socket.socket]:
            ours, theirs = socket.socketpair()
            bounded = held.enter_context(BoundedSocket(ours.family, ours.type, ours.proto, fileno=ours.detach()))
            bounded.budget = budget
            return bounded, held.enter_context(theirs)

        yield build


def receive(ours: BoundedSocket, theirs: socket.socket, pdus: int) -> None:
    """Receive so many PDUs of one message."""
    for _ in range(pdus):
        theirs.sendall(struct.pack(">BxI", 4, PDU - 6) + bytes(PDU - 6))
        for _ in range(PDU // 100):
            assert len(ours.recv(100)) == 100


def test_the_longest_message_ends_if_all_together_are_too_long(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(4 * PDU)
    long, long_peer = pair(budget)
    short, short_peer = pair(budget)
    receive(long, long_peer, 3)
    receive(short, short_peer, 2)
    assert long_peer.recv(1) == b"", "it was ended"
    assert "most_receiving_mib" in caplog.text
    short.send(b"an answer")
    assert short_peer.recv(100) == b"an answer"
    receive(short, short_peer, 4)
    with pytest.raises(ConnectionAbortedError, match="most_receiving_mib"):
        receive(short, short_peer, 1)


def test_what_was_ended_makes_room(pair: Pair) -> None:
    budget = Budget(4 * PDU)
    for _ in range(5):
        ours, theirs = pair(budget)
        receive(ours, theirs, 3)
        ours.shutdown(socket.SHUT_RDWR)
    receive(*pair(budget), 4)


@pytest.mark.parametrize(
    "sent", [b"", b"\x01", struct.pack(">BxI", 1, 2000) + bytes(500)], ids=["none", "byte", "half"]
)
def test_idle_connections_cost_no_threads_once_they_are_closed(
    start_node: Callable[..., DicomNode], sent: bytes
) -> None:
    node = start_node(negotiation_seconds=600)  # none of them ends by itself
    before = threading.active_count()
    with ExitStack() as idle:
        for _ in range(60):
            idle.enter_context(socket.create_connection(node.address, timeout=WAIT_S)).sendall(sent)
        end = monotonic() + WAIT_S
        while (threads := threading.active_count() - before) > 8 and monotonic() < end:
            sleep(0.05)
        assert threads <= 8, "one for each connection of an address that may wait"
