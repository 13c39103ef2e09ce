"""What travels: the sorting of a network's state, and what is refused on its way in."""

from typing import get_args

import lightning
import numpy as np
import pytest
import torch

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.weights import Exchange, exchange, initial_network, put, take
from hemoscope.federated.settings.federation_sections import BatchNorm
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig

SMALL = NetworkConfig(backbone="test_efficientnet", width=8, pooled=4)
MODES = ("shared", "local", "fixed")


def network(config: NetworkConfig = SMALL, seed: int = 2) -> HemorrhageNetwork:
    torch.manual_seed(seed)
    return HemorrhageNetwork(config, channels=3, size=64)


def experiment() -> Experiment:
    record = {
        "name": "tiny",
        "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
        "run": {"init": "none", "seed": 5},
        "preprocessing": {"size": 64},
    }
    return parse_experiment(record, where="test")


def all_names(sorted_names: Exchange) -> tuple[str, ...]:
    return (*sorted_names.trained, *sorted_names.statistics, *sorted_names.fixed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frozen", [0, 1])
def test_every_float_has_one_fate_and_integers_have_none(mode: BatchNorm, frozen: int) -> None:
    model = network(NetworkConfig(backbone="resnet18", head="pooled", frozen_stages=frozen))
    names = all_names(exchange(model, mode))
    floats = [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
    assert sorted(names) == sorted(floats)
    assert not [name for name in names if name.endswith("num_batches_tracked")]


def test_shared_statistics_travel_beside_the_weights() -> None:
    found = exchange(network(), "shared")
    assert found.statistics
    assert all(name.endswith(("running_mean", "running_var")) for name in found.statistics)
    assert not found.fixed
    assert "backbone.bn1.weight" in found.trained


def test_with_local_batch_norm_nothing_of_it_goes_back_to_the_server() -> None:
    found = exchange(network(), "local")
    assert not found.statistics
    assert {"backbone.bn1.weight", "backbone.bn1.bias", "backbone.bn1.running_var"} <= set(found.fixed)
    assert "backbone.conv_stem.weight" in found.trained


def test_fixed_statistics_stay_while_scale_and_shift_are_trained() -> None:
    found = exchange(network(), "fixed")
    assert not found.statistics
    assert {"backbone.bn1.running_mean", "backbone.bn1.running_var"} <= set(found.fixed)
    assert {"backbone.bn1.weight", "backbone.bn1.bias"} <= set(found.trained)


def test_frozen_parameters_are_never_asked_back() -> None:
    model = network(NetworkConfig(backbone="resnet18", head="pooled", frozen_stages=1))
    found = exchange(model, "shared")
    assert "backbone.conv1.weight" in found.fixed
    assert not [name for name in found.trained if name.startswith(("backbone.conv1.", "backbone.layer1."))]


def test_the_modes_are_those_of_the_settings() -> None:
    assert set(get_args(BatchNorm)) == set(MODES)


def test_what_is_taken_can_be_put_into_another_network() -> None:
    here, there = network(seed=1).to(memory_format=torch.channels_last), network(seed=2)
    names = all_names(exchange(here, "shared"))
    put(there, take(here, names), names)
    for name in names:
        assert torch.equal(here.state_dict()[name], there.state_dict()[name]), name


def test_what_is_taken_is_a_copy_in_rows() -> None:
    model = network().to(memory_format=torch.channels_last)
    taken = take(model, ["backbone.conv_stem.weight"])["backbone.conv_stem.weight"]
    before = taken.copy()
    with torch.no_grad():
        model.get_parameter("backbone.conv_stem.weight").zero_()
    np.testing.assert_array_equal(taken, before)
    assert taken.flags.c_contiguous
    assert taken.any()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("backbone.bn1.weight", None, "without backbone.bn1.weight"),
        ("stranger", np.zeros(1, np.float32), "with an unknown 'stranger'"),
        ("backbone.bn1.weight", np.zeros(1, np.float32), r"has the shape \(1,\)"),
        ("backbone.bn1.weight", "nan", "values that are not finite"),
        ("backbone.bn1.weight", "double", "is float64, not float32"),
        ("backbone.bn1.running_var", "negative", "variance of -1"),
    ],
)
def test_wrong_weights_are_refused_and_nothing_is_changed(name: str, value: object, words: str) -> None:
    model, names = network(), all_names(exchange(network(), "shared"))
    arrays = {key: array + 1 for key, array in take(model, names).items()}
    if value is None:
        del arrays[name]
    elif isinstance(value, np.ndarray):
        arrays[name] = value
    else:
        size = arrays[name].shape
        spoiled = {"nan": np.full(size, np.nan), "double": np.ones(size), "negative": np.full(size, -1.0)}[str(value)]
        arrays[name] = spoiled if value == "double" else spoiled.astype(np.float32)
    before = take(model, names)
    with pytest.raises(FederationError, match=words):
        put(model, arrays, names)
    for key, array in take(model, names).items():
        np.testing.assert_array_equal(array, before[key])


def test_the_first_network_is_that_of_local_training_with_the_same_seed() -> None:
    found = initial_network(experiment(), 5)
    lightning.seed_everything(5, verbose=False)
    expected = HemorrhageNetwork(SMALL, channels=3, size=64)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


def test_the_first_network_leaves_random_numbers_of_others_alone() -> None:
    """The noise of differential privacy comes from NumPy's; a seed known to all would undo it."""
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    initial_network(experiment(), 5)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_weights_that_were_put_live_on_when_their_source_changes() -> None:
    model = network()
    arrays = take(model, ["backbone.bn1.weight"])
    put(model, arrays, ["backbone.bn1.weight"])
    arrays["backbone.bn1.weight"][:] = 77
    assert not (model.get_parameter("backbone.bn1.weight") == 77).any()
