"""The keys of a federation, judged by OpenSSL and OpenSSH's own programs and by a real TLS handshake."""

import json
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.authority import make_keys
from hemoscope.federated.deployment.keys import read_server_keys, read_signing_key, read_site_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation") / "keys"
    make_keys(folder, servers=["fl.example.org", "10.1.2.3"], sites=["riverside", "hilltop"])
    return folder


@pytest.fixture
def own_keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", servers=["localhost"], sites=["riverside"])
    return tmp_path / "keys"


def test_each_party_gets_a_folder_with_what_it_needs_and_no_more(keys: Path) -> None:
    found = {str(path.relative_to(keys)) for path in keys.rglob("*") if path.is_file()}
    server = {
        "ca.crt",
        "server.crt",
        "server.key",
        "signing.pub",
        "app.json",
        "sites/riverside.pub",
        "sites/hilltop.pub",
    }
    site = {"ca.crt", "node.key", "trusted.yaml"}
    expected = {f"server/{name}" for name in server} | {"authority/ca.key", "authority/signing.key"}
    expected |= {f"sites/{name}/{file}" for name in ("riverside", "hilltop") for file in site}
    assert found == expected


def test_no_private_key_can_be_read_by_others(keys: Path) -> None:
    private = sorted(keys.rglob("*.key"))
    assert len(private) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in private} == {0o700}


def test_no_two_sites_share_a_key(keys: Path) -> None:
    server = read_server_keys(keys / "server")
    assert sorted(server.sites) == ["hilltop", "riverside"]
    assert len(set(server.sites.values())) == 2


@pytest.mark.reference_tool("openssl")
def test_openssl_accepts_the_servers_certificate_under_each_of_its_names(
    keys: Path, reference_tool: Callable[[str], Path]
) -> None:
    for option, name in (
        ("-verify_hostname", "fl.example.org"),
        ("-verify_ip", "10.1.2.3"),
        ("-verify_ip", "127.0.0.1"),
    ):
        verify = [str(reference_tool("openssl")), "verify", "-x509_strict", "-purpose", "sslserver", option, name]
        verify += ["-CAfile", str(keys / "sites/riverside/ca.crt"), str(keys / "server/server.crt")]
        done = subprocess.run(verify, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    verify[verify.index("127.0.0.1")] = "10.9.9.9"
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0


@pytest.mark.reference_tool("ssh-keygen")
def test_openssh_reads_a_sites_key_and_finds_the_public_half_that_the_server_has(
    keys: Path, reference_tool: Callable[[str], Path]
) -> None:
    command = [str(reference_tool("ssh-keygen")), "-y", "-f", str(keys / "sites/riverside/node.key")]
    public = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert public.split()[:2] == (keys / "server/sites/riverside.pub").read_text().split()[:2]
    assert public.startswith("ecdsa-sha2-nistp384")


def test_a_sites_authority_makes_a_tls_connection_to_the_server_and_another_federations_does_not(
    keys: Path, own_keys: Path
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(keys / "server/server.crt", keys / "server/server.key")
    assert shake_hands(server, keys / "sites/riverside/ca.crt") == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, own_keys / "sites/riverside/ca.crt")


def shake_hands(server: ssl.SSLContext, authority: Path) -> str | None:
    """The TLS version of a connection to ``fl.example.org`` over a pair of sockets."""
    near, far = socket.socketpair()

    def answer() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:  # the other side hung up
            far.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        client = ssl.create_default_context(cafile=str(authority))
        with client.wrap_socket(near, server_hostname="fl.example.org") as connection:
            return connection.version()
    finally:
        near.close()
        thread.join()


def test_keys_are_never_overwritten(keys: Path) -> None:
    before = (keys / "server/server.key").read_bytes()
    with pytest.raises(FederationError, match="keys exists, and keys are never overwritten"):
        make_keys(keys, servers=["localhost"], sites=["riverside"])
    assert (keys / "server/server.key").read_bytes() == before


@pytest.mark.parametrize("sites", [[], ["river side"], ["../up"], ["twice", "twice"], ["Capital"]])
def test_a_name_of_a_site_that_cannot_be_a_folder_of_its_own_is_refused(tmp_path: Path, sites: list[str]) -> None:
    with pytest.raises(FederationError, match="needs a name of its own"):
        make_keys(tmp_path / "keys", servers=["localhost"], sites=sites)
    assert not (tmp_path / "keys").exists()


def test_a_server_without_a_name_or_with_an_impossible_one_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="no name of the server"):
        make_keys(tmp_path / "keys", servers=[], sites=["riverside"])
    with pytest.raises(FederationError, match="neither an address nor an ASCII host name"):
        make_keys(tmp_path / "keys", servers=["klinik-süd.example"], sites=["riverside"])
    assert not list(tmp_path.iterdir())


