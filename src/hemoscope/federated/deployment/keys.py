"""The keys of a federation as each party reads them: who may connect to whom, and who says what runs at a site.

* a certificate authority of the federation's own, and the server's certificate from it (TLS; X.509, RFC 5280),
* for each site a key pair on the curve P-384, in OpenSSH's format as Flower's SuperNode wants it: the server admits
  nobody else,
* an Ed25519 key pair that signs the app: a site runs nothing that this key has not signed, so it lies on no server.

The folder (``authority.make_keys``) holds one part for the server and one for each site, which goes to that site
alone; and one that goes nowhere, with what every site trusts: certificates and the app are signed with it::

    FOLDER/authority/{ca.key,signing.key}
    FOLDER/server/{ca.crt,server.crt,server.key,signing.pub,app.json}, sites/NAME.pub
    FOLDER/sites/NAME/{ca.crt,node.key,trusted.yaml}

A site that would rather make its key itself sends ``ssh-keygen -t ecdsa -b 384``'s public half, to lie at
``server/sites/NAME.pub``.
"""

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hemoscope.errors import FederationError

_ASK = "Ask the federation's coordinator for it, and give the folder with --keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """What a server needs of its folder.

    Attributes:
        authority: the authority's certificate, PEM.
        certificate: the server's certificate, PEM.
        private_key: the private key of that certificate, PEM.
        signs: the public half of the key that signs the app.
        sites: each admitted site's public key as PEM, by name.

    """

    authority: Path
    certificate: Path
    private_key: Path
    signs: ed25519.Ed25519PublicKey
    sites: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteKeys:
    """What a site needs of its folder: paths, since Flower's SuperNode reads the files itself."""

    authority: Path
    private_key: Path
    trusted: Path


def read_server_keys(folder: Path) -> ServerKeys:
    """Read and check a server's folder.

    Raises:
        FederationError: a file is missing, readable by others, or not the key it must be; there is no site; or the
            signing key lies there.

    """
    if (folder / "signing.key").exists():
        raise FederationError(
            "signing.key lies with the server: whoever takes the server over could send sites any code. "
            "Make keys anew (hemoscope federated keys) and keep their authority folder offline"
        )
    sites = {path.stem: _site_public_key(path) for path in sorted((folder / "sites").glob("*.pub"))}
    if not sites:
        raise FederationError("no site may connect: the server's folder has no sites/NAME.pub. Add each site's key.")
    return ServerKeys(
        authority=_present(folder / "ca.crt"),
        certificate=_present(folder / "server.crt"),
        private_key=_private(folder / "server.key"),
        signs=_signing_public_key(folder / "signing.pub"),
        sites=sites,
    )


def read_signing_key(folder: Path) -> ed25519.Ed25519PrivateKey:
    """Read the key that signs the app from the authority's folder.

    Raises:
        FederationError: it is not there, readable by others, or of another kind.

    """
    path = folder / "signing.key"
    if not path.is_file():
        raise FederationError(
            f"{folder.name}/signing.key is not here. Sign where the federation's authority is kept: "
            "give the FOLDER that hemoscope federated keys made"
        )
    signing = _load_private(path)
    if not isinstance(signing, ed25519.Ed25519PrivateKey):
        raise FederationError("signing.key is not an Ed25519 key. Make keys anew: hemoscope federated keys")
    return signing


def read_site_keys(folder: Path) -> SiteKeys:
    """Read and check a site's folder.

    Raises:
        FederationError: a file is missing, readable by others, or not the key it must be.

    """
    for name in ("node.key", "ca.crt", "trusted.yaml"):
        if not (folder / name).is_file():
            raise FederationError(
                f"{folder.absolute().name} has no {name}, so it is not this site's folder of keys. {_ASK}"
            )
    if not isinstance(_load_private(folder / "node.key", _ASK), ec.EllipticCurvePrivateKey):
        raise FederationError(f"node.key is not an elliptic-curve key. {_ASK}")
    return SiteKeys(authority=folder / "ca.crt", private_key=folder / "node.key", trusted=folder / "trusted.yaml")


def key_id(public: ed25519.Ed25519PublicKey) -> str:
    """The name under which sites know a signing key: made from the key itself, so that nobody has to hand it on."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"fpk_{hashlib.sha256(raw).hexdigest()[:32]}"


def _present(path: Path) -> Path:
    if not path.is_file():
        raise FederationError(f"{path.name} is not in this folder of keys. Make them: hemoscope federated keys")
    return path


def _private(path: Path) -> Path:
    mode = stat.S_IMODE(_present(path).stat().st_mode)
    if mode & 0o077:
        raise FederationError(f"{path.name} has mode {mode:04o}: others could read it. chmod 600 {path.name}")
    return path


def _load_private(path: Path, remedy: str = "Make keys anew: hemoscope federated keys") -> object:
    try:
        return serialization.load_ssh_private_key(_private(path).read_bytes(), password=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FederationError(f"{path.name} is not a private key in OpenSSH's format. {remedy}") from error


def _load_public(path: Path, name: str) -> object:
    try:
        return serialization.load_ssh_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FederationError(f"{name} is not a public key in OpenSSH's format") from error


def _signing_public_key(path: Path) -> ed25519.Ed25519PublicKey:
    public = _load_public(_present(path), path.name)
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise FederationError(f"{path.name} is not an Ed25519 key. Make keys anew: hemoscope federated keys")
    return public


def _site_public_key(path: Path) -> bytes:
    public = _load_public(path, f"sites/{path.name}")
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise FederationError(f"sites/{path.name} is not an elliptic-curve key: ssh-keygen -t ecdsa -b 384")
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
