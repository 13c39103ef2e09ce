"""A site's policy is checked against the settings in the message, and its refusals say nothing but the policy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.settings.site import Policy, Site
from hemoscope.federated.settings.site_policy import (
    MODULUS,
    STEPS,
    PolicyRefusalError,
    SecureSetup,
    cell_size,
    check_masked,
    check_request,
    check_setup,
    check_unmask,
    part_folder,
)
from hemoscope.training.experiment import Experiment


@pytest.fixture
def federation(small_experiment: Callable[..., Experiment]) -> Callable[..., Federation]:
    def build(**changes: Any) -> Federation:
        return parse_federation({"name": "tiny", **changes, "experiment": small_experiment().to_json()})

    return build


def test_what_the_policy_allows_passes(federation: Callable[..., Federation]) -> None:
    check_request(Policy(), federation(), sites=2)
    check_request(Policy(secure_aggregation=True), federation(secure_aggregation={"enabled": True}), sites=3)
    check_masked(federation(), masked=False)
    check_masked(federation(secure_aggregation={"enabled": True}), masked=True)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(secure_aggregation=True), "^This site trains with secure aggregation alone.$"),
        (Policy(privacy=True), "^This site trains with differential privacy alone.$"),
        (Policy(min_sites=3), "^This site trains with at least 3 sites alone.$"),
        (Policy(allow_experiments=("other",)), "^This site does not allow this experiment.$"),
    ],
)
def test_what_the_policy_forbids_is_refused_in_one_sentence(
    federation: Callable[..., Federation], policy: Policy, reason: str
) -> None:
    with pytest.raises(PolicyRefusalError, match=reason):
        check_request(policy, federation(), sites=2)


@pytest.mark.parametrize("promised", [True, False])
def test_masks_must_be_there_where_the_settings_promise_them(
    federation: Callable[..., Federation], *, promised: bool
) -> None:
    settings = federation(secure_aggregation={"enabled": promised})
    with pytest.raises(PolicyRefusalError, match="forbid a round with"):
        check_masked(settings, masked=not promised)


@pytest.mark.parametrize(("asked", "allowed", "used"), [(5, 5, 5), (1, 5, 5), (10, 5, 10)])
def test_the_coarser_cell_wins(federation: Callable[..., Federation], asked: int, allowed: int, used: int) -> None:
    assert cell_size(Policy(least_cell=allowed), federation(histograms={"least_cell": asked})) == used


def setup(**changes: int) -> SecureSetup:
    return SecureSetup(**{"sites": 4, "shares": 3, "threshold": 2, "steps": STEPS, "modulus": MODULUS, **changes})


def test_numbers_that_hide_enough_pass() -> None:
    check_setup(Policy(min_sites=4), setup())
    check_setup(Policy(), setup(sites=9, shares=5, threshold=3))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sites": 2}, "at least 3 sites"),
        ({"shares": 1, "threshold": 1}, "above half"),
        ({"threshold": 1}, "above half"),
        ({"threshold": 3}, "above half"),
        ({"shares": 4, "threshold": 2}, "above half"),
        ({"steps": 1 << 22}, "modulus"),
        ({"modulus": 1 << 41}, "modulus"),
    ],
)
def test_numbers_that_hide_too_little_are_refused(changes: dict[str, int], reason: str) -> None:
    with pytest.raises(PolicyRefusalError, match=reason):
        check_setup(Policy(), setup(**changes))


def test_steps_of_all_sites_fit_below_the_modulus() -> None:
    assert STEPS * 1024 <= MODULUS
    assert STEPS < 1 << 31  # Flower rounds to int32


def test_shares_are_given_for_sites_that_stayed_or_left() -> None:
    check_unmask(11, [11, 12], [13], threshold=2)


@pytest.mark.parametrize(
    ("active", "dead"), [([11, 12], [12]), ([12, 13], []), ([11, 11], []), ([11], [12]), ([11, 12], [13, 13])]
)
def test_shares_that_would_unmask_one_site_are_not_given(active: list[int], dead: list[int]) -> None:
    with pytest.raises(PolicyRefusalError, match="unmask a single update"):
        check_unmask(11, active, dead, threshold=2)


def test_the_work_of_a_part_has_one_place(federation: Callable[..., Federation], tmp_path: Path) -> None:
    site = Site(name="a", data=tmp_path, work=tmp_path / "work")
    assert part_folder(site, federation(), "fold-0") == tmp_path / "work" / "tiny" / "fold-0"


@pytest.mark.parametrize("part", ["", "..", "../x", "a/b", "/etc", "a" * 65, "a\0"])
def test_a_part_that_is_no_folders_name_is_refused(
    federation: Callable[..., Federation], tmp_path: Path, part: str
) -> None:
    with pytest.raises(FederationError, match="unsafe name"):
        part_folder(Site(name="a", data=tmp_path, work=tmp_path), federation(), part)


@pytest.mark.parametrize(
    "changed",
    [
        {"rounds": 9999},
        {"histograms": {"folds": "each"}},
        {"histograms": {"every": 1}},
        {"limits": {"max_norm": 99.0}},
        {"privacy": {"noise_multiplier": 1e-9}, "weighting": "uniform", "batch_norm": "fixed"},
    ],
)
def test_no_server_changes_a_setting_that_the_site_agreed_to(
    federation: Callable[..., Federation], changed: dict[str, Any]
) -> None:
    policy = Policy(agreed=(federation().fingerprint,))
    check_request(policy, federation(), sites=2)
    with pytest.raises(PolicyRefusalError, match="it agreed to alone"):
        check_request(policy, federation(**changed), sites=2)


def test_an_experiment_of_the_same_name_with_another_split_is_not_what_was_agreed_to(
    small_experiment: Callable[..., Experiment],
) -> None:
    def with_seed(seed: int) -> Federation:
        record = small_experiment().to_json()
        record["run"]["split_seed"] = seed
        return parse_federation({"name": "tiny", "experiment": record})

    policy = Policy(allow_experiments=(with_seed(1).experiment.name,), agreed=(with_seed(1).fingerprint,))
    check_request(policy, with_seed(1), sites=2)
    with pytest.raises(PolicyRefusalError, match="agreed to alone"):
        check_request(policy, with_seed(2), sites=2)


def test_the_fingerprint_is_the_same_after_a_journey(federation: Callable[..., Federation]) -> None:
    sent = federation()
    assert parse_federation(json.dumps(sent.to_json())).fingerprint == sent.fingerprint


def test_what_is_no_fingerprint_is_not_agreed_to() -> None:
    with pytest.raises(ConfigError, match=r"policy.agreed 'abc' is no fingerprint"):
        Policy(agreed=("abc",))