def test_a_private_key_that_others_can_read_is_refused_with_the_remedy(own_keys: Path) -> None:
    (own_keys / "sites/riverside/node.key").chmod(0o640)
    with pytest.raises(FederationError, match=r"mode 0640: others could read it\. chmod 600 node\.key"):
        read_site_keys(own_keys / "sites/riverside")
    (own_keys / "server/server.key").chmod(0o604)
    with pytest.raises(FederationError, match=r"chmod 600 server\.key"):
        read_server_keys(own_keys / "server")


def test_a_folder_that_lacks_a_file_is_refused_by_name(own_keys: Path) -> None:
    (own_keys / "sites/riverside/trusted.yaml").unlink()
    with pytest.raises(FederationError, match=r"riverside has no trusted\.yaml.*Ask the federation\'s coordinator"):
        read_site_keys(own_keys / "sites/riverside")
    (own_keys / "server/sites/riverside.pub").unlink()
    with pytest.raises(FederationError, match="no site may connect"):
        read_server_keys(own_keys / "server")


def test_a_key_of_another_kind_is_refused(own_keys: Path) -> None:
    signing, node = own_keys / "authority/signing.key", own_keys / "sites/riverside/node.key"
    kept = node.read_bytes()
    node.write_bytes(signing.read_bytes())
    with pytest.raises(FederationError, match=r"node\.key is not an elliptic-curve key"):
        read_site_keys(node.parent)
    signing.write_bytes(kept)
    with pytest.raises(FederationError, match=r"signing\.key is not an Ed25519 key"):
        read_signing_key(signing.parent)
    signing.write_text("no key")
    with pytest.raises(FederationError, match="not a private key in OpenSSH's format"):
        read_signing_key(signing.parent)
    public = own_keys / "server/signing.pub"
    public.write_text((own_keys / "server/sites/riverside.pub").read_text())
    with pytest.raises(FederationError, match=r"signing\.pub is not an Ed25519 key"):
        read_server_keys(own_keys / "server")


def test_a_server_that_holds_the_signing_key_does_not_start(own_keys: Path) -> None:
    (own_keys / "authority/signing.key").rename(own_keys / "server/signing.key")
    with pytest.raises(
        FederationError, match=r"signing\.key lies with the server: .* keep their authority folder offline"
    ):
        read_server_keys(own_keys / "server")


def test_a_sites_public_key_must_be_one_that_flower_admits(own_keys: Path) -> None:
    public = own_keys / "server/sites/riverside.pub"
    trusted = json.loads((own_keys / "sites/riverside/trusted.yaml").read_text())
    public.write_text(next(iter(trusted.values())))  # Ed25519
    with pytest.raises(FederationError, match=r"riverside\.pub is not an elliptic-curve key"):
        read_server_keys(own_keys / "server")
    public.write_text("nothing")
    with pytest.raises(FederationError, match="not a public key in OpenSSH's format"):
        read_server_keys(own_keys / "server")
