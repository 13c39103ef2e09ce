"""The keys of a federation: who may connect to whom, and who may say what runs at a site.

* a certificate authority of the federation's own, and the server's certificate from it (TLS; X.509, RFC 5280),
* for each site a key pair on the curve P-384, in OpenSSH's format as Flower's SuperNode wants it: the server admits
  nobody else,
* an Ed25519 key pair that signs the app: a site runs nothing that this key has not signed.

The folder holds one part for the server and one for each site; a site's part goes to that site alone::

    FOLDER/authority/ca.key            keep offline: it makes certificates that every site trusts
    FOLDER/server/{ca.crt,server.crt,server.key,signing.key}, sites/NAME.pub
    FOLDER/sites/NAME/{ca.crt,node.key,trusted.yaml}

A site that would rather make its key itself sends ``ssh-keygen -t ecdsa -b 384``'s public half, to lie at
``server/sites/NAME.pub``.
"""

import hashlib
import ipaddress
import json
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hemoscope.errors import FederationError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825  # the longest that common TLS clients accept of a private authority
_SITE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ALWAYS = ("localhost", "127.0.0.1", "::1")  # the server's own processes speak to it on loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """What a server needs of its folder.

    Attributes:
        authority: the authority's certificate, PEM.
        certificate: the server's certificate, PEM.
        private_key: the private key of that certificate, PEM.
        signing_key: signs the app.
        sites: each admitted site's public key as PEM, by name.

    """

    authority: Path
    certificate: Path
    private_key: Path
    signing_key: ed25519.Ed25519PrivateKey
    sites: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteKeys:
    """What a site needs of its folder: paths, since Flower's SuperNode reads the files itself."""

    authority: Path
    private_key: Path
    trusted: Path


def make_keys(folder: Path, *, servers: Sequence[str], sites: Sequence[str]) -> None:
    """Make the keys of a new federation; the folder appears whole or not at all.

    Args:
        folder: where they go; must not exist.
        servers: names and addresses by which sites reach the server; loopback's are always added.
        sites: names of the sites: small letters, digits and hyphens.

    Raises:
        FederationError: the folder exists, or a name cannot be used.

    """
    if folder.exists():
        raise FederationError(f"{folder.name} exists, and keys are never overwritten. Name a new folder, or delete it.")
    _check_names(servers, sites)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".keys-") as scratch:
        whole = Path(scratch) / "keys"
        certificate, private = _make_authority()
        _write_key(whole / "authority" / "ca.key", _pem(private))
        _write_server(whole / "server", certificate, private, servers)
        signing = ed25519.Ed25519PrivateKey.generate()
        _write_key(whole / "server" / "signing.key", _openssh(signing))
        for site in sites:
            _write_site(whole, site, certificate, signing.public_key())
        shutil.move(whole, folder)


def read_server_keys(folder: Path) -> ServerKeys:
    """Read and check a server's folder.

    Raises:
        FederationError: a file is missing, readable by others, or not the key it must be; or there is no site.

    """
    signing = _load_private(folder / "signing.key")
    if not isinstance(signing, ed25519.Ed25519PrivateKey):
        raise FederationError("signing.key is not an Ed25519 key. Make keys anew: hemoscope federated keys")
    sites = {path.stem: _site_public_key(path) for path in sorted((folder / "sites").glob("*.pub"))}
    if not sites:
        raise FederationError("no site may connect: the server's folder has no sites/NAME.pub. Add each site's key.")
    return ServerKeys(
        authority=_present(folder / "ca.crt"),
        certificate=_present(folder / "server.crt"),
        private_key=_private(folder / "server.key"),
        signing_key=signing,
        sites=sites,
    )


def read_site_keys(folder: Path) -> SiteKeys:
    """Read and check a site's folder.

    Raises:
        FederationError: a file is missing, readable by others, or not the key it must be.

    """
    if not isinstance(_load_private(folder / "node.key"), ec.EllipticCurvePrivateKey):
        raise FederationError("node.key is not an elliptic-curve key. Make keys anew: hemoscope federated keys")
    return SiteKeys(
        authority=_present(folder / "ca.crt"),
        private_key=folder / "node.key",
        trusted=_present(folder / "trusted.yaml"),
    )


def key_id(public: ed25519.Ed25519PublicKey) -> str:
    """The name under which sites know a signing key: made from the key itself, so that nobody has to hand it on."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"fpk_{hashlib.sha256(raw).hexdigest()[:32]}"


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
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise FederationError(f"{path.name} is not in this folder of keys. Make them: hemoscope federated keys")
    return path


def _private(path: Path) -> Path:
    mode = stat.S_IMODE(_present(path).stat().st_mode)
    if mode & 0o077:
        raise FederationError(f"{path.name} has mode {mode:04o}: others could read it. chmod 600 {path.name}")
    return path


def _load_private(path: Path) -> object:
    try:
        return serialization.load_ssh_private_key(_private(path).read_bytes(), password=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FederationError(f"{path.name} is not a private key in OpenSSH's format. Make keys anew.") from error


def _site_public_key(path: Path) -> bytes:
    try:
        public = serialization.load_ssh_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FederationError(f"sites/{path.name} is not a public key in OpenSSH's format") from error
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise FederationError(f"sites/{path.name} is not an elliptic-curve key: ssh-keygen -t ecdsa -b 384")
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
