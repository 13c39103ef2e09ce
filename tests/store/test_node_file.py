"""The node's TOML: what it takes, and errors that name the file, the key and the remedy."""

from pathlib import Path

import pytest

from hemoscope.errors import ConfigError
from hemoscope.store.node_file import read_node_settings
from hemoscope.store.node_settings import NodeSettings, Peer

WHOLE = """
[node]
ae_title = "HEMOSCOPE"
port = 11112
quiet_seconds = 5

[[peer]]
ae_title = "CT1"
addresses = ["10.1.2.3", "10.2.0.0/16", "fd00::/8"]

[tls]
certificate = "node.pem"
key = "node.key"
authorities = "/etc/ca.pem"

[[rule]]
action = "ignore"
description = "bone|lung"
"""
DESTINATION = "[[destination]]\nname='archive'\nae_title='PACS'\nhost='10.1.2.3'\nport=104\n"


def read(folder: Path, text: str) -> NodeSettings:
    path = folder / "node.toml"
    path.write_text(text)
    return read_node_settings(path)


def test_every_table_is_read(tmp_path: Path) -> None:
    settings = read(tmp_path, WHOLE)
    assert (settings.node.quiet_seconds, settings.node.late_minutes) == (5, 60)
    assert settings.tls is not None
    assert settings.tls.certificate == tmp_path / "node.pem"
    assert settings.tls.authorities == Path("/etc/ca.pem")
    assert settings.rules[0].description == "bone|lung"


@pytest.mark.parametrize(
    ("address", "known"),
    [("10.1.2.3", True), ("10.2.9.9", True), ("10.3.0.1", False), ("fd12::1", True), ("::ffff:10.1.2.3", True)],
)
def test_a_peer_is_known_by_address_or_network(address: str, known: bool) -> None:
    peer = Peer(ae_title="CT1", addresses=("10.1.2.3", "10.2.0.0/16", "fd00::/8"))
    assert peer.comes_from(address) is known


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = 1", "no such table: nodes"),
        ("[node]\nae_titel = 'X'", "no such key: ae_titel"),
        ("[node]\nport = '1'", "node, port is a whole number, got '1'"),
        ("[node]\nport = true", "port is a whole number"),
        ("[node]\nae_title = 'SEVENTEEN_LETTERS'", "no AE title"),
        ("[node]\nquiet_seconds = 0", "quiet_seconds is at least 0.1"),
        ("[node]\nmost_image_mib = 4096", "most_receiving_mib is at least most_image_mib = 4096"),
        ("[peer]\nae_title = 'A'", "[[peer]]"),
        ("[[peer]]\nae_title = 'A'", "addresses is missing"),
        ("[[peer]]\nae_title = 'A'\naddresses = ['pacs']", "no address or network"),
        ("[[rule]]\naction = 'drop'", "read or ignore"),
        ("[[rule]]\naction = 'read'\ndescription = '('", "no regular expression"),
        ("[[code]]\nlabel='sah'\nvalue='1'\nscheme='99X'\nmeaning='x'", "no label 'sah'"),
        ("[[code]]\nlabel='any'\nvalue='1'\nscheme='99X'\nmeaning='é'", "printable ASCII"),
        ("[node]\nport = 70000", "port is at most 65535"),
        (f"{DESTINATION}keep_days = inf", "keep_days above 0, at most 3650"),
        (f"{DESTINATION}commitment = true", "Add it as [[peer]]"),
        ("[results]\nhold_incomplete_seconds = -1", "hold_incomplete_seconds is 0 to 3600"),
        ("[results]\nresend_days = 4000", "resend_days 0 to 3650"),
        ("not toml", "Give a TOML file"),
    ],
)
def test_a_mistake_is_named_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert said in str(raised.value)
    assert "node.toml" in str(raised.value)
