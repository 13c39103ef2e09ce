"""A whole federation in one process: real client apps behind a grid that hands messages to them directly."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file

from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.client_app import make_client_app
from hemoscope.federated.federation import Federation, parse_federation
from hemoscope.federated.server_app import Job, make_server_app, run_part
from hemoscope.federated.site import Policy, Site

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[..., Any]


def server_context() -> Context:
    return Context(7, 1, {}, RecordDict(), {})


def play(grid: Any, federation: Federation, output: Path, part: str = "split", **job: Any) -> Path:
    run_part(Job(federation=federation, part=part, output=output, sites=len(grid.apps), **job), grid, server_context())
    return output / part


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch_norm", ["shared", "local", "fixed"])
@pytest.mark.parametrize("secure", [False, True])
def test_sites_train_together_and_leave_a_run_behind(
    local_sites: Build, small_federation: Build, tmp_path: Path, batch_norm: str, secure: bool
) -> None:
    federation = small_federation(batch_norm=batch_norm, secure_aggregation={"enabled": secure})
    folder = play(local_sites(3), federation, tmp_path / "run")
    rounds = rounds_of(folder)
    assert [(line["number"], line["used"], line["void"]) for line in rounds] == [(1, [1, 2, 3], False), (2, [1, 2, 3], False)]
    print(rounds)
    record = json.loads((folder / "part.json").read_text())
    print(record)
