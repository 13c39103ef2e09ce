"""Flower's processes: they connect to nobody but each other, and none outlives its parent."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.errors import FederationError
from hemoscope.federated.deployment import processes
from hemoscope.federated.deployment.runs import ControlClient, read_state, write_job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are tied by Linux's prctl")


def environment_of(pid: int) -> dict[str, str]:
    """The environment with which a process began."""
    pairs = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
    return dict(pair.decode().split("=", 1) for pair in pairs if pair)


def begin_training(deployment: Any, *, sleep: float) -> None:
    """Start a run whose site sleeps, and wait until all of Flower's kinds of process live."""
    with ControlClient(state=read_state(deployment.state)) as client:
        job = {"output": str(deployment.folder / "run"), "sites": 1, "sleep": sleep}
        client.start(write_job(deployment.state, job))
    end = time.monotonic() + 240
    while not {"flwr-serverapp", "flwr-clientapp"} <= set(kinds(deployment)):
        assert time.monotonic() < end, deployment.alive()
        time.sleep(0.1)


def kinds(deployment: Any) -> list[str]:
    """Which of Flower's programs live."""
    names = ("deployment.superlink", *(f"processes {name}" for name in (*processes.SUPERVISED, *processes.LAUNCHED)))
    return [name.split()[-1] for line in deployment.alive().values() for name in names if f"{name} " in line]


