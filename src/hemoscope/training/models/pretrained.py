"""Published ImageNet weights of a backbone: where they are, and a quick check that they can be downloaded."""

import hashlib
import re
import ssl
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import timm
from huggingface_hub import constants, try_to_load_from_cache

from hemoscope.errors import TrainingError

HUB_FILE = "model.safetensors"
# timm and the hub's client retry for more than a minute before they report that there is no connection.
_TIMEOUT_S = 3.0
_DEADLINE_S = 5.0  # a name server that does not answer is not covered by the timeout of the connection

# torchvision's names end in the first eight digits of the file's SHA-256. Only its ResNets name tensors as timm does.
_TORCHVISION = re.compile(r"https://download\.pytorch\.org/models/(?:wide_)?resne[xt]+\w*-([0-9a-f]{8})\.pth")


def cached_file(backbone: str) -> Path | None:
    """Return the weights of a backbone that an earlier training downloaded; None if there are none."""
    repository = _hub_repository(backbone)
    found = None if repository is None else try_to_load_from_cache(repository, HUB_FILE)
    return Path(found) if isinstance(found, str) else None


def require_download(backbone: str) -> None:
    """Raise TrainingError within seconds, with the file to bring, if this machine cannot reach the hub."""
    if _hub_repository(backbone) is None:
        return  # timm reports that it has no weights
    reason = _unreachable(constants.ENDPOINT)
    if reason is not None:
        msg = f"ImageNet weights of {backbone} cannot be downloaded: {reason}. {how_to_bring(backbone)}"
        raise TrainingError(msg)


def how_to_bring(backbone: str) -> str:
    """Return which file to bring, from where, and the option that takes it."""
    repository, torchvision = _hub_repository(backbone), _torchvision_url(backbone)
    sources = [] if repository is None else [f"https://huggingface.co/{repository}/resolve/main/{HUB_FILE}"]
    if torchvision is not None:
        sources.insert(0, f"{torchvision[0]} (its SHA-256 begins with {torchvision[1]})")
    if not sources:
        return "Train with --init PATH, a file of weights for this backbone, or with --init none (random weights)"
    return (
        f"On a machine with internet, download {' or '.join(sources)}; copy the file here, to any folder, and train "
        "with --init PATH (run.init of the experiment). --init none begins with random weights"
    )


def check_hash(path: Path, backbone: str) -> None:
    """Raise TrainingError if a file has the name of torchvision's weights of this backbone, but not their hash."""
    torchvision = _torchvision_url(backbone)
    if torchvision is None or path.name != torchvision[0].rpartition("/")[2]:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(torchvision[1]):
        msg = (
            f"{path.name} is damaged or is another file: its SHA-256 begins with {digest[:8]}, that of the published "
            f"one with {torchvision[1]}. Download it again from {torchvision[0]}"
        )
        raise TrainingError(msg)


def _hub_repository(backbone: str) -> str | None:
    published = timm.models.get_pretrained_cfg(backbone)
    return None if published is None or not published.hf_hub_id else str(published.hf_hub_id)


def _torchvision_url(backbone: str) -> tuple[str, str] | None:
    """Return the address and the first digits of the hash."""
    published = timm.models.get_pretrained_cfg(backbone)
    url = None if published is None else published.url
    match = _TORCHVISION.fullmatch(url) if isinstance(url, str) else None
    return None if match is None else (match[0], match[1])


def _unreachable(address: str) -> str | None:
    """Return why an address does not answer; None if it does, whatever the answer."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str | None] = []
    thread = Thread(target=lambda: found.append(_probe(address)), daemon=True)
    thread.start()
    thread.join(_DEADLINE_S)
    return found[0] if found else f"{address} did not answer within {_DEADLINE_S:g} s"


def _probe(address: str) -> str | None:
    try:
        with urlopen(Request(address, method="HEAD"), timeout=_TIMEOUT_S):  # noqa: S310 - the hub's own address
            return None
    except HTTPError:
        return None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLError):  # it answered; the hub's client brings its own certificates
            return None
        return f"{address} does not answer ({reason})"
