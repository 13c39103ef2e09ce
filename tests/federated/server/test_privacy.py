"""Noise and its account: the right amount, on the trained weights alone, never from a seed that is known."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")
pytest.importorskip("dp_accounting", reason="needs the extra: make setup-federated")

from flwr.app import ConfigRecord, Message
from flwr.supercore.task_identity import TaskIdentity

from hemoscope.errors import FederationError
from hemoscope.federated.exchange import messages
from hemoscope.federated.exchange.weights import Arrays, Exchange
from hemoscope.federated.server.checkpoints import RoundReport, RoundState, latest_round, save_round
from hemoscope.federated.server.privacy import (
    BudgetSpentError,
    aggregate_private,
    check_budget,
    epsilon_of,
    open_accountant,
    spent_epsilon,
)
from hemoscope.federated.server.strategies import RoundStrategy, make_strategy
from hemoscope.federated.settings.federation import Federation, parse_federation

SITES, VALUES = 4, 60_000
EXCHANGE = Exchange(trained=("w", "b"), statistics=(), fixed=("bn1.running_mean",))


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who Flower's runtime says that we are."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class FakeGrid:
    """Nodes that nobody talks to."""

    run: Any = None

    def __init__(self, sites: int = SITES) -> None:
        self.nodes = range(1, sites + 1)

    def get_node_ids(self) -> Iterable[int]:
        return self.nodes


def federation(**privacy: Any) -> Federation:
    experiment = {"name": "tiny", "run": {"split": "folds", "init": "none"}, "optimizer": {"ema": 0.0}}
    chosen = {"noise_multiplier": 2.0, "clipping_norm": 0.5, "delta": 1e-5, **privacy}
    record = {"name": "four", "experiment": experiment, "weighting": "uniform", "batch_norm": "fixed"}
    return parse_federation({**record, "privacy": chosen})


def state() -> RoundState:
    trained = {"w": np.zeros((VALUES // 10, 10), np.float32), "b": np.zeros(7, np.float32)}
    return RoundState(trained=trained, fixed={"bn1.running_mean": np.ones(3, np.float32)})


def unit_step(length: float) -> Arrays:
    """The same update for all: ``length`` in one place."""
    step = {name: np.zeros_like(value) for name, value in state().trained.items()}
    step["b"][3] = length
    return step


def answer(asked: Message, *, length: float = 0.25, weight: float = 12.0, spoil: float | None = None) -> Message:
    before = messages.unpack(asked.content[messages.ARRAYS])
    trained = {name: before[name] + value for name, value in unit_step(length).items()}
    if spoil is not None:
        trained["b"][0] = spoil
    reply = messages.TrainReply(trained=trained, statistics={}, weight=weight, loss=None)
    return Message(messages.train_records(reply), reply_to=asked)


def one_round(
    strategy: RoundStrategy, before: RoundState, *, number: int = 1, sites: int = SITES, **odd: dict[str, Any] | None
) -> tuple[RoundState, RoundReport]:
    asked = strategy.configure(number, before, ConfigRecord(), FakeGrid(sites))
    options = {message: odd.get(f"site_{message.metadata.dst_node_id}", {}) for message in asked}
    return strategy.aggregate(number, before, [answer(message, **o) for message, o in options.items() if o is not None])


def exact_epsilon(noise: float, rounds: int, delta: float) -> float:
    """Of composed Gaussian mechanisms, without Renyi's detour: Dong et al., "Gaussian differential privacy", 2022."""
    mu = math.sqrt(rounds) / noise

    def excess(epsilon: float) -> float:
        tail = stats.norm.logcdf(-epsilon / mu - mu / 2)
        return stats.norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon + tail) - delta

    return float(optimize.brentq(excess, 0, 1000))


@pytest.mark.parametrize(("noise", "rounds"), [(0.5, 1), (1.0, 1), (1.0, 10), (4.0, 10), (8.0, 100)])
def test_epsilon_is_an_upper_bound_near_the_exact_one(noise: float, rounds: int) -> None:
    exact, found = exact_epsilon(noise, rounds, 1e-5), epsilon_of(noise, rounds, 1e-5, SITES)
    assert exact <= found <= 1.15 * exact


