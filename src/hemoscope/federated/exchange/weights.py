"""What of a network travels between the server and its sites, and what stays where it is.

Names are those of the network's state dict. The paper of local batch norm is Li et al., "FedBN", ICLR 2021.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hemoscope.errors import FederationError
from hemoscope.federated.settings.federation_sections import BatchNorm
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.checkpoint import load_init
from hemoscope.training.models.network import HemorrhageNetwork

Arrays = dict[str, NDArray[np.float32]]

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The names of a network's state by what happens to them; integers (counters of batches) are in none.

    Attributes:
        trained: parameters that sites train and the strategy averages.
        statistics: of batch norm, averaged beside the strategy; empty unless they are shared.
        fixed: what sites receive and never send: frozen parameters, statistics that stay as they began, and with
            local batch norm its values to begin with.
    """

    trained: tuple[str, ...]
    statistics: tuple[str, ...]
    fixed: tuple[str, ...]


def exchange(network: HemorrhageNetwork, batch_norm: BatchNorm) -> Exchange:
    """Sort a network's state by what happens to it, in the order of the state dict."""
    normal = batch_norm_names(network)
    learned = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    trained = learned - normal if batch_norm == "local" else learned
    statistics = {name for name in normal if name.endswith(_STATISTICS)} if batch_norm == "shared" else set[str]()
    floats = [name for name, tensor in network.state_dict().items() if tensor.is_floating_point()]
    return Exchange(
        trained=tuple(name for name in floats if name in trained),
        statistics=tuple(name for name in floats if name in statistics),
        fixed=tuple(name for name in floats if name not in trained | statistics),
    )


def take(network: nn.Module, names: Iterable[str]) -> Arrays:
    """Copies of a network's values by name, float32 and contiguous, on the CPU."""
    state = network.state_dict()
    return {name: np.array(state[name].detach().cpu().numpy(), dtype=np.float32, order="C") for name in names}


def put(network: nn.Module, arrays: Mapping[str, NDArray[np.float32]], names: Iterable[str]) -> None:
    """Overwrite a network's values by name, all of them or, where anything is wrong, none.

    Args:
        network: changed in place; other values keep what they are.
        arrays: as ``take`` gives them.
        names: that ``arrays`` must hold, no more and no less.

    Raises:
        FederationError: names, shapes or kinds differ, a value is not finite, or a variance is negative.
    """
    state = network.state_dict()
    check_names(arrays, names)
    for name, array in arrays.items():
        check_array(name, array, tuple(state[name].shape))
    with torch.no_grad():
        for name, array in arrays.items():
            state[name].copy_(torch.from_numpy(np.array(array, order="C")))


def check_names(arrays: Mapping[str, NDArray[np.float32]], names: Iterable[str]) -> None:
    """Refuse arrays that are not exactly those of these names. Raises FederationError."""
    expected = set(names)
    missing, unknown = sorted(expected - arrays.keys()), sorted(arrays.keys() - expected)
    if missing or unknown:
        found = [
            *(f"without {name}" for name in missing[:1]),
            *(f"with an unknown {name[:80]!r}" for name in unknown[:1]),
        ]
        counts = f"{len(missing)} missing, {len(unknown)} unknown"
        msg = f"the weights came {' and '.join(found)} ({counts}). Do both sides have the same experiment and version?"
        raise FederationError(msg)


def check_array(name: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    """Refuse an array that cannot be a network's value of this name.

    Raises:
        FederationError: it is no float32, of another shape, not finite, or a negative variance.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = getattr(array, "dtype", type(array).__name__)
        msg = f"{name} is {kind}, not float32. Do both sides run the same version of Hemoscope?"
        raise FederationError(msg)
    if array.shape != shape:
        msg = f"{name} has the shape {array.shape}, not {shape}. Do both sides have the same experiment?"
        raise FederationError(msg)
    if not np.isfinite(array).all():
        msg = f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite. Lower the learning rate"
        raise FederationError(msg)
    if name.endswith("running_var") and (array < 0).any():
        msg = f"{name} holds a variance of {array.min():.3g}; it must not be negative. The update is damaged"
        raise FederationError(msg)


def initial_network(experiment: Experiment, seed: int) -> HemorrhageNetwork:
    """The network that round 1 begins with, the same that local training with this seed begins with.

    PyTorch's random numbers go on afterwards where they were. NumPy's are never seeded here: Flower draws the noise of
    differential privacy from them, and noise of a known seed hides nothing.

    Raises:
        TrainingError, MissingExtraError: see ``hemoscope.training.models.checkpoint.load_init``.
    """
    learned = experiment.preprocessing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HemorrhageNetwork(
            experiment.network, channels=learned.channels, size=learned.size, neighbours=learned.neighbours
        )
        load_init(network, experiment.run.init)
    return network


def batch_norm_names(network: nn.Module) -> set[str]:
    """Names in the state dict that belong to batch norm: scale, shift, statistics and counter."""
    layers = ((prefix, layer) for prefix, layer in network.named_modules() if isinstance(layer, _BatchNorm))
    return {f"{prefix}.{name}" for prefix, layer in layers for name in layer.state_dict()}
