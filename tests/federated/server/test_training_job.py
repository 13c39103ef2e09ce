"""What the server refuses to begin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.errors import ConfigError
from hemoscope.federated.server.training_job import TrainingJob

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("settings", "job", "reason"),
    [
        ({}, {"part": "../out"}, "unsafe name"),
        ({}, {"sites": 1}, "1 sites are expected, but a round needs 2"),
        ({"secure_aggregation": {"enabled": True}}, {"sites": 2}, "2 sites are expected, but a round needs 3"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused(
    small_federation: Build, tmp_path: Path, settings: dict[str, Any], job: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        TrainingJob(
            **{"federation": small_federation(**settings), "part": "split", "output": tmp_path, "sites": 3, **job}
        )
