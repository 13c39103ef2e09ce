"""How many connections are admitted, and from where."""

import logging

import pytest

from hemoscope.store.settings import Settings
from hemoscope.web.connections import Connections


def admitting(**settings: object) -> Connections:
    return Connections(Settings(users="users", **settings), None)  # type: ignore[arg-type]


def test_an_address_and_all_together_have_a_number_of_connections() -> None:
    connections = admitting(connections=4, connections_per_address=2)
    first = [connections.enter("192.0.2.1") for _ in range(3)]
    assert first == ["192.0.2.1", "192.0.2.1", None]
    others = [connections.enter(f"2001:db8:0:{number}::1") for number in range(3)]
    assert others == ["2001:db8::/64", "2001:db8:0:1::/64", None]
    connections.leave("192.0.2.1")
    assert connections.enter("192.0.2.1")


def test_an_ipv6_client_has_one_number_for_its_network() -> None:
    connections = admitting(connections_per_address=1)
    assert connections.enter("2001:db8::1")
    assert connections.enter("2001:db8::2") is None


@pytest.mark.parametrize("proxy", ["192.0.2.1", "192.0.2.0/24", "*", "not-an-address"])
def test_a_trusted_proxy_is_limited_only_together_with_all(proxy: str) -> None:
    connections = admitting(connections=3, connections_per_address=1, trusted_proxy=(proxy,))
    admitted = [connections.enter("192.0.2.1") is not None for _ in range(4)]
    trusted = proxy != "not-an-address"
    assert admitted == [True, trusted, trusted, False]
    assert connections.enter("unknown") is None or not trusted


def test_refused_connections_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    connections = admitting(connections=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            connections.enter("192.0.2.1")
    assert [record.message for record in caplog.records] == [
        "too many connections: 1 are open, 1 of them from 192.0.2.1; refused since the last such line: 1"
    ]
