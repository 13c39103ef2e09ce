"""Rounds at the server on replies made up here: who is asked, what is refused, and what a poisoned site can do."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from hemoscope.errors import FederationError
from hemoscope.federated.exchange import messages
from hemoscope.federated.exchange.weights import Arrays, Exchange
from hemoscope.federated.server.checkpoints import RoundReport, RoundState, latest_round, save_round
from hemoscope.federated.server.strategies import RoundStrategy, make_strategy
from hemoscope.federated.settings.federation import Federation, parse_federation

SHAPES = {"head.weight": (6, 20), "head.bias": (6,)}
EXCHANGE = Exchange(
    trained=tuple(SHAPES), statistics=("bn1.running_mean", "bn1.running_var"), fixed=("backbone.stem.weight",)
)
NODES = (2**63 + 11, 40, 30, 20)  # numbered by their order: 20 is site 1
HONEST = 0.1


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who Flower's runtime says that we are."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class FakeGrid:
    """Nodes that nobody talks to."""

    def __init__(self, nodes: Iterable[int] = NODES) -> None:
        self.nodes = tuple(nodes)

    def get_node_ids(self) -> Iterable[int]:
        return self.nodes


def federation(**changes: Any) -> Federation:
    experiment = {
        "name": "tiny",
        "run": {"split": "folds", "init": "none"},
        "optimizer": {"ema": 0.0},
        "network": {"backbone": "test_efficientnet"},
    }
    return parse_federation({"name": "four", "experiment": experiment, "min_sites": 2, **changes})


def robust(name: str, **changes: Any) -> Federation:
    return federation(strategy={"name": name}, weighting="uniform", **changes)


def state() -> RoundState:
    rng = np.random.default_rng(1)
    return RoundState(
        trained={name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()},
        statistics={"bn1.running_mean": np.zeros(5, np.float32), "bn1.running_var": np.ones(5, np.float32)},
        fixed={"backbone.stem.weight": np.ones((2, 2), np.float32)},
    )


def step(seed: int, size: float = HONEST) -> Arrays:
    """An honest update: what is common to all sites, and something of its own."""
    common, own = np.random.default_rng(77), np.random.default_rng(seed)
    return {
        name: (size * (common.normal(size=shape) + 0.5 * own.normal(size=shape))).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def answer(
    asked: Message,
    *,
    update: Arrays | None = None,
    times: float = 1.0,
    weight: float = 10.0,
    statistics: Arrays | None = None,
    loss: float = 0.5,
    change: Callable[[RecordDict], None] = lambda _content: None,
) -> Message:
    before = messages.unpack(asked.content[messages.ARRAYS])
    update = step(asked.metadata.dst_node_id % 1000) if update is None else update
    trained = {name: (value + times * update[name]).astype(np.float32) for name, value in before.items()}
    kept = messages.unpack(asked.content[messages.STATISTICS])
    moved = {name: value + np.float32(0.1) for name, value in kept.items()} if statistics is None else statistics
    reply = messages.TrainReply(trained=trained, statistics=moved, weight=weight, loss=loss)
    content = messages.train_records(reply)
    change(content)
    return Message(content, reply_to=asked)


def site_of(message: Message) -> int:
    return sorted(NODES).index(message.metadata.dst_node_id) + 1


def one_round(
    strategy: RoundStrategy,
    before: RoundState,
    reply: Callable[[Message], Message | None] = answer,
    *,
    number: int = 1,
    grid: Grid | None = None,
) -> tuple[RoundState, RoundReport]:
    asked = strategy.configure(number, before, ConfigRecord({"part": "fold-0"}), grid or FakeGrid())
    replies = [found for message in asked if (found := reply(message)) is not None]
    return strategy.aggregate(number, before, replies)


def by_site(**odd: Any) -> Callable[[Message], Message | None]:
    """``site_3={...}`` replies so, ``site_3=None`` not at all; all others honestly."""

    def reply(message: Message) -> Message | None:
        options = odd.get(f"site_{site_of(message)}", {})
        return None if options is None else answer(message, **options)

    return reply


def mean_step(found: RoundState, before: RoundState) -> np.ndarray:
    return np.concatenate([(found.trained[name] - before.trained[name]).ravel() for name in SHAPES])


def honest_mean(nodes: Iterable[int]) -> np.ndarray:
    steps = [np.concatenate([value.ravel() for value in step(node % 1000).values()]) for node in nodes]
    return np.mean(steps, axis=0)


def test_every_site_gets_the_weights_the_settings_and_its_round() -> None:
    before, config = state(), ConfigRecord({"part": "fold-0"})
    strategy = make_strategy(federation(round_timeout=77), EXCHANGE)
    asked = strategy.configure(3, before, config, FakeGrid())
    assert sorted(message.metadata.dst_node_id for message in asked) == sorted(NODES)
    for message in asked:
        assert (message.metadata.message_type, message.metadata.ttl) == ("train", 77)
        assert dict(message.content[messages.CONFIG]) == {"part": "fold-0", "server-round": 3}
        for key, sent in (("arrays", before.trained), ("statistics", before.statistics), ("fixed", before.fixed)):
            found = messages.unpack(message.content[key])
            assert found.keys() == sent.keys()
            for name in sent:
                np.testing.assert_array_equal(found[name], sent[name])
    assert dict(config) == {"part": "fold-0"}


def test_fedavg_is_the_mean_weighted_by_what_sites_claim() -> None:
    before = state()
    strategy = make_strategy(federation(), EXCHANGE)
    reply = by_site(site_1={"weight": 10.0}, site_2={"weight": 30.0}, site_3=None, site_4=None)
    found, report = one_round(strategy, before, reply)
    one, two = (np.concatenate([value.ravel() for value in step(node).values()]) for node in (20, 30))
    np.testing.assert_allclose(mean_step(found, before), 0.25 * one + 0.75 * two, atol=1e-6)
    assert found.number == 1
    assert (report.asked, report.used, report.lost, report.refused) == ((1, 2, 3, 4), (1, 2), (3, 4), {})
    assert report.losses == {1: 0.5, 2: 0.5}
    assert not report.void
    assert found.trained["head.bias"].dtype == np.float32


def test_uniform_weighting_does_not_ask_how_large_a_site_is() -> None:
    before = state()
    strategy = make_strategy(federation(weighting="uniform"), EXCHANGE)
    found, _ = one_round(strategy, before, by_site(site_1={"weight": 99_000.0}))
    np.testing.assert_allclose(mean_step(found, before), honest_mean(NODES), atol=1e-6)


def test_statistics_are_averaged_beside_the_strategy() -> None:
    """FedAdam would scale them and remember them."""
    before = state()
    chosen = federation(strategy={"name": "fedadam", "server_learning_rate": 0.5})
    strategy = make_strategy(chosen, EXCHANGE)
    sent = {"bn1.running_mean": np.full(5, 3, np.float32), "bn1.running_var": np.full(5, 5, np.float32)}
    found, _ = one_round(strategy, before, by_site(site_1={"weight": 30.0, "statistics": sent}))
    np.testing.assert_allclose(found.statistics["bn1.running_mean"], (3 * 3 + 3 * 0.1) / 6, rtol=1e-6)
    np.testing.assert_allclose(found.statistics["bn1.running_var"], (3 * 5 + 3 * 1.1) / 6, rtol=1e-6)
    assert all(set(moment) == set(SHAPES) for moment in found.strategy.values())
    assert not np.allclose(mean_step(found, before), honest_mean(NODES), atol=1e-3)


def test_fedprox_sends_its_mu_to_the_sites() -> None:
    strategy = make_strategy(federation(strategy={"name": "fedprox", "proximal": 0.25}), EXCHANGE)
    asked = strategy.configure(1, state(), ConfigRecord(), FakeGrid())
    assert all(message.content["config"]["proximal-mu"] == 0.25 for message in asked)


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedadam", "trimmed-mean", "median"])
def test_a_stopped_and_resumed_server_comes_to_the_same_numbers(name: str, tmp_path: Any) -> None:
    chosen = robust(name) if name in {"trimmed-mean", "median"} else federation(strategy={"name": name})

    def rounds(strategy: RoundStrategy, at: RoundState, numbers: Iterable[int]) -> RoundState:
        for number in numbers:
            at, report = one_round(strategy, at, partial(answer, times=1 / number), number=number)
            assert not report.void
        return at

    whole = rounds(make_strategy(chosen, EXCHANGE), state(), range(1, 5))
    save_round(tmp_path, rounds(make_strategy(chosen, EXCHANGE), state(), range(1, 3)))
    resumed = latest_round(tmp_path)
    assert resumed is not None
    assert resumed.number == 2
    resumed = rounds(make_strategy(chosen, EXCHANGE), resumed, range(3, 5))
    for kind in ("trained", "statistics"):
        for array, value in getattr(whole, kind).items():
            np.testing.assert_array_equal(getattr(resumed, kind)[array], value)
    if name == "fedadam":
        forgetful = rounds(
            make_strategy(chosen, EXCHANGE),
            replace(rounds(make_strategy(chosen, EXCHANGE), state(), (1, 2)), strategy={}),
            (3, 4),
        )
        assert not np.array_equal(forgetful.trained["head.weight"], whole.trained["head.weight"])


def test_a_share_of_the_sites_is_asked_the_same_after_a_resume() -> None:
    nodes = range(1, 13)

    def asked(number: int) -> list[int]:
        strategy = make_strategy(federation(fraction=0.5), EXCHANGE)
        chosen = strategy.configure(number, state(), ConfigRecord(), FakeGrid(nodes))
        return sorted(message.metadata.dst_node_id for message in chosen)

    drawn = [asked(number) for number in range(1, 9)]
    assert drawn == [asked(number) for number in range(1, 9)]
    assert all(len(set(found)) == 6 for found in drawn)
    assert len({tuple(found) for found in drawn}) > 4
    assert set().union(*drawn) == set(nodes)


def test_a_small_share_still_asks_the_least_number_of_sites() -> None:
    strategy = make_strategy(federation(fraction=0.01, min_sites=3), EXCHANGE)
    assert len(strategy.configure(1, state(), ConfigRecord(), FakeGrid())) == 3


def test_a_void_round_may_ask_others_when_it_is_tried_again() -> None:
    strategy = make_strategy(federation(fraction=0.2), EXCHANGE)
    before, grid = state(), FakeGrid(range(1, 13))
    drawn = set()
    for _ in range(6):
        asked = strategy.configure(1, before, ConfigRecord(), grid)
        drawn.add(tuple(sorted(message.metadata.dst_node_id for message in asked)))
        found, report = strategy.aggregate(1, before, [])
        assert found is before
        assert (report.void, len(report.lost)) == (True, 3)
    assert len(drawn) > 1


def test_too_few_connected_sites_make_the_round_void_without_asking() -> None:
    strategy, before = make_strategy(federation(min_sites=3), EXCHANGE), state()
    assert strategy.configure(1, before, ConfigRecord(), FakeGrid([1, 2])) == []
    found, report = strategy.aggregate(1, before, [])
    assert found is before
    assert (report.void, report.asked) == (True, ())
    assert report.reason == "fewer sites are connected than a round needs"


def test_sites_that_answer_late_or_leave_are_lost_and_the_round_goes_on() -> None:
    def reply(message: Message) -> Message | None:
        if site_of(message) == 2:
            return None
        if site_of(message) == 3:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "secret path"), reply_to=message)
        return answer(message)

    before = state()
    found, report = one_round(make_strategy(federation(), EXCHANGE), before, reply)
    assert (report.used, report.lost, report.refused) == ((1, 4), (2, 3), {})
    np.testing.assert_allclose(mean_step(found, before), honest_mean([20, NODES[0]]), atol=1e-6)


def test_too_few_replies_leave_everything_as_it_was() -> None:
    before = state()
    found, report = one_round(
        make_strategy(federation(min_sites=3), EXCHANGE), before, by_site(site_1=None, site_2=None)
    )
    assert found is before
    assert (report.void, report.used, report.lost) == (True, (), (1, 2))
    assert report.reason == "2 usable replies, and 3 are needed"


def test_sites_of_no_weight_make_no_mean() -> None:
    strategy = make_strategy(federation(weighting="positives"), EXCHANGE)
    before = state()
    found, report = one_round(strategy, before, lambda asked: answer(asked, weight=0.0))
    assert found is before
    assert "all sites have the weight 0" in report.reason


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (ErrorCode.MOD_FAILED_PRECONDITION, "This site takes no part\nnow.", "This site takes no part?now."),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "x" * 999, "x" * 300),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, None, "the site could not take part (code 2). Its own log says why"),
        (ErrorCode.INVALID_FAB, "/home/secret", "the site could not take part (code 7). Its own log says why"),
    ],
)
def test_a_site_that_fails_is_refused_with_our_own_words_alone(code: int, reason: str | None, said: str) -> None:
    def reply(message: Message) -> Message | None:
        return Message(Error(code, reason), reply_to=message) if site_of(message) == 2 else answer(message)

    _, report = one_round(make_strategy(federation(), EXCHANGE), state(), reply)
    assert report.refused == {2: said}
    assert report.used == (1, 3, 4)


def spoiled(key: str, name: str, value: np.ndarray) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        arrays = {**messages.unpack(content[key]), name: value}
        content[key] = messages.pack(arrays)

    return change


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"times": 100.0}, "norm is .* above 20"),
        ({"weight": 1e9}, "the weight is 1e.09, not 0 to 100000"),
        ({"change": spoiled("arrays", "head.bias", np.full(6, np.nan, np.float32))}, "6 values that are not finite"),
        ({"change": spoiled("arrays", "head.bias", np.zeros(5, np.float32))}, r"has the shape \(5,\)"),
        ({"change": spoiled("arrays", "stranger", np.zeros(5, np.float32))}, "an unknown 'stranger'"),
        ({"change": spoiled("statistics", "bn1.running_mean", np.full(5, 1e9, np.float32))}, "times its scale"),
        ({"change": spoiled("statistics", "bn1.running_var", np.full(5, -1, np.float32))}, "variance of -1"),
        ({"change": lambda content: content.pop("statistics")}, "without bn1.running_"),
        ({"change": lambda content: content.pop("metrics")}, "lacks its metrics"),
        ({"change": lambda content: content.update(metrics=MetricRecord({"num-examples": [1.0]}))}, "must be a number"),
    ],
)
@pytest.mark.parametrize("name", ["fedavg", "fedadam", "median"])
def test_an_answer_that_cannot_be_right_is_left_out_and_named(name: str, options: dict[str, Any], words: str) -> None:
    limits = {"max_norm": 20.0}
    chosen = robust(name, limits=limits) if name == "median" else federation(strategy={"name": name}, limits=limits)
    before = state()
    found, report = one_round(make_strategy(chosen, EXCHANGE), before, by_site(site_3=options))
    without, _ = one_round(make_strategy(chosen, EXCHANGE), before, by_site(site_3=None))
    assert (report.used, list(report.refused), report.lost) == ((1, 2, 4), [3], ())
    with pytest.raises(FederationError, match=words):
        raise FederationError(report.refused[3])
    for array in SHAPES:
        np.testing.assert_array_equal(found.trained[array], without.trained[array])


def test_statistics_that_nobody_asked_for_are_refused() -> None:
    before = replace(state(), statistics={})
    strategy = make_strategy(federation(batch_norm="local"), replace(EXCHANGE, statistics=()))
    sent = {"bn1.running_mean": np.zeros(5, np.float32)}
    found, report = one_round(strategy, before, by_site(site_1={"statistics": sent}, site_2={"statistics": {}}))
    assert list(report.refused) == [1]
    assert found.statistics == {}


def test_replies_of_strangers_and_second_replies_do_not_count() -> None:
    strategy, before = make_strategy(federation(), EXCHANGE), state()
    asked = strategy.configure(1, before, ConfigRecord(), FakeGrid())
    stranger = Message(asked[0].content, dst_node_id=555, message_type="train")
    replies = [answer(message) for message in asked]
    twice = answer(asked[0], times=50.0)
    found, report = strategy.aggregate(1, before, [*replies, twice, answer(stranger, times=50.0)])
    np.testing.assert_allclose(mean_step(found, before), honest_mean(NODES), atol=1e-6)
    assert report.used == (1, 2, 3, 4)


def test_a_site_keeps_its_number_when_another_joins() -> None:
    before = state()
    strategy = make_strategy(federation(), EXCHANGE)
    found, _ = one_round(strategy, before, answer, grid=FakeGrid([20, 30]))
    assert found.sites == {"20": 1, "30": 2}
    later, report = one_round(
        make_strategy(federation(), EXCHANGE), found, answer, number=2, grid=FakeGrid([5, 30, 20])
    )
    assert later.sites == {"20": 1, "30": 2, "5": 3}
    assert report.used == (1, 2, 3)


def test_a_scaled_update_is_refused_by_its_norm_under_fedavg() -> None:
    before = state()
    limited = federation(limits={"max_norm": 20.0})
    found, report = one_round(make_strategy(limited, EXCHANGE), before, by_site(site_2={"times": 100.0}))
    assert list(report.refused) == [2]
    assert distance(found, before, honest_mean([20, 40, NODES[0]])) < 1e-4


def distance(found: RoundState, before: RoundState, expected: np.ndarray) -> float:
    """Of the round's step from the expected one, in lengths of that."""
    return float(np.linalg.norm(mean_step(found, before) - expected) / np.linalg.norm(expected))


