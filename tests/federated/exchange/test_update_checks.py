"""What a site sends, refused or flagged: shapes, values, norms, and the signs of a poisoned site."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.update_checks import (
    UpdateFacts,
    agreement,
    check_statistics,
    check_update,
    clipped,
    l2_norm,
    last_layer,
    scaled_statistics,
    suspicion,
    unscaled_statistics,
)
from hemoscope.federated.exchange.weights import Arrays, exchange
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig

SHAPES = {"head.weight": (6, 40), "head.bias": (6,), "backbone.conv.weight": (8, 3, 3, 3)}


def weights(seed: int, size: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: (size * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def moved(before: Arrays, by: Arrays, times: float = 1.0) -> Arrays:
    return {name: (before[name] + times * by[name]).astype(np.float32) for name in before}


def check(new: Arrays, before: Arrays, *, max_norm: float = 100.0, weight: float = 1.0) -> UpdateFacts:
    return check_update(new, before, max_norm=max_norm, weight=weight, max_weight=1000)


def test_the_norm_of_an_honest_update_is_that_of_its_difference() -> None:
    before, step = weights(1), weights(2, 0.1)
    expected = np.linalg.norm(np.concatenate([value.ravel() for value in step.values()]))
    facts = check(moved(before, step), before, weight=12)
    assert facts.norm == pytest.approx(expected, rel=1e-4)
    assert facts.weight == 12


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda new: new.pop("head.bias"), "without head.bias"),
        (lambda new: new.update(stranger=np.zeros(1, np.float32)), "with an unknown 'stranger'"),
        (lambda new: new.update({"head.bias": new["head.bias"][:5]}), r"shape \(5,\), not \(6,\)"),
        (lambda new: new.update({"head.bias": new["head.bias"].astype(np.float64)}), "float64, not float32"),
        (lambda new: new["head.bias"].__setitem__(2, np.nan), "1 values that are not finite"),
        (lambda new: new["head.bias"].__setitem__(2, np.inf), "1 values that are not finite"),
        (lambda new: new["head.bias"].__setitem__(2, 1e30), "norm is 1e.30, above 100"),
    ],
)
def test_an_update_that_cannot_be_right_is_refused(spoil, words: str) -> None:
    before = weights(1)
    new = moved(before, weights(2, 0.1))
    spoil(new)
    with pytest.raises(FederationError, match=words):
        check(new, before)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, 1001.0])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    before = weights(1)
    with pytest.raises(FederationError, match=r"the weight is .*, not 0 to 1000"):
        check(before, before, weight=weight)


def test_weights_scaled_a_hundredfold_are_refused_by_their_norm() -> None:
    before, step = weights(1), weights(2, 0.1)
    assert check(moved(before, step), before, max_norm=10)
    with pytest.raises(FederationError, match="above 10"):
        check(moved(before, step, 100), before, max_norm=10)


def test_a_finite_value_whose_square_is_not_cannot_hide_the_norm() -> None:
    before = weights(1)
    new = {name: np.full_like(value, 3e38) for name, value in before.items()}
    with pytest.raises(FederationError, match="above 100"):
        check(new, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-4, 1e4), st.floats(1e-3, 1e3), st.floats(1e-4, 1e4))
def test_a_clipped_update_keeps_its_direction_and_never_exceeds_the_norm(
    seed: int, size: float, scale: float, norm: float
) -> None:
    before, new = weights(seed, scale), moved(weights(seed, scale), weights(seed + 1, size))
    short = clipped(new, before, norm)
    found = l2_norm({name: short[name].astype(np.float64) - before[name] for name in short})
    own = l2_norm({name: new[name].astype(np.float64) - before[name] for name in new})
    assert found <= norm
    if own <= norm:
        assert all(np.array_equal(short[name], new[name]) for name in new)
    elif norm > 1e-2 * scale:  # above the grain of float32
        assert found == pytest.approx(norm, rel=1e-3)
        steps = [{name: value[name] - before[name] for name in value} for value in (short, new)]
        assert agreement(steps)[0] == pytest.approx(1, abs=1e-3)


def test_an_update_below_the_grain_of_its_weights_is_clipped_to_nothing() -> None:
    before = weights(1, 1e6)
    short = clipped(moved(before, weights(2, 1e6)), before, 1e-6)
    assert all(np.array_equal(short[name], before[name]) for name in before)


def test_agreement_is_the_cosine_with_the_mean_direction_of_the_others() -> None:
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    found = agreement([{"w": east}, {"w": 5 * north}, {"w": 0.1 * (east + north)}])
    assert found[2] == pytest.approx(1)
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(math.cos(math.radians(67.5)))


def test_the_last_layer_is_the_one_that_gives_the_scores() -> None:
    config = NetworkConfig(backbone="test_efficientnet", width=8, pooled=4)
    for head, layer in (("maps", "head.maps"), ("pooled", "head.classifier"), ("flatten", "head.classifier")):
        network = HemorrhageNetwork(replace(config, head=head), channels=3, size=64)
        found = last_layer(exchange(network, "local").trained)
        assert found == (f"{layer}.weight", f"{layer}.bias")


def test_one_huge_update_does_not_put_the_others_in_the_wrong() -> None:
    step = weights(3)
    found = agreement(
        [moved(step, weights(seed, 0.3)) for seed in (4, 5, 6)]
        + [moved({n: -1000 * v for n, v in step.items()}, step, 0)]
    )
    assert all(cosine is not None and cosine > 0 for cosine in found[:3])
    assert found[3] is not None
    assert found[3] < -0.9


@pytest.mark.parametrize(
    "updates",
    [
        [{"w": np.ones(2)}],
        [{"w": np.zeros(2)}, {"w": np.zeros(2)}],
        [{"w": np.zeros(2)}, {"w": np.ones(2)}, {"w": -np.ones(2)}],
    ],
)
def test_without_a_direction_there_is_no_agreement(updates: list[Arrays]) -> None:
    assert agreement(updates)[0] is None


def honest(number: int) -> dict[int, UpdateFacts]:
    return {site: UpdateFacts(norm=1 + site / 10, weight=100 + site, loss=0.3, cosine=0.4) for site in range(1, number)}


def test_honest_sites_are_not_suspicious() -> None:
    assert suspicion(honest(5)) == {}


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (UpdateFacts(norm=100, weight=100), "update's norm is 100, the others' median 1.2"),
        (UpdateFacts(norm=0.01, weight=100), "update's norm is 0.01"),
        (UpdateFacts(norm=1, weight=90_000), "the weight is 9e"),
        (UpdateFacts(norm=1, weight=100, loss=0.6), "the loss is 0.6, the others' median 0.3"),
        (UpdateFacts(norm=1, weight=100, cosine=-0.5), r"learns against the others' \(cosine -0.50\)"),
    ],
)
def test_a_site_with_an_anomaly_is_named_with_the_reason(odd: UpdateFacts, words: str) -> None:
    found = suspicion(honest(4) | {4: odd})
    assert list(found) == [4]
    assert len(found[4]) == 1
    assert words.replace("\\", "") in found[4][0]


def test_an_update_square_to_the_others_is_not_suspicious() -> None:
    assert suspicion(honest(4) | {4: UpdateFacts(norm=1, weight=100, cosine=-0.05)}) == {}


def test_of_two_sites_nobody_can_say_which_is_too_long() -> None:
    assert suspicion({1: UpdateFacts(norm=1, weight=1, loss=1), 2: UpdateFacts(norm=90, weight=1, loss=1)}) == {}


def test_flipped_labels_turn_the_update_round_and_are_flagged() -> None:
    common = weights(1)
    updates = [moved(common, weights(seed), 0.8) for seed in range(2, 5)]
    flipped = {name: -value for name, value in moved(common, weights(9), 0.8).items()}
    cosines = agreement([*updates, flipped])
    facts = {site: UpdateFacts(norm=1, weight=1, cosine=cosine) for site, cosine in enumerate(cosines, 1)}
    assert list(suspicion(facts)) == [4]


def statistics(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "bn1.running_mean": rng.normal(size=5).astype(np.float32),
        "bn1.running_var": rng.uniform(0.1, 4, size=5).astype(np.float32),
    }


def test_statistics_change_in_units_of_their_own_spread() -> None:
    before = {"bn1.running_mean": np.float32([1, 1]), "bn1.running_var": np.float32([4, 0])}
    new = {"bn1.running_mean": np.float32([5, 1]), "bn1.running_var": np.float32([6, 0.002])}
    found = scaled_statistics(new, before)
    np.testing.assert_allclose(found["bn1.running_mean"], [2, 0])
    np.testing.assert_allclose(found["bn1.running_var"], [0.5, 2])  # a channel that is always off: floor of 0.001


def test_scaled_statistics_come_back() -> None:
    before, new = statistics(1), statistics(2)
    found = unscaled_statistics(scaled_statistics(new, before), before)
    for name, value in new.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_no_rounding_makes_a_variance_negative() -> None:
    before = statistics(1)
    scaled = {name: np.full(5, -1.01, np.float32) for name in before}
    assert (unscaled_statistics(scaled, before)["bn1.running_var"] == 0).all()
    assert check_statistics(unscaled_statistics(scaled, before), before) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("bn1.running_var", -0.1, "a variance of -0.1"),
        ("bn1.running_mean", np.nan, "not finite"),
        ("bn1.running_mean", 1e6, "bn1.running_mean moved by .* times its scale"),
        ("bn1.running_var", 1e6, "bn1.running_var moved by .* times its scale"),
    ],
)
def test_statistics_that_cannot_be_right_are_refused(name: str, value: float, words: str) -> None:
    before, new = statistics(1), statistics(2)
    check_statistics(new, before)
    new[name][0] = value
    with pytest.raises(FederationError, match=words):
        check_statistics(new, before)
