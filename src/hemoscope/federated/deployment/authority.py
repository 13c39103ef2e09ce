"""The federation's authority, kept offline: it makes everybody's keys and signs the app that sites run.

A site's Flower runs nothing that the signing key has not signed, so that key lies on no server: whoever takes a server
over can hold a federation up, and can send no site other code. A server gets the signature of one app and no more; the
app is a stub of two files, so most updates of hemoscope need no new signature.
"""

import ipaddress
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.keys import key_id, read_signing_key
from hemoscope.federated.deployment.signed_app import build_app, sign_app, write_signature
from hemoscope.files import atomic_folder, new_file

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825  # the longest that common TLS clients accept of a private authority
_SITE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ALWAYS = ("localhost", "127.0.0.1", "::1")  # the server's own processes speak to it on loopback


def make_keys(folder: Path, *, servers: Sequence[str], sites: Sequence[str], app: Path | None = None) -> None:
    """Make the keys of a new federation and sign its app; the folder appears whole or not at all.

    Args:
        folder: where they go; must not exist.
        servers: names and addresses by which sites reach the server; loopback's are always added.
        sites: names of the sites: small letters, digits and hyphens.
        app: the folder of the app; our stub if None.

    Raises:
        FederationError: the folder exists, a name cannot be used, or there is no app.

    """
    if folder.exists():
        raise FederationError(f"{folder.name} exists, and keys are never overwritten. Name a new folder, or delete it.")
    _check_names(servers, sites)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as whole:
        certificate, private = _make_authority()
        _write_key(whole / "authority" / "ca.key", _pem(private))
        _write_server(whole / "server", certificate, private, servers)
        signing = ed25519.Ed25519PrivateKey.generate()
        _write_key(whole / "authority" / "signing.key", _openssh(signing))
        (whole / "server" / "signing.pub").write_text(_openssh_public(signing.public_key()) + "\n")
        for site in sites:
            _write_site(whole, site, certificate, signing.public_key())
        sign_again(whole, app=app)


def sign_again(folder: Path, *, app: Path | None = None) -> Path:
    """Sign the app of the installed hemoscope for a federation's server, on the machine that keeps its authority.

    Args:
        folder: of ``make_keys``; ``authority`` must be in it, ``server`` may be elsewhere by now.
        app: the folder of the app; our stub if None.

    Returns:
        The signature's file, to be copied into the server's folder of keys.

    Raises:
        FederationError: the signing key is not there, or readable by others; or there is no app.

    """
    signed = sign_app(build_app(app), read_signing_key(folder / "authority"))
    server = folder / "server"
    server.mkdir(exist_ok=True, mode=0o700)
    return write_signature(server, signed)


def _check_names(servers: Sequence[str], sites: Sequence[str]) -> None:
    wrong = [name for name in sites if not _SITE_NAME.fullmatch(name)]
    if wrong or len(set(sites)) != len(sites) or not sites:
        raise FederationError(
            f"sites {', '.join(sites) or '(none)'}: each needs a name of its own in small letters, digits and hyphens"
        )
    if not servers:
        raise FederationError("no name of the server: sites check it. Give --server NAME_OR_IP")


def _make_authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    private = ec.generate_private_key(ec.SECP384R1())
    name = _name("Hemoscope federation authority")
    builder = _dated(name, name, private.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    return builder.sign(private, hashes.SHA384()), private


def _write_server(
    folder: Path, authority: x509.Certificate, signer: ec.EllipticCurvePrivateKey, servers: Sequence[str]
) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    public = private.public_key()
    builder = _dated(authority.subject, _name("Hemoscope federation server"), public, SERVER_DAYS)
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys((*servers, *_ALWAYS))]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    _write_key(folder / "server.key", _pem(private))
    (folder / "server.crt").write_bytes(builder.sign(signer, hashes.SHA384()).public_bytes(serialization.Encoding.PEM))
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))


def _write_site(whole: Path, site: str, authority: x509.Certificate, signs: ed25519.Ed25519PublicKey) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    folder = whole / "sites" / site
    _write_key(folder / "node.key", _openssh(private))
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    # JSON is YAML.
    (folder / "trusted.yaml").write_text(json.dumps({key_id(signs): _openssh_public(signs)}, indent=2) + "\n")
    registered = whole / "server" / "sites" / f"{site}.pub"
    registered.parent.mkdir(exist_ok=True, mode=0o700)
    registered.write_text(_openssh_public(private.public_key()) + "\n")


def _dated(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(tz=UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(hours=1),  # clocks differ
        not_valid_after=now + timedelta(days=days),
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise FederationError(f"server {name!r} is neither an address nor an ASCII host name") from error


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _openssh(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _openssh_public(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def _write_key(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with new_file(path, mode=0o600) as file:
        file.write(content)