FLIPPED: dict[str, Any] = {"times": -1.0}
SCALED: dict[str, Any] = {"times": 100.0}


@pytest.mark.parametrize(("poison", "words"), [(FLIPPED, "learns against"), (SCALED, "update's norm is")])
def test_a_poisoned_site_is_seen(poison: dict[str, Any], words: str) -> None:
    _, report = one_round(
        make_strategy(federation(limits={"max_norm": 1e6}), EXCHANGE), state(), by_site(site_2=poison)
    )
    assert list(report.suspicious) == [2]
    assert words in report.suspicious[2][0]
    assert report.used == (1, 2, 3, 4)


@pytest.mark.parametrize("poison", [FLIPPED, SCALED, {"times": -100.0}], ids=["flipped", "scaled", "both"])
def test_a_poisoned_site_does_not_carry_a_robust_mean_away_but_a_plain_one(poison: dict[str, Any]) -> None:
    before, expected = state(), honest_mean([20, 40, NODES[0]])
    limits = {"max_norm": 1e6}
    reply = by_site(site_2=poison)
    away = {
        name: distance(one_round(make_strategy(chosen, EXCHANGE), before, reply)[0], before, expected)
        for name, chosen in {
            "fedavg": federation(limits=limits),
            "median": robust("median", limits=limits),
            "trimmed-mean": robust("trimmed-mean", limits=limits),
        }.items()
    }
    assert away["fedavg"] > 0.45
    assert away["median"] < 0.3
    assert away["trimmed-mean"] < 0.3