def test_every_process_has_telemetry_update_check_and_installation_off_and_ends_when_the_launchers_are_killed(
    deployment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FLWR_TELEMETRY_ENABLED", "1"), ("FLWR_INTERNAL_GRPC_FLEET_API", "1")):
        monkeypatch.setenv(name, value)  # of somebody's shell: must not come in
    made = deployment(sites=("riverside",))
    server = made.server()
    site = made.site("riverside")
    begin_training(made, sleep=600.0)
    assert sorted(kinds(made)) == [
        *(
            "deployment.superlink",
            "flower-superexec",
            "flower-superexec",
            "flower-supernode",
            "flwr-clientapp",
            "flwr-serverapp",
        )
    ]
    for pid in made.alive():
        found = environment_of(pid)
        assert found["FLWR_TELEMETRY_ENABLED"] == "0"
        assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
        assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        assert "FLWR_INTERNAL_GRPC_FLEET_API" not in found
    assert "--allow-runtime-dependency-installation" not in " ".join(made.alive().values())

    for process in (server, site):
        process.kill()
        process.wait()
    assert not made.wait_until_none_is_alive()


def test_what_is_stopped_in_mid_round_leaves_nothing_behind(deployment: Callable[..., Any]) -> None:
    made = deployment(sites=("riverside",))
    server = made.server()
    site = made.site("riverside")
    begin_training(made, sleep=600.0)
    server.send_signal(signal.SIGINT)
    server.wait(120)
    assert not {"deployment.superlink", "flwr-serverapp"} & set(kinds(made))
    site.terminate()
    site.wait(120)
    assert not made.wait_until_none_is_alive()


# Runs before the program: a network namespace begins with its loopback switched off (ioctl SIOCSIFFLAGS, IFF_UP).
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def alone(tmp_path: Path) -> list[str]:
    """A command that runs another where there is no network but loopback, and writes every address it tries."""
    for tool in ("unshare", "strace"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {'util-linux' if tool == 'unshare' else tool}")
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_UP]
    tried = subprocess.run([*command, "strace", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no network namespace or no strace here: {tried.stderr.strip()[-200:]}")
    # Stops at the calls it is asked for alone (seccomp): much the faster.
    watch = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(tmp_path / "trace")]
    return [*command, *watch, "-e", "trace=connect,sendto,sendmmsg,sendmsg"]


def addresses_tried(trace: Path) -> set[str]:
    """Every address outside loopback that a process sent to or tried to connect to; name servers too."""
    found = re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', trace.read_text())
    return {
        address for pair in found for address in pair if address and not address.startswith("127.") and address != "::1"
    }


def test_no_process_tries_any_address_but_loopback_and_without_our_settings_they_would(
    deployment: Callable[..., Any], alone: list[str]
) -> None:
    made = deployment(sites=("riverside",))
    within = made.folder / "within.py"
    within.write_text(WITHIN)
    trace = made.folder / "trace"

    assert run_round(made, alone, within) == 0, (made.folder / "within.log").read_text()
    assert (made.folder / "run" / "split" / "rounds.jsonl").is_file()
    assert "127.0.0.1" in trace.read_text()
    assert addresses_tried(trace) == set()

    trace.unlink()
    made.server(before=alone, FLWR_TELEMETRY_ENABLED="1", FLWR_DISABLE_UPDATE_CHECK="0")
    end = time.monotonic() + 240
    while not addresses_tried(trace) and time.monotonic() < end:
        time.sleep(0.1)
    assert addresses_tried(trace)


# A whole federation inside one namespace: a server, a site, a run; the environment is the caller's.
WITHIN = """
import json, re, subprocess, sys, time
from pathlib import Path
from hemoscope.federated.deployment.keys import read_site_keys
from hemoscope.federated.deployment.following import PartTraining
from hemoscope.federated.deployment.runs import ControlClient, read_state
from hemoscope.federated.deployment.supernode import supernode_command

folder = Path(sys.argv[1])
state = folder / "state"
(state / "server.json").unlink(missing_ok=True)
module = [sys.executable, "-P", "-m"]
command = [*module, "hemoscope.federated.deployment.server_processes", "--keys", str(folder / "keys" / "server")]
server = subprocess.Popen([*command, "--folder", str(state), "--port", "0", "--app", str(folder / "trivial")])
while not (state / "server.json").exists():
    time.sleep(0.1)
found = read_state(state)
keys = read_site_keys(folder / "keys" / "sites" / "riverside")
node = supernode_command(folder / "riverside.toml", keys, server=f"127.0.0.1:{found.port}")
site = subprocess.Popen([*module, "hemoscope.federated.deployment.supernode", "--status", str(folder), *node])
with ControlClient(state=found) as client:
    time.sleep(2)
    job = {"output": str(folder / "run"), "sites": 1, "sleep": 0.0}
    *_, last = PartTraining(client=client, job=job, rounds=folder / "run" / "split" / "rounds.jsonl").events()
site.terminate()
server.terminate()
site.wait(120)
server.wait(120)
sys.exit(not last.completed)
"""


def run_round(made: Any, alone: list[str], script: Path) -> int:
    """One round of a federation in a namespace of its own, with the environment of our servers."""
    env = processes.flower_environment(made.folder / "flower") | {processes.JOBS_VARIABLE: str(made.state / "jobs")}
    with (made.folder / "within.log").open("w") as log:
        command = [*alone, sys.executable, str(script), str(made.folder)]
        return subprocess.run(command, env=env, stdout=log, stderr=log, timeout=280, check=False).returncode


def test_settings_of_flowers_that_a_shell_has_are_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    inherited = {
        "FLWR_SUPERGRID_API_URL": "https://elsewhere.example",
        "HTTPS_PROXY": "proxy:3128",
        "NO_PROXY": "a,127.0.0.1",
    }
    made = processes.flower_environment(tmp_path / "flower", inherited=inherited)
    assert "FLWR_SUPERGRID_API_URL" not in made
    assert made["HTTPS_PROXY"] == "proxy:3128"
    assert made["NO_PROXY"].split(",") == ["a", "127.0.0.1", "localhost", "::1"]
    assert made["FLWR_HOME"] == str(tmp_path / "flower")


def test_flowers_programs_are_found_first_among_our_launchers(tmp_path: Path) -> None:
    made = processes.flower_environment(tmp_path / "flower")
    for name in processes.LAUNCHED:
        found = shutil.which(name, path=made["PATH"])
        assert found == str(tmp_path / "flower" / "bin" / name)
        done = subprocess.run([found, "--help"], env=made, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: {name} ")


def test_an_installation_without_flower_is_an_error_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FederationError, match="flower-supernode is not beside this Python"):
        processes.flower_program("flower-supernode")


def lives(pid: int) -> bool:
    """Whether a process runs; nobody may be there to collect one that has ended."""
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_that_is_tied_dies_with_its_parent_and_one_that_is_late_dies_at_once(tmp_path: Path) -> None:
    tied = (
        "import time; from hemoscope.federated.deployment.processes import tie_to_parent; tie_to_parent();"
        "print('tied', flush=True); time.sleep(600)"
    )
    parent = (
        f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {tied!r}]);"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.stdout.readline() == "tied\n"
        process.kill()
    end = time.monotonic() + 120
    while lives(child):
        assert time.monotonic() < end
        time.sleep(0.05)

    door = "hemoscope.federated.deployment.processes"
    late = f"from {door} import tie_to_parent; tie_to_parent({os.getppid()}); print('lives')"
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""


FLOWERS_PROGRAM = """
import logging, signal, sys, threading, time
from types import SimpleNamespace
from hemoscope.federated.deployment import processes

def lose_a_thread():
    threading.Thread(target=lambda: 1 / 0).start()
    time.sleep(600)

def keep_a_thread():
    threading.Thread(target=time.sleep, args=(600,)).start()

def fail():
    keep_a_thread()
    raise ValueError("as asked")

def fall_out_of_step():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keep_a_thread()
    logging.getLogger("flwr").warning("Run ID %s is not in `RUNNING` status. Ignoring message %s.", 1, 2)
    time.sleep(600)

def refuse():
    keep_a_thread()
    sys.exit(1)

action = sys.argv[1]
processes.entry_points = lambda **_options: [SimpleNamespace(load=lambda: globals()[action])]
processes.main(["flower-supernode"])
"""


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("lose_a_thread", processes.BROKEN),
        ("keep_a_thread", processes.BROKEN),
        ("fail", processes.BROKEN),
        ("refuse", 1),
        ("fall_out_of_step", 0),
    ],
)
def test_a_program_of_flowers_that_lost_its_connection_or_a_thread_ends_although_other_threads_live(
    tmp_path: Path, action: str, code: int
) -> None:
    command = [sys.executable, "-P", "-c", FLOWERS_PROGRAM, action]
    done = subprocess.run(command, env={**os.environ, "FLWR_HOME": str(tmp_path)}, timeout=280, check=False)
    assert done.returncode == code


def test_a_free_port_can_be_listened_on() -> None:
    assert 1024 <= processes.free_port() <= 65535
