"""TLS: only peers with a certificate of the site's authority get in, and a silent one keeps nobody waiting."""

import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import pytest

from hemoscope.pacs import association_server
from hemoscope.pacs.node import DicomNode
from hemoscope.store.node_settings import Tls

from .authority import Authority
from .conftest import dcmtk

pytestmark = pytest.mark.reference_tool("openssl", "echoscu")
Start = Callable[..., DicomNode]
WAIT_S = 60.0
Tool = Callable[[str], Path]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def node(authority: Authority, start_node: Start) -> DicomNode:
    return secured(authority, start_node)


def secured(authority: Authority, start_node: Start, **settings: float) -> DicomNode:
    certificate, key = authority.issue("hemoscope")
    return start_node(tls=Tls(certificate=certificate, key=key, authorities=authority.certificate), **settings)


def echo(node: DicomNode, tool: Tool, issued: tuple[Path, Path], authority: Authority) -> int:
    certificate, key = issued
    return dcmtk(tool("echoscu"), node, "+tls", key, certificate, "+cf", authority.certificate)


def test_a_peer_with_a_certificate_gets_in(node: DicomNode, authority: Authority, reference_tool: Tool) -> None:
    assert echo(node, reference_tool, authority.issue("pacs"), authority) == 0


def test_a_strangers_certificate_does_not(
    node: DicomNode, authority: Authority, tmp_path: Path, reference_tool: Tool
) -> None:
    stranger = Authority(tmp_path / "stranger")
    assert echo(node, reference_tool, stranger.issue("pacs"), authority) != 0


def test_a_peer_without_tls_or_without_a_certificate_does_not(node: DicomNode, reference_tool: Tool) -> None:
    assert dcmtk(reference_tool("echoscu"), node) != 0
    assert dcmtk(reference_tool("echoscu"), node, "+tla", "-ic") != 0


def test_silent_connections_keep_nobody_waiting(node: DicomNode, authority: Authority, reference_tool: Tool) -> None:
    with ExitStack() as idle:
        for _ in range(20):
            idle.enter_context(socket.create_connection(node.address, timeout=60))
        assert echo(node, reference_tool, authority.issue("pacs"), authority) == 0


def test_handshakes_that_do_not_end_cost_no_more_threads_than_an_address_may_have(
    authority: Authority, start_node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither limit of time ends them here."""
    monkeypatch.setattr(association_server, "_HANDSHAKE_SECONDS", 600.0)
    node = secured(authority, start_node, negotiation_seconds=600)
    before = threading.active_count()
    with ExitStack() as idle:
        for _ in range(40):
            idle.enter_context(socket.create_connection(node.address, timeout=WAIT_S)).sendall(b"\x16\x03\x01")
        end = monotonic() + WAIT_S
        while (threads := threading.active_count() - before) > 8 and monotonic() < end:
            sleep(0.05)
        assert threads <= 8


def test_a_handshake_that_drips_ends_with_the_time_of_negotiation(
    authority: Authority, start_node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte would begin the handshake's own limit anew."""
    monkeypatch.setattr(association_server, "_HANDSHAKE_SECONDS", 600.0)
    node = secured(authority, start_node, negotiation_seconds=1)
    with socket.create_connection(node.address, timeout=WAIT_S) as slow:
        slow.sendall(b"\x16\x03\x01")
        assert slow.recv(1) == b""


def test_renewed_certificates_need_no_restart(
    node: DicomNode, authority: Authority, tmp_path: Path, reference_tool: Tool
) -> None:
    other = Authority(tmp_path / "other")
    renewed = other.issue("hemoscope")
    for new, old in zip((*renewed, other.certificate), ("hemoscope.pem", "hemoscope.key", "ca.pem"), strict=True):
        shutil.copy(new, authority.folder / f"{old}.new")
        (authority.folder / f"{old}.new").replace(authority.folder / old)
    assert echo(node, reference_tool, other.issue("pacs"), other) == 0
