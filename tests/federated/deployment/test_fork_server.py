"""Applications are forked from one process, say what they say where their launcher would, and die with either."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from hemoscope.federated.deployment.fork_client import ADDRESS, run_forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are tied by Linux's prctl")

# A fork server whose program does as its arguments say, in place of Flower's.
SERVER = """
import os, random, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from hemoscope.federated.deployment import fork_server, processes

def program():
    what, *rest = sys.argv[1:]
    if what == "exit":
        print("to output", flush=True)
        print("to error", file=sys.stderr, flush=True)
        sys.exit(int(rest[0]))
    if what == "fail":
        raise ValueError("as asked")
    if what == "draw":
        print(random.random(), np.random.random(), flush=True)
        sys.exit(0)
    print(os.getpid(), flush=True)
    time.sleep(600)

processes.entry_points = lambda **_options: [SimpleNamespace(load=lambda: program)]
fork_server.ForkServer(fork_server.listen(Path(sys.argv[1]))).serve()
"""
LAUNCHER = (
    "import sys; from pathlib import Path; from hemoscope.federated.deployment.fork_client import run_forked;"
    "sys.exit(run_forked(Path(sys.argv[1]), ['flwr-clientapp', *sys.argv[2:]]))"
)


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its path is longer than a socket's may be."""
    made = tmp_path / ("long" * 30)
    made.mkdir()
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-P", "-c", SERVER, str(folder)]) as process:
        wait_for((folder / ADDRESS).exists)
        yield process
        process.kill()


def launch(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", LAUNCHER, str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lives(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.usefixtures("server")
def test_the_launcher_has_the_outputs_and_the_exit_code_of_the_application(folder: Path) -> None:
    done = launch(folder, "exit", "3")
    assert (*done.communicate(timeout=120), done.returncode) == ("to output\n", "to error\n", 3)
    done = launch(folder, "fail")
    assert "ValueError: as asked" in done.communicate(timeout=120)[1]
    assert done.returncode == 1
    assert (folder / ADDRESS).stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("server")
def test_no_two_applications_draw_the_same_random_numbers(folder: Path) -> None:
    drawn = [launch(folder, "draw").communicate(timeout=120)[0].split() for _ in range(2)]
    assert len({number for numbers in drawn for number in numbers}) == 4


@pytest.mark.parametrize("victim", ["launcher", "fork server"])
def test_an_application_dies_with_its_launcher_and_with_the_fork_server(
    folder: Path, server: subprocess.Popen[bytes], victim: str
) -> None:
    with launch(folder, "wait") as launcher:
        assert launcher.stdout is not None
        application = int(launcher.stdout.readline())
        (launcher if victim == "launcher" else server).kill()
        wait_for(lambda: not lives(application))
        assert launcher.wait(120) == (-signal.SIGKILL if victim == "launcher" else 1)


def test_an_application_that_is_killed_ends_its_launcher(folder: Path, server: subprocess.Popen[bytes]) -> None:
    with launch(folder, "wait") as launcher:
        assert launcher.stdout is not None
        os.kill(int(launcher.stdout.readline()), signal.SIGKILL)
        assert launcher.wait(120) != 0
    assert server.poll() is None


def test_where_no_fork_server_listens_nothing_is_run(folder: Path) -> None:
    assert run_forked(folder, ["flwr-clientapp"]) is None
    (folder / ADDRESS).touch()
    assert run_forked(folder, ["flwr-clientapp"]) is None
