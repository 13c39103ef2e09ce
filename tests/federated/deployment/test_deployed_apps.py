"""The apps behind the stub find their job and their site on their own machine, and nowhere else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.deployment import deployed_apps as deployed
from hemoscope.federated.deployment.processes import JOBS_VARIABLE
from hemoscope.federated.deployment.runs import write_job

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[..., Any]


def context(*, node: dict[str, Any] | None = None, run: dict[str, Any] | None = None) -> Context:
    return Context(7, 1, node or {}, RecordDict(), run or {})


def test_a_site_is_read_from_the_file_that_its_node_names(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('name = "riverside"\ndata = "cache"\nwork = "work"\n')
    assert deployed.site_of(context(node={"site": str(path)})).name == "riverside"


@pytest.mark.parametrize("node", [{}, {"site": 3}])
def test_a_node_without_a_site_file_is_refused(node: dict[str, Any]) -> None:
    with pytest.raises(FederationError, match="without its site file"):
        deployed.site_of(context(node=node))


def test_a_site_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="site"):
        deployed.site_of(context(node={"site": str(tmp_path / "none.toml")}))


def test_the_server_trains_the_job_of_its_run(
    local_sites: Build, small_federation: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {
        "federation": small_federation(rounds=1).to_json(),
        "part": "split",
        "output": str(tmp_path / "run"),
        "sites": 2,
        "resume": False,
    }
    found = write_job(tmp_path / "state", job)
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path / "state" / "jobs"))
    deployed.server_app(local_sites(2), context(run={"job": found}))
    assert json.loads((tmp_path / "run" / "split" / "part.json").read_text())["rounds"] == 1


@pytest.mark.parametrize("job", ["", "../jobs/x", "a" * 31, "A" * 32, 7])
def test_a_run_without_a_job_of_ours_is_refused(
    job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_sites: Build
) -> None:
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    with pytest.raises(FederationError, match="this run has no job"):
        deployed.server_app(local_sites(2), context(run={"job": job}))


@pytest.mark.parametrize("text", [None, "{"])
def test_a_job_that_cannot_be_read_is_refused(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_sites: Build
) -> None:
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    if text is not None:
        (tmp_path / f"{'a' * 32}.json").write_text(text)
    with pytest.raises(FederationError, match="job cannot be read"):
        deployed.server_app(local_sites(2), context(run={"job": "a" * 32}))


def test_the_stub_gets_flowers_own_kinds_of_apps() -> None:
    assert isinstance(deployed.client_app, ClientApp)
    assert isinstance(deployed.server_app, ServerApp)
