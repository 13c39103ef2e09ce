"""What excludes each other is refused with the reason, and the documentation shows the table that decides."""

import itertools
from pathlib import Path
from typing import Any, get_args

import pytest

from hemoscope.errors import ConfigError
from hemoscope.federated.settings.combinations import COMBINATIONS, check_combinations, combination_table
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.settings.federation_sections import BatchNorm, Strategy, Weighting

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "federation.md"

SECURE, NOISE = {"secure_aggregation": {"enabled": True}}, {"privacy": {"noise_multiplier": 1.0}}
UNIFORM: dict[str, Any] = {"weighting": "uniform"}
MEDIAN = {"strategy": {"name": "median"}, **UNIFORM}
PRIVATE = {**NOISE, **UNIFORM, "batch_norm": "fixed"}


def federation(experiment: dict[str, Any] | None = None, **tables: Any) -> Federation:
    tables["experiment"] = {"name": "small", "optimizer": {"ema": 0.0}, **(experiment or {})}
    return parse_federation({"name": "trial", **tables})


@pytest.mark.parametrize(
    "tables",
    [
        {},
        MEDIAN,
        {"strategy": {"name": "trimmed-mean"}, **UNIFORM, "fraction": 0.5},
        SECURE,
        {**SECURE, "strategy": {"name": "fedprox"}, "weighting": "positives"},
        PRIVATE,
        {**PRIVATE, **SECURE, "batch_norm": "local"},
        {"strategy": {"name": "fedadam"}, "fraction": 0.5, "batch_norm": "local"},
    ],
)
def test_what_combines_is_taken(tables: dict[str, Any]) -> None:
    check_combinations(federation(**tables))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"strategy": {"name": "median"}}, 'median needs weighting = "uniform": each coordinate is sorted'),
        ({**MEDIAN, **SECURE}, "needs secure_aggregation.enabled = false: they look at single updates"),
        ({**MEDIAN, **NOISE, "batch_norm": "fixed"}, "needs privacy.noise_multiplier = 0: .* another sensitivity"),
        ({**SECURE, "strategy": {"name": "fedadam"}}, 'needs strategy.name = "fedavg" or "fedprox": the server learns'),
        ({**SECURE, "fraction": 0.5}, r"secure_aggregation.enabled = true needs fraction = 1.0: sums over changing"),
        ({**SECURE, "min_sites": 1}, "needs min_sites at least secure_aggregation.threshold: a sum over fewer"),
        ({**PRIVATE, "strategy": {"name": "fedadam"}}, "noise_multiplier above 0 needs strategy.name .*: the noise is"),
        ({**PRIVATE, "weighting": "slices"}, 'noise_multiplier above 0 needs weighting = "uniform": with other'),
        ({**PRIVATE, "fraction": 0.5}, "noise_multiplier above 0 needs fraction = 1.0: epsilon is counted"),
        ({**PRIVATE, "batch_norm": "shared"}, 'needs batch_norm = "local" or "fixed": shared statistics'),
        ({"experiment": {"run": {"split": "slice"}}}, 'needs run.split = "folds" or "patient" .*: a split by slice'),
        ({"experiment": {"optimizer": {"ema": 0.99}}}, "needs optimizer.ema = 0 in the experiment: no moving average"),
        ({"experiment": {"sequence": {}}}, r"needs no table \[sequence\] in the experiment: the slice network alone"),
        ({"experiment": {"run": {"devices": 2}}}, "needs run.devices = 1 and run.nodes = 1 .*: a site's round"),
        ({"experiment": {"run": {"devices": "auto"}}}, "needs run.devices = 1 and run.nodes = 1"),
        ({"experiment": {"run": {"nodes": 2}}}, "needs run.devices = 1 and run.nodes = 1"),
        ({"experiment": {"run": {"accumulate": 2}}}, "needs run.accumulate = 1 in the experiment: the batches"),
        ({"experiment": {"run": {"held_out": ["p1"]}}}, "needs no run.held_out .*: settings travel to every site"),
        ({"experiment": {"run": {"split": "patient", "early_stop": 2}}}, "needs run.early_stop = 0 .*: the rounds say"),
    ],
)
def test_what_excludes_each_other_is_refused_with_the_reason(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^federation trial: .*{words}.* Choose one or the other$"):
        federation(**tables)


def test_every_broken_rule_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"median needs weighting.*above 0 needs strategy.name.*needs batch_norm"):
        federation(strategy={"name": "median"}, **NOISE)


def allowed(strategy: str, weighting: str, batch_norm: str, secure: bool, private: bool, fraction: float) -> bool:
    """The contract in one expression each, written apart from the table."""
    if strategy in {"trimmed-mean", "median"}:
        return weighting == "uniform" and not secure and not private
    if (secure or private) and (strategy == "fedadam" or fraction < 1):
        return False
    return not private or (weighting == "uniform" and batch_norm != "shared")


def test_of_all_combinations_exactly_those_that_make_sense_are_taken() -> None:
    switches = (get_args(Strategy), get_args(Weighting), get_args(BatchNorm), (False, True), (False, True), (0.5, 1.0))
    taken = 0
    for strategy, weighting, batch_norm, secure, private, fraction in itertools.product(*switches):
        tables = {
            "strategy": {"name": strategy},
            "weighting": weighting,
            "batch_norm": batch_norm,
            "secure_aggregation": {"enabled": secure},
            "privacy": {"noise_multiplier": float(private)},
            "fraction": fraction,
        }
        try:
            federation(**tables)
            found = True
        except ConfigError:
            found = False
        taken += found
        assert found == allowed(strategy, weighting, batch_norm, secure, private, fraction), tables
    assert taken == 92  # of 360


def test_the_page_shows_the_table_that_decides() -> None:
    assert combination_table() in PAGE.read_text()
    assert combination_table().count("\n") == len(COMBINATIONS) + 1