def test_epsilon_without_noise_is_infinite_and_without_rounds_nothing() -> None:
    assert epsilon_of(0, 3, 1e-5, SITES) == math.inf
    assert epsilon_of(0, 0, 1e-5, SITES) == epsilon_of(1, 0, 1e-5, SITES) == 0


def test_epsilon_does_not_depend_on_how_many_sites_there_are() -> None:
    assert epsilon_of(1, 5, 1e-5, 2) == epsilon_of(1, 5, 1e-5, 400)


def test_the_mean_of_all_sites_gets_noise_of_the_stated_size() -> None:
    before, strategy = state(), make_strategy(federation(), EXCHANGE)
    found, report = one_round(strategy, before)
    deviation = 2.0 * 0.5 / SITES
    assert found.trained["w"].std() == pytest.approx(deviation, rel=5 / math.sqrt(2 * VALUES))
    assert abs(found.trained["w"].mean()) < 5 * deviation / math.sqrt(VALUES)
    assert abs(found.trained["b"][3] - 0.25) < 6 * deviation
    assert (report.used, report.void) == ((1, 2, 3, 4), False)
    assert report.epsilon == pytest.approx(epsilon_of(2.0, 1, 1e-5, SITES))
    assert found.trained["w"].dtype == np.float32
    np.testing.assert_array_equal(found.fixed["bn1.running_mean"], before.fixed["bn1.running_mean"])


def test_sites_receive_the_norm_to_clip_to() -> None:
    strategy = make_strategy(federation(), EXCHANGE)
    asked = strategy.configure(1, state(), ConfigRecord(), FakeGrid())
    assert [message.content["config"]["clipping_norm"] for message in asked] == [0.5] * SITES


def test_noise_does_not_follow_from_a_seed_that_somebody_set() -> None:
    """Training seeds NumPy with a number that stands in the experiment: whoever knows it could take the noise off."""
    drawn = []
    for _ in range(2):
        np.random.seed(257)  # noqa: NPY002
        found, _ = one_round(make_strategy(federation(), EXCHANGE), state())
        np.random.seed(257)  # noqa: NPY002
        accountant = open_accountant(federation(), sites=SITES, state=None)
        drawn += [found.trained["w"], aggregate_private(state().trained, federation(), accountant, sites=SITES)["w"]]
    assert not any(np.array_equal(drawn[0], other) for other in drawn[1:])
    assert not np.array_equal(drawn[1], drawn[3])


def test_a_site_that_did_not_clip_is_shortened_and_named() -> None:
    quiet = federation(noise_multiplier=1e-6)  # so that the mean can be seen
    found, report = one_round(make_strategy(quiet, EXCHANGE), state(), site_2={"length": 5000.0})
    assert report.used == (1, 2, 3, 4)
    assert report.norms[2] == pytest.approx(5000)
    assert "it did not clip: norm 5000 above 0.5, shortened at the server" in report.suspicious[2]
    assert found.trained["b"][3] == pytest.approx((3 * 0.25 + 0.5) / 4, abs=1e-4)


def test_weights_that_sites_claim_count_for_nothing() -> None:
    quiet = federation(noise_multiplier=1e-6)
    found, _ = one_round(make_strategy(quiet, EXCHANGE), state(), site_1={"length": 0.45, "weight": 9999.0})
    assert found.trained["b"][3] == pytest.approx((0.45 + 3 * 0.25) / 4, abs=1e-4)


@pytest.mark.parametrize("odd", [{"site_3": None}, {"site_3": {"spoil": math.nan}}], ids=["lost", "refused"])
def test_without_one_of_the_sites_nothing_is_released_or_spent(odd: dict[str, Any]) -> None:
    before, strategy = state(), make_strategy(federation(), EXCHANGE)
    found, report = one_round(strategy, before, **odd)
    assert found is before
    assert (report.void, report.used, report.epsilon) == (True, (), 0.0)
    assert report.reason == "3 usable replies, and 4 are needed"
    again, report = one_round(strategy, before)
    assert report.epsilon == pytest.approx(epsilon_of(2.0, 1, 1e-5, SITES))
    assert again.number == 1


def test_all_the_sites_of_the_first_round_are_waited_for_later() -> None:
    first, _ = one_round(make_strategy(federation(), EXCHANGE), state())
    for strategy in (make_strategy(federation(), EXCHANGE), make_strategy(federation(), EXCHANGE, sites=SITES)):
        found, report = one_round(strategy, first, number=2, sites=3)
        assert found is first
        assert (report.void, report.asked) == (True, ())
        _, report = one_round(strategy, first, number=2, sites=6)  # whoever comes later does not change the noise
        assert report.used == (1, 2, 3, 4)


