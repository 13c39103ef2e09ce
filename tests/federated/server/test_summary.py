"""A federation in words says what the settings do, above all what leaves a site."""

from importlib.util import find_spec
from typing import Any

import pytest

from hemoscope.federated.server.summary import epsilon_after, summarise
from hemoscope.federated.settings.federation import Federation, parse_federation

pytestmark = pytest.mark.filterwarnings("ignore:'click:DeprecationWarning")  # typer's, where Flower is imported

PRIVATE: dict[str, Any] = {"privacy": {"noise_multiplier": 1.0}, "weighting": "uniform", "batch_norm": "local"}


def federation(**tables: Any) -> Federation:
    return parse_federation({"name": "trial", "experiment": {"name": "small", "optimizer": {"ema": 0.0}}, **tables})


def text(sites: int = 4, **tables: Any) -> str:
    """All tables as lines ``subject: sentence``."""
    found = summarise(federation(**tables), sites=sites)
    return "\n".join(f"{title}\n" + "\n".join(": ".join(row) for row in rows) for title, rows in found)


def test_a_plain_federation_says_that_the_server_sees_each_update() -> None:
    said = text()
    assert "training: 10 rounds x 1 epoch: 10 epochs" in said
    assert "asks all sites" in said
    assert "strategy: fedavg\na site counts: its number of slices" in said
    assert "secure aggregation: off: the server sees each site's update" in said
    assert "privacy: off: no noise" in said
    assert "each round: all trained weights: their values\n" in said
    assert "each round: means and variances of batch norm\neach round: its mean loss\n" in said
    assert "no cell below 5 of a class" in said
    assert "a norm above 100, a weight above 100,000" in said


def test_with_secure_aggregation_updates_leave_masked_and_shortened_and_are_not_checked_one_by_one() -> None:
    said = text(secure_aggregation={"enabled": True}, min_sites=3)
    assert "SecAgg+, 3 shares, 2 bring a key back" in said
    assert "all trained weights: their change, shortened to norm 100, masked\n" in said
    assert "what it counts by, its number of slices, masked with them\n" in said
    assert "means and variances of batch norm, masked with them" in said
    assert "single updates are hidden" in said
    assert "a norm above" not in said
    assert "a round with: fewer than 3 updates left" in said


def test_local_batch_norm_does_not_leave() -> None:
    said = text(batch_norm="local")
    assert "all trained weights but batch norm's: their values" in said
    assert "means and variances" not in said


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"name": "fedprox", "proximal": 0.1}, "strategy: fedprox, mu 0.1\n"),
        ({"name": "fedadam"}, "strategy: fedadam, server learning rate 0.1\n"),
        ({"name": "trimmed-mean"}, "strategy: trimmed-mean, 25% of the sites left out at each end\n"),
        ({"name": "median"}, "strategy: median\na site counts: 1, as all sites"),
    ],
)
def test_each_strategy_is_named_with_its_number(strategy: dict[str, Any], words: str) -> None:
    assert words in text(strategy=strategy, weighting="uniform")


def test_one_round_of_one_epoch_is_said_in_the_singular() -> None:
    said = text(rounds=1, local_epochs=1, retries=1, histograms={"every": 1})
    assert "training: 1 round x 1 epoch: 1 epoch\n" in said
    assert "tried again up to 1 time\n" in said
    assert "evaluation: after every round\n" in said
    assert "training: 2 rounds x 3 epochs: 6 epochs\n" in text(rounds=2, local_epochs=3)


def test_some_sites_and_rare_evaluations_are_said() -> None:
    said = text(fraction=0.5, histograms={"every": 3})
    assert "asks 50% of the sites" in said
    assert "evaluation: every 3 rounds, and after the last" in said
    assert "evaluation: after the last round" in text(histograms={"every": 0})


def test_with_noise_no_loss_leaves_and_every_round_needs_every_site() -> None:
    said = text(**{**PRIVATE, "privacy": {"noise_multiplier": 1.0, "clipping_norm": 2.0}})
    assert "all trained weights but batch norm's: their values, their change, shortened to norm 2\n" in said
    assert "loss" not in said
    assert "void without every site" in said
    assert "a round with: a site missing" in said


def test_without_flower_epsilon_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemoscope.federated.server.summary.find_spec", lambda _name: None)
    assert epsilon_after(federation(**PRIVATE), rounds=10, sites=4) is None
    assert "epsilon not computed here (it needs Flower: make setup-federated) at delta 1e-05" in text(**PRIVATE)


@pytest.mark.skipif(find_spec("flwr") is None, reason="needs the extra: make setup-federated")
def test_epsilon_after_all_rounds_is_that_of_the_gaussian_mechanism() -> None:
    from math import log, sqrt

    spent = epsilon_after(federation(**PRIVATE), rounds=10, sites=4)
    # Renyi DP of order a of n Gaussian releases is a n / (2 z^2); the plain conversion at its best order (Mironov 2017)
    plain = 10 / 2 + sqrt(2 * 10 * log(1e5))
    assert spent is not None
    assert 0.75 * plain < spent <= plain  # the accountant converts a little better
    said = text(**PRIVATE)
    assert "noise 1 x 1 on the sum, for a whole site of 4" in said
    assert f"epsilon {spent:.3g} at delta 1e-05 after 10 rounds" in said
    limited = text(**{**PRIVATE, "privacy": {"noise_multiplier": 1.0, "max_epsilon": 8.0}})
    assert "after 10 rounds; ends before epsilon 8" in limited
