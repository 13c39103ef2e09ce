"""A site's own batch norm under ``batch_norm = "local"``: it stays on the site's disk from round to round.

Li et al. 2021, "FedBN: federated learning on non-IID features via local batch normalization".
"""

from pathlib import Path

from safetensors import SafetensorError

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.weights import batch_norm_names
from hemoscope.files import atomic_path
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.tensor_files import load_tensors, save_tensors

LOCAL = "local.safetensors"


def save_batch_norm(network: HemorrhageNetwork, folder: Path) -> None:
    """Keep all of a network's batch norm (scale, shift, statistics, counters) in a folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = network.state_dict()
    with atomic_path(folder / LOCAL) as draft:
        save_tensors({name: state[name] for name in sorted(batch_norm_names(network))}, draft)


def load_batch_norm(network: HemorrhageNetwork, folder: Path) -> bool:
    """Bring back what ``save_batch_norm`` kept.

    A federation's first round begins with the server's values: whatever lies here then is of another federation of
    the same name.

    Returns:
        Whether there was anything; where not, the network keeps what it has.

    Raises:
        FederationError: the file is damaged, or of another network.
    """
    path = folder / LOCAL
    if not path.is_file():
        return False
    own = batch_norm_names(network)
    try:
        stored = load_tensors(path)
        fits = stored.keys() == own
        if fits:
            network.load_state_dict(stored, strict=False)
    except (RuntimeError, OSError, ValueError, SafetensorError) as error:  # another shape; not readable; damaged
        msg = f"{path.name} cannot be read as this network's batch norm ({type(error).__name__}). Delete it: {_REMEDY}"
        raise FederationError(msg) from error
    if not fits:
        msg = f"{path.name} holds batch norm of another network. Delete it: {_REMEDY}"
        raise FederationError(msg)
    return True


_REMEDY = "this site begins again with the server's"
