"""Scores leave as often as the site lets them, and a damaged count is no way round."""

from pathlib import Path

import pytest

from hemoscope.errors import FederationError
from hemoscope.federated.settings.site_policy import PolicyRefusalError
from hemoscope.federated.site.told_scores import TOLD, count_telling


def test_a_count_goes_on_where_it_was(tmp_path: Path) -> None:
    for _ in range(3):
        count_telling(tmp_path, most=3)
    for most in (1, 3):
        with pytest.raises(PolicyRefusalError, match=f"at most {most} times a part"):
            count_telling(tmp_path, most=most)
    count_telling(tmp_path, most=4)


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"times": null}', '{"times": "x"}'])
def test_a_damaged_count_is_an_error_and_not_the_beginning(tmp_path: Path, damaged: str) -> None:
    (tmp_path / TOLD).write_text(damaged)
    with pytest.raises(FederationError, match=r"exported.json does not say how often"):
        count_telling(tmp_path, most=100)
