"""Statements of a card: the exporter's own come first, the software's fill the rest; wrong files are refused."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from hemoscope.errors import ConfigError
from hemoscope.inference.card import ModelCard
from hemoscope.inference.card_statements import Statements
from hemoscope.training.card_words import SOFTWARE, read_statements, statements_of
from hemoscope.training.experiment import Experiment, RunConfig


def test_what_the_exporter_says_comes_first(tiny_experiment: Callable[..., Experiment]) -> None:
    given = Statements(developer="somebody", risk_level="high", not_stated={"contact": "why", "security": "why"})
    found = statements_of(tiny_experiment(), given)
    assert (found.developer, found.risk_level) == ("somebody", "high")
    assert found.security == SOFTWARE.security  # stated, so its reason is gone
    assert dict(found.not_stated or {}) == {"contact": "why"}
    assert found.funding is None


def test_what_follows_from_the_run_is_stated(tiny_experiment: Callable[..., Experiment]) -> None:
    experiment = tiny_experiment()
    found = statements_of(experiment, None)
    assert found.release_date
    assert abs(date.fromisoformat(found.release_date) - datetime.now(UTC).date()).days <= 1
    assert found.model_type
    assert experiment.network.backbone in found.model_type
    leaking = replace(experiment, run=RunConfig(split="slice"))
    assert "leaks" in (statements_of(leaking, None).bias_mitigation or "")
    assert "leaks" not in (found.bias_mitigation or "")


def test_a_file_of_statements_is_read(tmp_path: Path) -> None:
    file = tmp_path / "words.toml"
    file.write_text('developer = "somebody"\n[not_stated]\nfunding = "no funds"\n')
    found = read_statements(file)
    assert found.developer == "somebody"
    assert found.reason("funding") == "no funds"
    assert "did not say" in found.reason("contact")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("developr = 'x'", "unknown developr"),
        ("developer = 3", "expected a text, got 3"),
        ("developer", "words.toml does not hold statements"),
        ("[not_stated]\nfound = 'x'", "a reason for found"),
        ("[not_stated]\nsecurity = 'x'", "a reason for security, which the software states"),
        ("[not_stated]\nmodel_type = 'x'", "a reason for model_type, which the software states"),
        ("developer = ' '", "developer is blank"),
        ("[not_stated]\nfunding = ''", "not_stated.funding is blank"),
    ],
)
def test_a_wrong_file_is_refused_with_its_keys(tmp_path: Path, text: str, wrong: str) -> None:
    file = tmp_path / "words.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=wrong) as error:
        read_statements(file)
    assert "Its keys are texts: developer, contact" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml does not hold statements"):
        read_statements(tmp_path / "none.toml")


def test_a_card_with_statements_and_errors_is_read_as_it_was_written(default_card: ModelCard) -> None:
    assert default_card.statements
    assert default_card.errors
    assert ModelCard.from_json(default_card.to_json()) == default_card
    old = default_card.to_json()
    del old["statements"], old["errors"]  # an earlier version's
    assert ModelCard.from_json(old) == replace(default_card, statements=None, errors=None)


@pytest.fixture
def default_card() -> ModelCard:
    from hemoscope.inference.bundle import load_bundle

    return load_bundle(None).card
