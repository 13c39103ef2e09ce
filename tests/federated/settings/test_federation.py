"""Federation files: every wrong word is refused by name, and what travels to a site reads back as what it was."""

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.errors import ConfigError
from hemoscope.federated.settings.federation import Federation, parse_federation, read_federation
from hemoscope.federated.settings.federation_sections import (
    HistogramConfig,
    LimitsConfig,
    PrivacyConfig,
    SecureAggregationConfig,
    StrategyConfig,
)
from hemoscope.federated.settings.site import Policy, Site, read_site
from hemoscope.training.experiment import Experiment, parse_experiment, read_experiment

REPOSITORY = Path(__file__).resolve().parents[3]
EXPERIMENT = 'name = "small"\n[run]\nepochs = 3\n[optimizer]\nema = 0\n'
FEDERATION = """
name = "trial"
experiment = "parts/small.toml"
rounds = 4
round_timeout = 60

[changes]
run.batch_size = 8
"preprocessing.size" = 64

[strategy]
name = "fedprox"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "small.toml").write_text(EXPERIMENT)
    path = tmp_path / "trial.toml"
    path.write_text(FEDERATION)
    return path


def small(**changes: Any) -> Experiment:
    return parse_experiment({"name": "small", "optimizer": {"ema": 0.0}, **changes}, where="small")


def test_a_file_names_its_experiment_beside_it_and_changes_its_keys(file: Path) -> None:
    federation = read_federation(file)
    assert federation.experiment == read_experiment(
        file.parent / "parts" / "small.toml", ["run.batch_size=8", "preprocessing.size=64"]
    )
    assert federation == Federation(
        name="trial",
        experiment=federation.experiment,
        rounds=4,
        round_timeout=60.0,
        strategy=StrategyConfig(name="fedprox"),
    )


def test_keys_can_be_changed_on_the_command_line_those_of_the_experiment_too(file: Path) -> None:
    federation = read_federation(file, ["rounds=2", "changes.run.batch_size=16", "strategy.proximal=1"])
    assert (federation.rounds, federation.experiment.run.batch_size, federation.strategy.proximal) == (2, 16, 1.0)


def test_the_comparison_of_the_repository_is_a_federation_of_the_epochs_of_its_pooled_arm() -> None:
    federation = read_federation(REPOSITORY / "src/hemoscope/experiments/federated.toml")
    assert federation.experiment == read_experiment(REPOSITORY / "src/hemoscope/experiments/federated-experiment.toml")
    assert federation.epochs == federation.experiment.run.epochs
    assert federation.experiment.run.held_out == ()  # the pooled arm and the sites see the same patients


def test_the_hospitals_of_the_pages_pass_the_policy_of_the_pages_and_can_be_personalised(tmp_path: Path) -> None:
    federation = read_federation(Path("hospitals"))
    page = (REPOSITORY / "docs" / "how-to" / "join-a-federation.md").read_text()
    (tmp_path / "site.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    policy = read_site(tmp_path / "site.toml").policy
    assert policy.secure_aggregation
    assert policy.refusal(federation, sites=4) is None
    assert federation.experiment.run.validation_share  # `personalise` validates on it


def test_a_federation_that_ships_is_read_by_its_bare_name_and_may_name_a_shipped_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_federation(Path("federated")).name == "ct-ich-federated"
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\nexperiment = "focal"')
    assert read_federation(own).experiment == read_experiment(Path("focal"))


privacies = st.builds(
    PrivacyConfig,
    noise_multiplier=st.floats(0.01, 10),
    clipping_norm=st.floats(0.01, 10),
    max_epsilon=st.none() | st.floats(0.1, 100),
)
secures = st.builds(
    SecureAggregationConfig, enabled=st.booleans(), shares=st.just(5), threshold=st.sampled_from([3, 4])
)


@given(
    st.builds(
        Federation,
        name=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,20}\Z"),
        description=st.text(),
        experiment=st.builds(
            lambda size, seed: small(preprocessing={"size": size}, run={"seed": seed}),
            st.sampled_from([32, 64, 256]),
            st.integers(0, 2**31),
        ),
        rounds=st.integers(1, 100),
        local_epochs=st.integers(1, 10),
        min_sites=st.integers(4, 10),
        round_timeout=st.floats(0.1, 1e6),
        batch_norm=st.sampled_from(["local", "fixed"]),
        weighting=st.just("uniform"),
        strategy=st.builds(StrategyConfig, name=st.sampled_from(["fedavg", "fedprox"]), proximal=st.floats(0, 10)),
        secure_aggregation=secures,
        privacy=st.just(PrivacyConfig()) | privacies,
        limits=st.builds(LimitsConfig, max_norm=st.floats(0.1, 1e6), max_weight=st.integers(1, 10**9)),
        histograms=st.builds(
            HistogramConfig,
            least_cell=st.integers(1, 100),
            every=st.integers(0, 9),
            folds=st.sampled_from(["together", "each"]),
        ),
    )
)
def test_a_federation_travels_as_json_text_and_is_what_it_was(federation: Federation) -> None:
    text = json.dumps(federation.to_json(), allow_nan=False)
    assert parse_federation(text) == federation
    assert parse_federation(json.loads(text)) == federation


def test_the_place_of_initial_weights_does_not_travel(file: Path) -> None:
    federation = read_federation(file, ['changes.run.init="/somewhere/private/start.safetensors"'])
    assert federation.experiment.run.init == "/somewhere/private/start.safetensors"
    assert "private" not in json.dumps(federation.to_json())


def test_the_record_names_every_setting_resolved() -> None:
    record = Federation(name="x", experiment=small()).to_json()
    assert set(record) == {item.name for item in dataclasses.fields(Federation)}
    assert record["secure_aggregation"] == {"enabled": False, "shares": 3, "threshold": 2}


@pytest.mark.parametrize(
    ("changes", "norm"),
    [
        ({}, None),
        ({"secure_aggregation": SecureAggregationConfig(enabled=True)}, 100.0),
        ({"privacy": PrivacyConfig(noise_multiplier=1, clipping_norm=3)}, 3.0),
        ({"privacy": PrivacyConfig(noise_multiplier=1, clipping_norm=300)}, 100.0),
    ],
)
def test_a_site_shortens_its_update_where_the_server_cannot_check_it_or_noise_is_measured_for_it(
    changes: dict[str, Any], norm: float | None
) -> None:
    federation = Federation(name="x", experiment=small(), weighting="uniform", batch_norm="fixed", **changes)
    assert federation.clipping_norm == norm


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("round=3", r"trial\.toml: unknown key round\. Known here: name"),
        ("strategy.mu=1", "strategy: unknown key mu"),
        ("changes.run.epoch=1", "run: unknown key epoch"),
        ("changes.name.first=x", r"trial\.toml: changes: name is not a table"),
        ("changes=3", "changes must be a table of keys of the experiment, got 3"),
        ("experiment=3", "experiment must name an experiment, .* got 3"),
        ("experiment=absent.toml", r"^absent\.toml: no such experiment file"),
        ("name=..", r"name '\.\.' must begin with a letter or digit"),
        ("name=a/b", "name 'a/b' must begin"),
        ("name='x\n'", "--set|name"),
        ("rounds=0", "rounds must be 1 to 10000, got 0"),
        ("rounds=2.5", "rounds must be int, got 2.5"),
        ("local_epochs=0", "local_epochs must be 1 to 1000, got 0"),
        ("fraction=0", "fraction must be above 0 and at most 1, got 0"),
        ("fraction=nan", "fraction must be above 0 and at most 1, got nan"),
        ("min_sites=0", "min_sites must be 1 to 10000, got 0"),
        ("retries=-1", "retries must be 0 to 1000, got -1"),
        ("round_timeout=inf", "round_timeout must be a number above 0, got inf"),
        ("batch_norm=none", "batch_norm must be one of shared, local, fixed, got none"),
        ("weighting=images", "weighting must be one of slices, positives, uniform, got images"),
        ("strategy.name=krum", "strategy.name must be one of fedavg, .*, got krum"),
        ("strategy.proximal=-1", "strategy.proximal must be 0 to 1000, got -1"),
        ("strategy.proximal=nan", "strategy.proximal must be 0 to 1000, got nan"),
        ("strategy.server_learning_rate=0", "strategy.server_learning_rate must be a number above 0, got 0"),
        ("strategy.tau=0", "strategy.tau must be a number above 0"),
        ("strategy.beta_1=1", "strategy.beta_1 must be at least 0 and below 1, got 1"),
        ("strategy.beta_2=-0.1", "strategy.beta_2 must be at least 0 and below 1, got -0.1"),
        ("strategy.trim=0.5", "strategy.trim must be at least 0 and below 0.5, got 0.5"),
        ("secure_aggregation.shares=4", "shares must be odd and at least 3, got 4"),
        ("secure_aggregation.shares=1", "shares must be odd and at least 3, got 1"),
        ("secure_aggregation.threshold=3", "more than half of the 3 shares and fewer than all, got 3"),
        ("secure_aggregation.threshold=1", "more than half of the 3 shares and fewer than all, got 1"),
        ("privacy.noise_multiplier=-1", "privacy.noise_multiplier must be 0 to 1e.06, got -1"),
        ("privacy.clipping_norm=0", "privacy.clipping_norm must be a number above 0, got 0"),
        ("privacy.delta=0", "privacy.delta must lie between 0 and 1, got 0"),
        ("privacy.delta=1", "privacy.delta must lie between 0 and 1, got 1"),
        ("privacy.max_epsilon=0", "privacy.max_epsilon must be a number above 0, got 0"),
        ("limits.max_norm=nan", "limits.max_norm must be a number above 0, got nan"),
        ("limits.max_weight=0", "limits.max_weight must be 1 to 1e.09, got 0"),
        ("histograms.least_cell=0", "histograms.least_cell must be 1 to 10000, got 0"),
        ("histograms.folds=some", "histograms.folds must be one of together, each, got some"),
        ("histograms.every=-1", "histograms.every must be 0 to 10000, got -1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(file: Path, change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_federation(file, [change])


def test_a_file_that_is_not_there_or_is_no_toml_is_refused_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^absent\.toml: no such federation file.*that ships: federated"):
        read_federation(tmp_path / "absent.toml")
    path = tmp_path / "broken.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"^broken\.toml: not a readable federation file"):
        read_federation(path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"name": 1e999999999999, '])
def test_text_from_a_server_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="federation: not a federation's JSON"):
        parse_federation(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"name"', "{}", '{"name": "x"}'])
def test_json_that_is_no_federation_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"federation must be a table|federation: .*missing"):
        parse_federation(text)


ROW = re.compile(r"^\| `(\w+)` \| (?:`(.+?)`)? ?\| \S", re.MULTILINE)


def documented() -> dict[str, dict[str, Any]]:
    """The page's defaults by heading and key; a key without one must be given."""
    page = (REPOSITORY / "docs" / "reference" / "federation.md").read_text()
    tables: dict[str, dict[str, Any]] = {}
    for section in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]:
        tables[section.partition("\n")[0].strip("`")] = {
            key: None if text == "none" else tomllib.loads(f"x = {text}")["x"] if text else "given"
            for key, text in ROW.findall(section)
        }
    return tables


def test_every_key_of_both_files_stands_on_the_page_with_its_default() -> None:
    def plain(kind: Any) -> dict[str, Any]:
        fields = {item.name: item.default for item in dataclasses.fields(kind)}
        given = {name: "given" if value is dataclasses.MISSING else value for name, value in fields.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    tables = {
        "[strategy]": StrategyConfig,
        "[secure_aggregation]": SecureAggregationConfig,
        "[privacy]": PrivacyConfig,
        "[limits]": LimitsConfig,
        "[histograms]": HistogramConfig,
        "[policy]": Policy,
        "Federation": Federation,
        "Site": Site,
    }
    expected = {name: plain(kind) for name, kind in tables.items()}
    expected["Federation"]["changes"] = "given"
    for heading in tables:  # a table of its own is no key of the table above it
        expected["Site" if heading == "[policy]" else "Federation"].pop(heading.strip("[]"), None)
    assert documented() == {**expected, "What combines": {}}
