"""What stays at a site under local batch norm: all of it, nothing else, and only for the network that it is of."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.weights import exchange, initial_network
from hemoscope.federated.site.local_batch_norm import LOCAL, load_batch_norm, save_batch_norm
from hemoscope.training.experiment import Experiment

Build = Callable[..., Experiment]


def test_batch_norm_comes_back_as_it_was_and_the_rest_is_the_servers(small_experiment: Build, tmp_path: Path) -> None:
    mine, theirs = (initial_network(small_experiment(), seed) for seed in (1, 2))
    with torch.no_grad():
        for tensor in mine.state_dict().values():
            tensor.add_(1)
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    assert not load_batch_norm(theirs, tmp_path / "work")
    save_batch_norm(mine, tmp_path / "work")
    assert load_batch_norm(theirs, tmp_path / "work")
    shared = set(exchange(theirs, "local").trained)
    learned = {name for name, _ in theirs.named_parameters()}
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, before[name] if name in shared else mine.state_dict()[name]), name
    assert shared < learned
    assert {path.name for path in (tmp_path / "work").iterdir()} == {LOCAL}
    assert not shared & set(load_file(tmp_path / "work" / LOCAL))


def test_the_last_round_replaces_the_one_before(small_experiment: Build, tmp_path: Path) -> None:
    network = initial_network(small_experiment(), 1)
    save_batch_norm(network, tmp_path)
    with torch.no_grad():
        network.backbone.bn1.weight.fill_(7.0)
    save_batch_norm(network, tmp_path)
    other = initial_network(small_experiment(), 1)
    load_batch_norm(other, tmp_path)
    assert torch.equal(other.backbone.bn1.weight, network.backbone.bn1.weight)


def test_batch_norm_of_another_network_is_refused(small_experiment: Build, tmp_path: Path) -> None:
    network = initial_network(small_experiment(), 1)
    save_batch_norm(network, tmp_path)
    stored = load_file(tmp_path / LOCAL)
    name = next(name for name in stored if name.endswith("running_mean"))
    save_file({**stored, name: torch.zeros(3)}, tmp_path / LOCAL)
    with pytest.raises(FederationError, match=r"local\.safetensors cannot be read .*\(RuntimeError\)\. Delete it"):
        load_batch_norm(network, tmp_path)
    del stored[name]
    save_file(stored, tmp_path / LOCAL)
    with pytest.raises(FederationError, match=r"holds batch norm of another network\. Delete it: this site begins"):
        load_batch_norm(network, tmp_path)


def test_a_damaged_file_is_named_without_its_folder(small_experiment: Build, tmp_path: Path) -> None:
    (tmp_path / LOCAL).write_bytes(b"x" * 30)
    with pytest.raises(FederationError, match=r"^local\.safetensors cannot be read") as raised:
        load_batch_norm(initial_network(small_experiment(), 1), tmp_path)
    assert str(tmp_path) not in str(raised.value)
