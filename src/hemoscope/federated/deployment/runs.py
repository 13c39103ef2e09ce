"""Starting, following and ending a run of a federation, on the server's own machine.

The job (settings, output folder) stays in a file on this machine; only its random id goes into the run's configuration,
which Flower hands to every site.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
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

FINISHED = "finished"
COMPLETED = "completed"
POLL = 1.0  # seconds


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a running server wrote about itself: its app's name and hash, its port, how many sites it admits, its process."""

    folder: Path
    app: str
    hash: str
    port: int
    sites: int
    pid: int = 0


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
        found = answer.run_dict[run].status
        return RunStatus(status=found.status, sub_status=found.sub_status, details=found.details)

    def stop(self, run: int) -> None:
        """End a run. Raises FederationError where the server is away."""
        self._ask(self._client.StopRun, StopRunRequest(run_id=run))

    def online(self) -> int:
        """How many sites are connected. Raises FederationError where the server is away."""
        nodes = self._ask(self._client.ListNodes, ListNodesRequest()).nodes_info
        return sum(node.status == NodeStatus.ONLINE for node in nodes)

    def _ask(self, call: Callable[[Any], Any], request: object) -> Any:
        try:
            return call(request)
        except httpx.HTTPStatusError as error:
            raise FederationError(f"the server refuses: {error.response.text.strip()[:300]}") from error
        except httpx.HTTPError as error:
            raise FederationError(
                f"no server answers on this machine's port {self.state.port}. Start it: hemoscope federated server"
            ) from error


def follow(
    client: ControlClient, run: int, rounds: Path, *, poll: float = POLL
) -> Iterator[dict[str, Any] | RunStatus]:
    """Yield each round's record as it is written, and the run's status at each look; the last is a status that is over.

    Args:
        client: of the server.
        run: the run's id.
        rounds: ``RUN/PART/rounds.jsonl``; what it holds already (a resumed run) is not reported again.
        poll: seconds between two looks.

    Raises:
        FederationError: the server went away.

    """
    place = rounds.stat().st_size if rounds.exists() else 0
    while True:
        status = client.status(run)
        place, records = _new_records(rounds, place)
        yield from records
        yield status
        if status.over:
            return
        time.sleep(poll)


def _new_records(rounds: Path, place: int) -> tuple[int, list[dict[str, Any]]]:
    """Whole lines after ``place`` (bytes), and the place after them; a line that is still being written waits."""
    if not rounds.exists():
        return place, []
    with rounds.open("rb") as stream:
        stream.seek(place)
        whole, found, _ = stream.read().rpartition(b"\n")
    return place + len(whole) + len(found), [json.loads(line) for line in whole.splitlines() if line]
