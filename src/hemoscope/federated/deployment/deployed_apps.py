"""The two apps that the signed stub points to, each configured by its own machine.

The server finds its job (settings, folder of the run) in a folder that its environment names, under the id that the
run was started with. A site finds its own file under the name that its SuperNode was started with. Neither travels.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hemoscope.errors import FederationError, HemoscopeError
from hemoscope.federated.deployment.processes import JOBS_VARIABLE
from hemoscope.federated.deployment.reporting_grid import ReportingGrid
from hemoscope.federated.deployment.run_progress import ProgressFile, error_path
from hemoscope.federated.settings.site import Site, read_site
from hemoscope.federated.site.client_app import make_client_app
from hemoscope.files import write_text

__all__ = ["client_app", "server_app"]

JOB, SITE = "job", "site"  # keys of Flower's run configuration and node configuration
_LOCK_TIMEOUT = 120.0  # seconds
_ID = re.compile(r"[0-9a-f]{32}")


def site_of(context: Context) -> Site:
    """The site that a node was started for.

    Raises:
        FederationError: the node's configuration names none.
        ConfigError: its file is not as it must be.
    """
    path = context.node_config.get(SITE)
    if not isinstance(path, str):
        msg = "this node was started without its site file. Start it with: hemoscope federated site SITE.toml"
        raise FederationError(msg)
    return read_site(Path(path))


def run_job(grid: Grid, context: Context) -> None:
    """Train the part that the run's job names, and leave a note where it cannot be trained.

    Raises:
        FederationError: there is no such job; otherwise see ``server_app.make_server_app``.
    """
    from hemoscope.federated.server.server_app import TrainingJob, run_part
    from hemoscope.federated.settings.federation import parse_federation

    jobs, identifier, described = _read_job(context)
    progress = ProgressFile(jobs, identifier)
    progress.show("starting", 0, 0)
    try:
        job = TrainingJob(
            federation=parse_federation(described["federation"], where="the job"),
            part=described["part"],
            output=Path(described["output"]),
            sites=described["sites"],
            resume=described["resume"],
            show=progress.show,
        )
        with _alone_in(job.output):
            run_part(job, ReportingGrid(grid, progress), context)
    except HemoscopeError as error:
        write_text(error_path(jobs, identifier), str(error), mode=0o600)
        raise


@contextlib.contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    """Wait for an application of the same run that Flower gave up but that has not ended yet."""
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock")
    try:
        lock.acquire(timeout=_LOCK_TIMEOUT)
    except Timeout as error:
        msg = f"another application trains into {output.name}. End it, or choose a new --output"
        raise FederationError(msg) from error
    with lock:
        yield


def _read_job(context: Context) -> tuple[Path, str, dict[str, Any]]:
    """The folder of jobs, the id of this run's, and the job."""
    found, folder = str(context.run_config.get(JOB, "")), os.environ.get(JOBS_VARIABLE)
    if not _ID.fullmatch(found) or folder is None:
        msg = "this run has no job. Start it with: hemoscope federated run, on the server's own machine"
        raise FederationError(msg)
    try:
        described: dict[str, Any] = json.loads((Path(folder) / f"{found}.json").read_text())
    except (OSError, ValueError) as error:
        msg = f"the run's job cannot be read ({type(error).__name__}). Start it again: hemoscope federated run"
        raise FederationError(msg) from error
    return Path(folder), found, described


client_app = make_client_app(site_of)
server_app = ServerApp()
server_app.main()(run_job)
