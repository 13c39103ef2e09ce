"""A federation's server: who may connect, to which routes, and what others get."""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from hemoscope.cli import main
from hemoscope.cli.federated_run import part_names
from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.deployment.authority import make_keys
from hemoscope.federated.deployment.following import PartTraining
from hemoscope.federated.deployment.keys import read_server_keys, read_site_keys
from hemoscope.federated.deployment.runs import ControlClient, RunStatus, read_state, write_job
from hemoscope.federated.deployment.superlink import LoopbackGuard, is_loopback, serve
from hemoscope.federated.deployment.supernode import site_programs, supernode_command
from hemoscope.federated.settings.federation import Federation
from hemoscope.training.experiment import Experiment, RunConfig


def status_of(url: str, authority: Path) -> int:
    """The HTTP status of a POST without content."""
    request = urllib.request.Request(url, data=b"", headers={"content-type": PROTOBUF_MEDIA_TYPE})
    try:
        with urllib.request.urlopen(
            request, context=ssl.create_default_context(cafile=str(authority)), timeout=20
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def own_address() -> str:
    """An address of this machine that is not loopback: the one it would use to go out; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("192.0.2.1", 9))  # for documentation, RFC 5737
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(outward.getsockname()[0])


def test_from_elsewhere_only_the_sites_interface_replies_and_there_only_a_registered_key(
    deployment: Callable[..., Any],
) -> None:
    address = own_address()
    made = deployment()
    shutil.rmtree(made.keys)
    make_keys(made.keys, servers=[address], sites=made.sites, app=made.app)
    made.server("--host", address)
    authority = made.keys / "server" / "ca.crt"
    for path in ("control/start-run", "control/register-node", "control/list-runs", "runtime/acquire-task", "nothing"):
        assert status_of(f"https://{address}:{made.port}/v1/{path}", authority) == 403, path
    for path in ("docs", "openapi.json", "health", "V1/CONTROL/list-runs"):
        assert status_of(f"https://{address}:{made.port}/{path}", authority) == 403, path
    assert status_of(f"https://{address}:{made.port}/v1/fleet/../control/list-runs", authority) == 404
    assert status_of(f"https://127.0.0.1:{made.port}/v1/control/list-runs", authority) == 200
    assert status_of(f"https://{address}:{made.port}/v1/fleet/activate-node", authority) == 401


async def asked_through_the_guard(scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def inside(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "inside"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await LoopbackGuard(app=inside)(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("client", "path", "passes"),
    [
        (("127.0.0.1", 1), "/v1/control/start-run", True),
        (("::1", 1), "/v1/control/start-run", True),
        (("::ffff:127.0.0.1", 1), "/v1/control/start-run", True),
        (("10.0.0.7", 1), "/v1/control/start-run", False),
        (("::ffff:10.0.0.7", 1), "/v1/control/start-run", False),
        (("fe80::1", 1), "/v1/runtime/acquire-task", False),
        (("a name", 1), "/v1/control/start-run", False),
        (None, "/v1/control/start-run", False),
        (("10.0.0.7", 1), "/v1/fleet/pull-messages", True),
        (("10.0.0.7", 1), "/v1/fleet", False),
        (("10.0.0.7", 1), "/", False),
    ],
)
def test_the_guard_goes_by_the_connections_address_alone(client: Any, path: str, passes: bool) -> None:
    headers = [(b"x-forwarded-for", b"127.0.0.1"), (b"forwarded", b"for=127.0.0.1")]
    scope = {"type": "http", "client": client, "path": path, "headers": headers}
    sent = asyncio.run(asked_through_the_guard(scope))
    assert (sent[0]["type"] == "inside") is passes
    assert passes or sent[0]["status"] == 403


def test_the_guard_lets_the_server_start_and_no_websocket_in() -> None:
    assert asyncio.run(asked_through_the_guard({"type": "lifespan"})) == [{"type": "inside"}]
    stranger = {"type": "websocket", "client": ("10.0.0.7", 1), "path": "/v1/fleet/x"}
    assert asyncio.run(asked_through_the_guard(stranger)) == [{"type": "websocket.close", "code": 1008}]
    assert not is_loopback(None)


def run_once(made: Any, **job: Any) -> tuple[list[dict[str, Any]], RunStatus]:
    """One run of the trivial app over the sites that are connected."""
    with ControlClient(state=read_state(made.state)) as client:
        settings = {"output": str(made.folder / "run"), "sites": 1, "sleep": 0.0, **job}
        rounds = made.folder / "run" / "split" / "rounds.jsonl"
        events = list(PartTraining(client=client, job=settings, rounds=rounds, poll=0.2, restarts=0).events())
    *_, last = events
    assert isinstance(last, RunStatus)
    return [event for event in events if isinstance(event, dict)], last


def test_a_run_is_followed_to_its_end_and_a_failure_says_why(
    deployment: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = deployment(sites=("riverside",))
    server = made.server()
    made.site("riverside")
    rounds, status = run_once(made)
    assert rounds == [{"number": 1, "used": 1, "errors": []}]
    assert status.completed
    assert main(["federated", "status", str(made.state)]) == 0
    said = capsys.readouterr().out
    for line in (
        "superlink: running since",
        "superexec: running since",
        "sites: 1 of 1 connected",
        "last run: completed",
    ):
        assert line in said
    assert main(["federated", "status", str(made.folder / "work-riverside")]) == 0
    assert "supernode: running since" in capsys.readouterr().out
    _, failed = run_once(made, fail=True)
    assert failed.over
    assert not failed.completed
    assert "as asked" in failed.details
    server.kill()
    server.wait()
    assert main(["federated", "status", str(made.state)]) == 1
    assert "was killed. Start it again" in capsys.readouterr().err


def test_a_site_refuses_an_app_that_its_federation_did_not_sign(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    make_keys(made.folder / "foreign", servers=["localhost"], sites=["riverside"], app=made.app)
    for name in ("signing.pub", "app.json"):  # somebody took the server over, and has no key that sites trust
        shutil.copy(made.folder / "foreign/server" / name, made.keys / "server" / name)
    made.server()
    made.site("riverside")
    rounds, _ = run_once(made)
    assert rounds == [{"number": 1, "used": 0, "errors": ["The FAB could not be verified."]}]
    assert "could not verify the FAB" in (made.folder / "riverside.log").read_text()
    assert not list((made.folder / "flower-riverside").glob("apps/*"))


def test_a_site_with_a_key_that_is_not_registered_stays_outside_and_so_does_one_whose_key_was_taken_away(
    deployment: Callable[..., Any],
) -> None:
    made = deployment()
    make_keys(made.folder / "other", servers=["localhost"], sites=["riverside"])
    stranger = made.folder / "stranger"
    shutil.copytree(made.keys / "sites/riverside", stranger)
    shutil.copy(made.folder / "other/sites/riverside/node.key", stranger / "node.key")
    server = made.server()
    made.site("riverside", keys=stranger)
    with ControlClient(state=read_state(made.state)) as client:
        assert client.online() == 0
    assert "SuperNode ID" not in (made.folder / "riverside.log").read_text()
    made.site("hilltop")
    with ControlClient(state=read_state(made.state)) as client:
        assert client.online() == 1
    server.terminate()
    server.wait(120)
    (made.keys / "server/sites/hilltop.pub").unlink()
    made.server()
    made.site("hilltop-again", keys=made.keys / "sites/hilltop")
    with ControlClient(state=read_state(made.state)) as client:
        assert client.online() == 0


def test_a_site_does_not_connect_to_a_server_of_another_authority(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    make_keys(made.folder / "other", servers=["localhost"], sites=["riverside"])
    made.server()
    made.site("riverside", keys=made.folder / "other/sites/riverside")
    with ControlClient(state=read_state(made.state)) as client:
        assert client.online() == 0


def test_two_servers_do_not_share_a_folder_and_a_port_that_is_taken_is_named(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    made.server()
    second = made.start("second", made.started[0].args, dict(os.environ), "in use")
    assert second.wait(120) == 1
    assert "state is in use by another server" in (made.folder / "second.log").read_text()
    elsewhere = [str(made.folder / "elsewhere") if word == str(made.state) else word for word in made.started[0].args]
    elsewhere[elsewhere.index("0")] = str(made.port)
    third = made.start("third", elsewhere, dict(os.environ), "cannot listen")
    assert third.wait(120) == 1
    assert f"cannot listen on 127.0.0.1:{made.port}" in (made.folder / "third.log").read_text()
    named = [*made.started[0].args, "--host", "a name"]
    named[named.index(str(made.state))] = str(made.folder / "named")
    fourth = made.start("fourth", named, dict(os.environ), "not an address")
    assert fourth.wait(120) == 1


def test_a_server_is_stopped_from_its_terminal_without_a_word_too_many(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    server = made.server()
    server.send_signal(signal.SIGINT)
    assert server.wait(120) == 0
    log = (made.folder / "server.log").read_text()
    assert log.endswith("stopped\n")
    assert "Traceback" not in log


def test_without_a_server_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FederationError, match="is no server's folder"):
        read_state(tmp_path)
    make_keys(tmp_path / "keys", servers=["localhost"], sites=["riverside"])
    shutil.copy(tmp_path / "keys/server/ca.crt", tmp_path / "ca.crt")
    (tmp_path / "server.json").write_text(json.dumps({"app": "@a/b", "hash": "0", "port": 1, "sites": 1}))
    with (
        ControlClient(state=read_state(tmp_path)) as client,
        pytest.raises(FederationError, match=r"port 1\. Start it"),
    ):
        client.online()
    with pytest.raises(FederationError, match="no server answers"), ControlClient(state=read_state(tmp_path)) as client:
        client.stop(1)


def test_what_the_server_refuses_is_reported(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    made.server()
    with ControlClient(state=read_state(made.state)) as client, pytest.raises(FederationError, match="server refuses"):
        client.status(12345)


def test_a_job_is_a_file_that_only_its_owner_reads_and_its_name_says_nothing(tmp_path: Path) -> None:
    first, second = (write_job(tmp_path, {"part": "split"}) for _ in range(2))
    assert first != second
    assert len(first) == 32
    path = tmp_path / "jobs" / f"{first}.json"
    assert json.loads(path.read_text()) == {"part": "split"}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow  # a minute, in which the server counts it as present
def test_a_site_that_was_killed_is_admitted_again(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    made.server()
    first = made.site("riverside")
    first.kill()
    first.wait()
    again = made.site("again", keys=made.keys / "sites/riverside", until="SuperNode ID", seconds=240.0)
    assert "supernode ended with exit code 1; starting it again" in (made.folder / "again.log").read_text()
    again.terminate()
    assert again.wait(120) == 0


def test_a_sites_command_needs_a_port_and_a_path_that_flower_can_carry(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", servers=["localhost"], sites=["riverside"])
    keys = read_site_keys(tmp_path / "keys/sites/riverside")
    with pytest.raises(ConfigError, match=r"--server fl\.example\.org has no port"):
        supernode_command(tmp_path / "site.toml", keys, server="fl.example.org")
    with pytest.raises(ConfigError, match="a quotation mark or a backslash"):
        supernode_command(tmp_path / "it's" / "site.toml", keys, server="fl.example.org:9092")
    command = supernode_command(tmp_path / "my data" / "site.toml", keys, server="fl.example.org:9092")
    assert "--insecure" not in command
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert f'site="{tmp_path}/my data/site.toml"' in command


def port_in(command: Sequence[str]) -> int:
    """The port of a SuperNode's own processes, in its command line or in that of its executor."""
    if "--port" in command:
        return int(command[command.index("--port") + 1])
    return int(command[command.index("--runtime-api-address") + 1].rpartition(":")[2])


def test_a_site_that_starts_its_node_again_leaves_a_port_that_somebody_took() -> None:
    node, executor, _ = site_programs(["flower-supernode", "--host", "127.0.0.1"])
    first = port_in(node.command())
    assert port_in(executor.command()) == first
    with socket.create_server(("127.0.0.1", first)):
        second = port_in(node.command())
        assert port_in(executor.command()) == second != first


def test_the_command_makes_keys_and_says_where_each_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["federated", "keys", str(tmp_path / "keys"), "--server", "fl.example.org", "--sites", "riverside, hilltop"]
    assert main(words) == 0
    assert sorted(read_server_keys(tmp_path / "keys/server").sites) == ["hilltop", "riverside"]
    assert "sites/hilltop goes to hilltop alone" in capsys.readouterr().out
    assert main(words) == 1
    assert "never overwritten" in capsys.readouterr().err


def test_the_command_signs_again_and_a_server_without_a_signature_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    make_keys(keys, servers=["localhost"], sites=["riverside"])
    (keys / "server/app.json").unlink()
    with pytest.raises(FederationError, match="the app is not signed"):
        serve(keys / "server", tmp_path / "state", host="127.0.0.1", port=0)
    assert main(["federated", "sign", str(keys)]) == 0
    assert f"{keys}/server/app.json: copy it into the server's folder" in capsys.readouterr().out
    assert (keys / "server/app.json").is_file()
    assert main(["federated", "sign", str(keys / "server")]) == 1
    assert "Sign where the federation's authority is kept" in capsys.readouterr().err


def test_without_a_part_all_of_the_experiment_are_run() -> None:
    folds = Federation(name="f", experiment=Experiment(name="e", run=RunConfig(folds=2), optimizer=without_average()))
    assert part_names(folds) == ["fold-0", "fold-1", "final"]


def without_average() -> Any:
    from hemoscope.training.lightning_module import OptimizerConfig

    return OptimizerConfig(ema=0.0)