@pytest.mark.parametrize("name", ["median", "trimmed-mean"])
def test_poisoned_statistics_do_not_move_robust_ones(name: str) -> None:
    sent = {"bn1.running_mean": np.full(5, 900, np.float32), "bn1.running_var": np.full(5, 900, np.float32)}
    poisoned = by_site(site_2={"statistics": sent})
    found, report = one_round(make_strategy(robust(name), EXCHANGE), state(), poisoned)
    assert report.used == (1, 2, 3, 4)
    np.testing.assert_allclose(found.statistics["bn1.running_mean"], 0.1, rtol=1e-5)
    plain, _ = one_round(make_strategy(federation(), EXCHANGE), state(), poisoned)
    assert (plain.statistics["bn1.running_mean"] > 200).all()


def test_trimmed_mean_leaves_somebody_out_also_when_a_site_is_lost() -> None:
    """A share of a quarter of three sites is nobody: Flower's strategy would become a plain mean without a word."""
    before = state()
    reply = by_site(site_1=None, site_2={"times": 1000.0})
    chosen = robust("trimmed-mean", limits={"max_norm": 1e6})
    found, report = one_round(make_strategy(chosen, EXCHANGE), before, reply)
    assert report.used == (2, 3, 4)
    assert distance(found, before, honest_mean([40, NODES[0]])) < 0.5


@pytest.mark.parametrize("name", ["median", "trimmed-mean"])
def test_two_replies_make_no_robust_mean(name: str) -> None:
    before = state()
    found, report = one_round(make_strategy(robust(name), EXCHANGE), before, by_site(site_1=None, site_2=None))
    assert found is before
    assert report.reason == "2 usable replies, and 3 are needed"


def test_weights_that_burst_are_not_kept() -> None:
    chosen = federation(strategy={"name": "fedadam", "server_learning_rate": 1e39, "tau": 1e-30})
    before = state()
    found, report = one_round(make_strategy(chosen, EXCHANGE), before)
    assert found is before
    assert "the new weights are not finite" in report.reason


def test_nothing_is_aggregated_that_was_not_configured() -> None:
    strategy = make_strategy(federation(), EXCHANGE)
    one_round(strategy, state())
    with pytest.raises(FederationError, match="round 2 was not configured"):
        strategy.aggregate(2, state(), [])
