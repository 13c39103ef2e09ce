"""A run of a federation on the server's own machine: started, looked at, ended.

The job (settings, output folder) stays in a file on this machine; only its random id goes into the run's configuration,
which Flower hands to every site.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hemoscope.errors import FederationError
from hemoscope.federated.flower_internals import (
    ControlHttpClient,
    FabProto,
    ListNodesRequest,
    ListRunsRequest,
    NodeStatus,
    StartRunRequest,
    StopRunRequest,
    user_config_to_proto,
)
from hemoscope.files import write_text

_BUSY = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
FINISHED = "finished"
COMPLETED, STOPPED = "completed", "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is, in Flower's words: pending, starting, running, finished; then completed, failed or stopped."""

    status: str
    sub_status: str
    details: str

    @property
    def over(self) -> bool:
        """Whether it ended."""
        return self.status == FINISHED

    @property
    def completed(self) -> bool:
        """Whether it ended well."""
        return self.over and self.sub_status == COMPLETED

    @property
    def stopped(self) -> bool:
        """Whether somebody ended it."""
        return self.over and self.sub_status == STOPPED


class ServerAwayError(FederationError):
    """The server does not answer; it may be back soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run and the id of its job."""

    number: int
    job: str
    status: RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedSite:
    """A registered site: its node, its name, whether it is connected, and since when (ISO 8601; empty if never)."""

    node: int
    name: str
    online: bool
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a running server wrote about itself: app and its hash, port, process, and how many sites it admits."""

    folder: Path
    app: str
    hash: str
    port: int
    sites: int
    pid: int = 0

    @property
    def jobs(self) -> Path:
        """Where jobs are, and what their runs leave beside them."""
        return self.folder / "jobs"


def read_state(folder: Path) -> ServerState:
    """Read ``server.json`` of a server's folder.

    Raises:
        FederationError: no server was started there.

    """
    try:
        described = json.loads((folder / "server.json").read_text())
    except FileNotFoundError as error:
        raise FederationError(
            f"{folder.name} is no server's folder. Start one: hemoscope federated server --keys KEYS/server "
            f"--folder {folder.name}"
        ) from error
    return ServerState(folder=folder, **described)


def write_job(folder: Path, job: Mapping[str, Any]) -> str:
    """Write a job for the server app and return its id, which says nothing about it."""
    jobs = folder / "jobs"
    jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    identifier = secrets.token_hex(16)
    write_text(jobs / f"{identifier}.json", json.dumps(dict(job), indent=2) + "\n", mode=0o600)
    return identifier


@dataclass(slots=True, kw_only=True)
class ControlClient:
    """Client of the server's control interface, over TLS on loopback; close it, or use ``with``."""

    state: ServerState
    _client: ControlHttpClient = field(init=False)

    def __post_init__(self) -> None:
        """Connect lazily: the first request says whether the server is there."""
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{self.state.port}", False, (self.state.folder / "ca.crt").read_bytes(), ()
        )

    def __enter__(self) -> "ControlClient":
        """Nothing to prepare."""
        return self

    def __exit__(self, *details: object) -> None:
        """Close the connection."""
        self._client.close()

    def start(self, job: str) -> int:
        """Start a run of the signed app; gives its id.

        Raises:
            FederationError: the server is away or refuses.

        """
        request = StartRunRequest(
            fab=FabProto(hash_str=self.state.hash),
            app_spec=self.state.app,
            override_config=user_config_to_proto({"job": job}),
        )
        answer = self._ask(self._client.StartRun, request)
        if not answer.HasField("run_id"):
            raise FederationError("the server did not start the run; its own log says why")
        return int(answer.run_id)

    def status(self, run: int) -> RunStatus:
        """How far a run is. Raises FederationError where the server is away."""
        answer = self._ask(self._client.ListRuns, ListRunsRequest(run_id=run))
        return _status(answer.run_dict[run])

    def stop(self, run: int) -> None:
        """End a run. Raises FederationError where the server is away."""
        self._ask(self._client.StopRun, StopRunRequest(run_id=run))

    def latest(self) -> Run | None:
        """The run that was started last; None where there was none. Raises FederationError where the server is away."""
        found = list(self._ask(self._client.ListRuns, ListRunsRequest(limit=1)).run_dict.values())
        if not found:
            return None
        return Run(number=int(found[0].run_id), job=found[0].override_config["job"].string, status=_status(found[0]))

    def sites(self) -> list[ConnectedSite]:
        """All registered sites by name. Raises FederationError where the server is away."""
        nodes = self._ask(self._client.ListNodes, ListNodesRequest()).nodes_info
        known = [node for node in nodes if node.status != NodeStatus.UNREGISTERED]
        found = [
            ConnectedSite(node=node.node_id, name=node.name, online=_online(node), since=_since(node)) for node in known
        ]
        return sorted(found, key=lambda site: site.name)

    def online(self) -> int:
        """How many sites are connected. Raises FederationError where the server is away."""
        return sum(site.online for site in self.sites())

    def _ask(self, call: Callable[[Any], Any], request: object) -> Any:
        try:
            return call(request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in _BUSY:
                raise ServerAwayError("the server is too busy to answer. Try again in a minute") from error
            raise FederationError(f"the server refuses: {error.response.text.strip()[:300]}") from error
        except httpx.HTTPError as error:
            raise ServerAwayError(
                f"no server answers on this machine's port {self.state.port}. Start it: hemoscope federated server"
            ) from error


def _status(found: Any) -> RunStatus:
    status = found.status
    return RunStatus(status=status.status, sub_status=status.sub_status, details=status.details)


def _online(node: Any) -> bool:
    return bool(node.status == NodeStatus.ONLINE)


def _since(node: Any) -> str:
    return str(node.last_activated_at if _online(node) else node.last_deactivated_at)
