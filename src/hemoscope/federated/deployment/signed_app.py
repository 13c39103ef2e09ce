"""The app that sites run: two small files, signed. What it does is in the hemoscope that each site installed itself.

A site's SuperNode runs an app only if a key in its ``trusted.yaml`` signed the app's SHA-256 and the time of signing
(Flower's ``--trusted-entities``), and that key lies on no server. So even a server that somebody else took over cannot
send a site other code. A server holds the signature alone, in ``app.json``, and bundles the same bytes itself: they
change only with the stub's two files (or with how Flower writes a bundle), so most updates of hemoscope need no new
signature.
"""

import base64
import hashlib
import json
import time
import tomllib
from importlib import resources
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric_ed25519 import (
    create_message_to_sign,
    decode_base64url,
    sign_message,
    verify_signature,
)

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.keys import key_id
from hemoscope.files import write_text

SIGNATURE = "app.json"
_REMEDY = "Sign again where the federation's authority is kept, by this version: hemoscope federated sign FOLDER"


def stub_folder() -> Path:
    """The stub that comes with this installation."""
    return Path(str(resources.files("hemoscope.federated.deployment"))) / "app"


def build_app(folder: Path | None = None) -> bytes:
    """Bundle an app in Flower's format (FAB, a zip file); the same files give the same bytes.

    Args:
        folder: ``pyproject.toml`` and the app's modules beside it; our stub if None.

    Raises:
        FederationError: no app is there, or Flower refuses it.

    """
    folder = folder or stub_folder()
    files: dict[str, bytes | Path] = {path.name: path for path in (*folder.glob("*.toml"), *folder.glob("*.py"))}
    try:
        content, _ = build_fab_from_files(files)
    except ValueError as error:
        raise FederationError(f"{folder.name} is no Flower app: {error}. Install hemoscope again.") from error
    return bytes(content)


def app_id(folder: Path | None = None) -> str:
    """The app's name for Flower, ``@publisher/name``."""
    project = tomllib.loads(((folder or stub_folder()) / "pyproject.toml").read_text())
    return f"@{project['tool']['flwr']['app']['publisher']}/{project['project']['name']}"


def sign_app(content: bytes, key: ed25519.Ed25519PrivateKey, *, signed_at: int | None = None) -> Fab:
    """An app with its signature, in the form in which a SuperNode looks for it.

    Args:
        content: the bundle.
        key: the federation's signing key.
        signed_at: seconds since 1970; now if None.

    """
    digest = hashlib.sha256(content)
    at = int(time.time()) if signed_at is None else signed_at
    signature = sign_message(key, create_message_to_sign(digest.digest(), at))
    record = {"signature": base64.urlsafe_b64encode(signature).decode("ascii"), "signed_at": at}
    # A SuperNode asks for this word first; Flower's own hub sets it for every app that it verified.
    verifications = {key_id(key.public_key()): json.dumps(record), "valid_license": "Valid"}
    return Fab(digest.hexdigest(), content, verifications)


def write_signature(folder: Path, signed: Fab) -> Path:
    """Write what a server needs of a signed app: its SHA-256 and who signed it; the bundle it makes itself."""
    record = {"sha256": signed.hash_str, "verifications": signed.verifications}
    return write_text(folder / SIGNATURE, json.dumps(record, indent=2) + "\n")


def read_signed_app(folder: Path, key: ed25519.Ed25519PublicKey, app: Path | None = None) -> Fab:
    """The installed app with the signature that lies in a server's folder, checked as a site will check it.

    Args:
        folder: the server's part of the keys.
        key: whose signature it must be.
        app: the folder of the app; our stub if None.

    Raises:
        FederationError: there is no signature; it is another app's, or by another key.

    """
    if not (folder / SIGNATURE).is_file():
        raise FederationError(f"{SIGNATURE} is not in this folder of keys: the app is not signed. {_REMEDY}")
    content = build_app(app)
    installed = hashlib.sha256(content)
    signed_hash, verifications, signature, signed_at = _read_signature(folder / SIGNATURE, key)
    if signed_hash != installed.hexdigest():
        raise FederationError(
            f"the app that was signed ({signed_hash[:12]}) is not that of the hemoscope installed here "
            f"({installed.hexdigest()[:12]}). {_REMEDY}"
        )
    if not verify_signature(key, create_message_to_sign(installed.digest(), signed_at), signature):
        raise FederationError(
            f"the signature in {SIGNATURE} is not by this federation's key, or was changed. {_REMEDY}"
        )
    return Fab(signed_hash, content, verifications)


def _read_signature(path: Path, key: ed25519.Ed25519PublicKey) -> tuple[str, dict[str, str], bytes, int]:
    """The SHA-256 that was signed, Flower's records, and this key's signature and its time (seconds since 1970)."""
    try:
        described = json.loads(path.read_text())
        verifications = {str(name): str(record) for name, record in described["verifications"].items()}
        record = json.loads(verifications[key_id(key)])
        signature, signed_at = decode_base64url(record["signature"]), int(record["signed_at"])
        signed_hash = str(described["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FederationError(f"{SIGNATURE} holds no signature by this federation's key. {_REMEDY}") from error
    return signed_hash, verifications, signature, signed_at
