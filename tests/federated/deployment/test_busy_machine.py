"""A federation ends in its round on a machine that has too much to do, and whichever of its processes is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a federation is deployed on Linux"),
    pytest.mark.journey,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]

FEDERATION = """
name = "two-hospitals"
experiment = "experiment.toml"
rounds = 1
min_sites = 2
round_timeout = 90.0
[histograms]
least_cell = 2
every = 0
"""
# Each of Flower's processes, by its command line.
PROCESSES = {
    "superlink": r"deployment\.superlink ",
    "the server's superexec": r"processes flower-superexec --root-certificates",
    "serverapp": r"processes flwr-serverapp ",
    "supernode": r"processes flower-supernode ",
    "a site's superexec": r"processes flower-superexec --insecure",
    "clientapp": r"processes flwr-clientapp ",
}


@pytest.fixture
def hospitals(tmp_path: Path, new_hospitals: Callable[..., Any]) -> Iterator[Any]:
    policy = "[policy]\nmin_sites = 2\nleast_cell = 2\n"
    made = new_hospitals(tmp_path, sites=("riverside", "hilltop"), federation=FEDERATION, policy=policy)
    yield made
    made.made.close()


def begin_round(hospitals: Any) -> subprocess.Popen[str]:
    """A server, its sites, and a run that waits for a site's training."""
    hospitals.server()
    hospitals.all_sites()
    running: subprocess.Popen[str] = hospitals.run()
    asked = "processes flwr-clientapp "
    hospitals.wait_for(lambda: bool(hospitals.audit("riverside")) and bool(hospitals.pids(asked)))
    return running


def assert_round_ended(hospitals: Any, running: subprocess.Popen[str]) -> None:
    assert running.wait(900) == 0, hospitals.logs()
    completed = [one for one in hospitals.rounds() if not one.get("void") and "used" in one]
    assert [(one["number"], len(one["used"])) for one in completed] == [(1, 2)]
    assert (hospitals.run_folder / "split" / "part.json").is_file()
    logs = {path.name: path.read_text() for path in hospitals.folder.glob("*.log")}
    assert not [name for name, log in logs.items() if "database is locked" in log]


@pytest.mark.usefixtures("busy_machine")
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_round_ends_on_a_machine_that_has_too_much_to_do(hospitals: Any, attempt: int) -> None:
    hospitals.server()
    hospitals.all_sites()
    assert_round_ended(hospitals, hospitals.run())


@pytest.mark.parametrize("name", PROCESSES)
def test_a_round_ends_although_a_process_is_killed(hospitals: Any, name: str) -> None:
    running = begin_round(hospitals)
    victim, *_ = hospitals.pids(PROCESSES[name])
    os.kill(victim, signal.SIGKILL)
    assert_round_ended(hospitals, running)
