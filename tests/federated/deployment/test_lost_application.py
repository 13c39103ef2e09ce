"""A site whose application ended before it had fetched its message trains in the next run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.federated.deployment.following import PartTraining
from hemoscope.federated.deployment.runs import ControlClient, read_state

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a federation is deployed on Linux"),
    pytest.mark.journey,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

# In place of the launcher, once: takes the task, so that nobody else does, and ends without its message.
THIEF = """#!{python}
import shutil, sys
from pathlib import Path
from flwr.proto.runtime_pb2 import PullTaskInputRequest
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

here = Path(__file__)
(here.with_name("kept")).replace(here)
words = dict(zip(sys.argv[1:], sys.argv[2:]))
client = RuntimeHttpClient.from_server_address(
    server_address=words["--runtime-api-address"],
    insecure=True,
    root_certificates=None,
    interceptors=[
        RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"), RuntimeTokenHttpInterceptor(words["--token"])
    ],
)
client.PullTaskInput(PullTaskInputRequest())
"""


def run(made: Any, client: ControlClient, name: str) -> dict[str, Any]:
    """A run of one round; what its application wrote of it."""
    output = made.folder / name
    rounds = output / "split" / "rounds.jsonl"
    job = {"output": str(output), "sites": 1, "sleep": 0.0}
    *_, last = PartTraining(client=client, job=job, rounds=rounds).events()
    assert last.completed
    record: dict[str, Any] = json.loads(rounds.read_text())
    return record


def test_a_site_whose_application_ended_without_its_message_comes_back(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    made.server()
    made.site("riverside")
    launcher: Path = made.folder / "flower-riverside" / "bin" / "flwr-clientapp"
    launcher.replace(launcher.with_name("kept"))
    launcher.write_text(THIEF.format(python=sys.executable))
    launcher.chmod(0o700)
    with ControlClient(state=read_state(made.state)) as client:
        lost = run(made, client, "first")
        assert lost["used"] == 0
        assert "Node Unavailable" in "".join(lost["errors"])  # the server was told, before its own deadline
        assert run(made, client, "second")["used"] == 1
    assert "the application ended without a reply" in (made.folder / "riverside.log").read_text()
