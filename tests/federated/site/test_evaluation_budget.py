"""Scores leave as often as the site lets them, and a damaged count is no way round."""

from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.errors import FederationError
from hemoscope.federated.settings.site_policy import PolicyRefusalError
from hemoscope.federated.site.site_task import EVALUATIONS, spend_evaluation


def test_a_count_goes_on_where_it_was(tmp_path: Path) -> None:
    for _ in range(3):
        spend_evaluation(tmp_path, most=3)
    for most in (1, 3):
        with pytest.raises(PolicyRefusalError, match=f"at most {most} times a part"):
            spend_evaluation(tmp_path, most=most)
    spend_evaluation(tmp_path, most=4)


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"times": null}', '{"times": "x"}'])
def test_a_damaged_count_is_an_error_and_not_the_beginning(tmp_path: Path, damaged: str) -> None:
    (tmp_path / EVALUATIONS).write_text(damaged)
    with pytest.raises(FederationError, match=r"evaluations.json does not count evaluations"):
        spend_evaluation(tmp_path, most=100)


def test_a_count_of_an_older_version_goes_on(tmp_path: Path) -> None:
    (tmp_path / "told.json").write_text('{"times": 2}')
    spend_evaluation(tmp_path, most=3)
    with pytest.raises(PolicyRefusalError):
        spend_evaluation(tmp_path, most=3)
