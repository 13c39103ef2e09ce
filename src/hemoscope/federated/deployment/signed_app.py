"""The app that sites run: two small files, signed. What it does is in the hemoscope that each site installed itself.

A site's SuperNode runs an app only if a key in its ``trusted.yaml`` signed the app's SHA-256 and the time of signing
(Flower's ``--trusted-entities``). So even a server that somebody else took over cannot send a site other code.
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
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign, sign_message

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.keys import key_id


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