def test_the_number_of_sites_that_the_server_expects_is_waited_for_from_the_start() -> None:
    before, strategy = state(), make_strategy(federation(), EXCHANGE, sites=SITES)
    assert one_round(strategy, before, sites=3)[1].void
    assert one_round(strategy, before, sites=4)[1].used == (1, 2, 3, 4)


def test_the_account_goes_on_where_the_server_stopped(tmp_path: Path) -> None:
    before, report = state(), None
    for number in range(1, 5):
        before, report = one_round(make_strategy(federation(), EXCHANGE), before, number=number)
        save_round(tmp_path, before)
        read = latest_round(tmp_path)
        assert read is not None
        before = read
    assert report is not None
    assert report.epsilon == pytest.approx(epsilon_of(2.0, 4, 1e-5, SITES))


def test_an_account_of_other_settings_is_refused() -> None:
    first, _ = one_round(make_strategy(federation(), EXCHANGE), state())
    strategy = make_strategy(federation(delta=1e-6), EXCHANGE)
    with pytest.raises(FederationError, match=r"cannot be carried on .* Go on with the same delta"):
        strategy.configure(2, first, ConfigRecord(), FakeGrid())
    damaged = replace(first, accountant={**(first.accountant or {}), "orders": []})
    with pytest.raises(FederationError, match="cannot be carried on"):
        make_strategy(federation(), EXCHANGE).configure(2, damaged, ConfigRecord(), FakeGrid())


def test_training_ends_before_the_highest_epsilon_is_exceeded() -> None:
    limit = (epsilon_of(2.0, 2, 1e-5, SITES) + epsilon_of(2.0, 3, 1e-5, SITES)) / 2
    before, strategy = state(), make_strategy(federation(max_epsilon=limit), EXCHANGE)
    for number in (1, 2):
        before, report = one_round(strategy, before, number=number)
    assert report.epsilon is not None
    assert report.epsilon <= limit
    with pytest.raises(
        BudgetSpentError, match=r"2 rounds are done, epsilon is [\d.]+ at delta 1e-05.* round 2 are kept"
    ):
        strategy.configure(3, before, ConfigRecord(), FakeGrid())
    assert isinstance(BudgetSpentError("x"), FederationError)


def test_a_masked_mean_gets_the_same_noise_and_count() -> None:
    accountant = open_accountant(federation(), sites=SITES, state=None)
    mean = {name: np.full_like(value, 3) for name, value in state().trained.items()}
    found = aggregate_private(mean, federation(), accountant, sites=SITES)
    deviation = 2.0 * 0.5 / SITES
    assert found["w"].std() == pytest.approx(deviation, rel=5 / math.sqrt(2 * VALUES))
    assert found["w"].mean() == pytest.approx(3, abs=5 * deviation / math.sqrt(VALUES))
    assert (mean["w"] == 3).all()
    assert spent_epsilon(accountant) == pytest.approx(epsilon_of(2.0, 1, 1e-5, SITES))
    kept = json.loads(json.dumps(accountant.state_dict()))
    assert spent_epsilon(open_accountant(federation(), sites=SITES, state=kept)) == spent_epsilon(accountant)


def test_a_mean_of_some_sites_is_not_released() -> None:
    accountant = open_accountant(federation(), sites=SITES, state=None)
    with pytest.raises(FederationError, match="the mean is of 3 sites, not of all 4"):
        aggregate_private(state().trained, federation(), accountant, sites=3)
    assert accountant.num_releases == 0


def test_a_masked_mean_beyond_the_budget_is_not_released() -> None:
    chosen = federation(max_epsilon=0.01)
    accountant = open_accountant(chosen, sites=SITES, state=None)
    with pytest.raises(BudgetSpentError, match="0 rounds are done"):
        check_budget(chosen, accountant, sites=SITES)
    with pytest.raises(BudgetSpentError, match="0 rounds are done"):
        aggregate_private(state().trained, chosen, accountant, sites=SITES)
    assert accountant.num_releases == 0
    check_budget(federation(), open_accountant(federation(), sites=SITES, state=None), sites=SITES)
