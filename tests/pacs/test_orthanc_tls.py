"""TLS with a real archive, both ways: who has no certificate of the site's authority gets in nowhere."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .authority import Authority
from .hospital import SC, SR, Hospital, modality

pytestmark = [
    pytest.mark.journey,
    pytest.mark.reference_tool("Orthanc", "storescu", "echoscu", "openssl"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network of its own"),
    pytest.mark.timeout(600),
]
NODE = """
[node]
ae_title = "HEMOSCOPE"
port = 11112
quiet_seconds = 2

[results]
hold_incomplete_seconds = 0

[tls]
certificate = "{0}/hemoscope.pem"
key = "{0}/hemoscope.key"
authorities = "{0}/ca.pem"

[[peer]]
ae_title = "PACS"
addresses = ["127.0.0.1"]

[[peer]]
ae_title = "ECHOSCU"
addresses = ["127.0.0.1"]

[[destination]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242
tls = true
"""
# Twenty connections that say nothing stay open while the archive's C-ECHO is answered.
ECHO_BESIDE_IDLE = """
import socket, urllib.request
idle = [socket.create_connection(("127.0.0.1", 11112)) for _ in range(20)]
urllib.request.urlopen("http://127.0.0.1:8042/modalities/hemoscope/echo", b"{}", timeout=60).read()
def still_open(one):
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
print(sum(map(still_open, idle)))
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, authority: Authority) -> Iterator[Hospital]:
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed: apt-get install iproute2")
    authority.issue("hemoscope")
    certificate, key = authority.issue("orthanc")
    with ExitStack() as running:
        here = Hospital(tmp_path_factory.mktemp("hospital"), running)
        here.orthanc(
            {"AET": "HEMOSCOPE", "Host": "127.0.0.1", "Port": 11112, "UseDicomTls": True},
            DicomTlsEnabled=True,
            DicomTlsCertificate=str(certificate),
            DicomTlsPrivateKey=str(key),
            DicomTlsTrustedCertificates=str(authority.certificate),
            DicomTlsRemoteCertificateRequired=True,
        )
        here.listen(NODE.format(authority.folder))
        here.serve(tiny_bundle)
        yield here


def with_tls(authority: Authority, name: str, trusted: Path) -> tuple[object, ...]:
    certificate, key = authority.issue(name)
    return ("+tls", key, certificate, "+cf", trusted)


def echo(hospital: Hospital, *options: object) -> bool:
    command = ("echoscu", "-v", "-aec", "HEMOSCOPE", *options, "127.0.0.1", 11112)
    return "(Success)" in hospital.run(*command, check=False)


def test_images_and_results_travel_over_tls(hospital: Hospital, authority: Authority, tmp_path: Path) -> None:
    study = modality(tmp_path / "images", seed=31, slices=6)
    command = hospital.store_images(tmp_path / "images", to="PACS")
    hospital.run(command[0], *with_tls(authority, "modality", authority.certificate), *command[1:])
    hospital.until("results in the archive", lambda: set(hospital.results(study)) >= {SR, SC})
    assert hospital.log("hemoscope-listen").count("listens as") == 1
    hospital.check_logs()


def test_a_stranger_and_a_peer_without_certificate_or_tls_stay_out(
    hospital: Hospital, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    assert echo(hospital, *with_tls(authority, "peer", authority.certificate))
    assert not echo(hospital, *with_tls(stranger, "peer", authority.certificate))
    assert not echo(hospital, "+tla", "-ic")
    assert not echo(hospital)


def test_an_echo_is_answered_while_twenty_connections_say_nothing(hospital: Hospital) -> None:
    """Some still wait when the echo has been answered; those beyond the limit of their address were ended for it."""
    still_open = int(hospital.run(sys.executable, "-I", "-c", ECHO_BESIDE_IDLE))
    assert 0 < still_open <= 8
