"""Programs that must stay alive: started again, described, and ended with their supervisor."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hemoscope.errors import FederationError
from hemoscope.federated.deployment import supervisor as supervisor_module
from hemoscope.federated.deployment.supervisor import PROCESSES, Program, Supervisor, ending

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a federation is deployed on Linux")

SUPERVISOR = """
import sys
from pathlib import Path
from hemoscope.federated.deployment.supervisor import Program, Supervisor

sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
node = Program(name="node", command=lambda: sleep)
executor = Program(name="executor", command=lambda: sleep, after=lambda pids: "node" in pids, ends_with="node")
sys.exit(Supervisor([node, executor], Path(sys.argv[1])).run())
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def described(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        return {one["name"]: one for one in json.loads((folder / PROCESSES).read_text())["programs"]}
    except FileNotFoundError:
        return {}


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(folder: Path) -> list[int]:
    return [one["pid"] for one in described(folder).values() if one["pid"] is not None]


def test_a_program_that_is_killed_is_started_again_with_the_one_that_ends_with_it(
    tmp_path: Path, supervisor: subprocess.Popen[str]
) -> None:
    wait_for(lambda: len(alive(tmp_path)) == 2)
    first = alive(tmp_path)
    os.kill(described(tmp_path)["node"]["pid"], signal.SIGKILL)
    wait_for(lambda: len(alive(tmp_path)) == 2 and not set(alive(tmp_path)) & set(first))
    found = described(tmp_path)
    assert {name: one["restarts"] for name, one in found.items()} == {"node": 1, "executor": 1}
    assert found["node"]["last_end"] == "was ended by SIGKILL"
    second = alive(tmp_path)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(120) == 0
    assert not [pid for pid in second if Path(f"/proc/{pid}").exists()]
    assert not (tmp_path / PROCESSES).exists()
    assert supervisor.stderr is not None
    assert "node was ended by SIGKILL; starting it again in 1 s" in supervisor.stderr.read()


def exits(code: int, **options: Any) -> Program:
    return Program(name="it", command=lambda: [sys.executable, "-c", f"raise SystemExit({code})"], **options)


def test_a_program_that_says_that_it_cannot_run_ends_the_supervisor(tmp_path: Path) -> None:
    assert Supervisor([exits(78, final=frozenset({78}))], tmp_path).run() == 1


@pytest.fixture
def looks_as_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is a tenth of a second later at each look, however long processes take to start."""
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(looks) / 10, time=time.time)
    monkeypatch.setattr(supervisor_module, "time", clock)
    monkeypatch.setattr(supervisor_module, "_LOOK", 0.01)


@pytest.mark.usefixtures("looks_as_clock")
def test_a_program_that_is_refused_for_too_long_ends_the_supervisor_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Supervisor([exits(1, refused=frozenset({1}), patience=1.5)], tmp_path).run() == 1
    said = capsys.readouterr().err
    assert "it ended with exit code 1; starting it again in 1 s" in said
    assert "it: refused for 2 s" in said


@pytest.mark.usefixtures("looks_as_clock")
def test_a_program_that_fails_again_and_again_is_started_after_longer_and_longer_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(supervisor_module, "LONGEST_PAUSE", 0.4)
    assert Supervisor([exits(1, refused=frozenset({1}), patience=3.0)], tmp_path).run() == 1
    pauses = [line.split()[-2] for line in capsys.readouterr().err.splitlines() if "starting it again" in line]
    assert pauses[:4] == ["0.1", "0.2", "0.4", "0.4"]


def test_a_folder_has_one_supervisor_and_the_second_leaves_the_description_alone(
    tmp_path: Path, supervisor: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    wait_for(lambda: len(alive(tmp_path)) == 2)
    assert Supervisor([exits(0)], tmp_path).run() == 1
    assert "is in use by another server or site" in capsys.readouterr().err
    assert len(alive(tmp_path)) == 2


def test_a_program_that_cannot_be_started_and_a_description_that_cannot_be_written_end_no_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hemoscope.federated.deployment.supervisor.write_text", full)
    absent = Program(name="absent", command=lambda: [str(tmp_path / "absent")])
    ends = exits(78, final=frozenset({78}))
    assert Supervisor([absent, ends], tmp_path).run() == 1
    said = capsys.readouterr().err
    assert "absent could not be started (No such file or directory); starting it again in 1 s" in said
    assert "processes.json cannot be written (No space left on device)" in said


def test_an_end_is_said_in_words() -> None:
    assert ending(3) == "ended with exit code 3"
    assert ending(-9) == "was ended by SIGKILL"
    assert ending(-40) == "was ended by signal 40"


def test_the_status_of_a_folder_names_programs_that_do_not_run_and_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("flwr", reason="needs the extra: make setup-federated")
    from hemoscope.federated.deployment.server_status import programs_report

    with pytest.raises(FederationError, match="no server or site runs with the folder"):
        programs_report(tmp_path)
    program = {"name": "superexec", "pid": None, "since": 0.0, "restarts": 2, "last_end": "was ended by SIGKILL"}
    (tmp_path / PROCESSES).write_text(json.dumps({"supervisor": os.getpid(), "programs": [program]}))
    report = programs_report(tmp_path)
    assert not report.well
    since = "1970-01-01T00:00:00+00:00"
    said = f"superexec: not running since {since}, started again 2 times; the last one was ended by SIGKILL"
    assert report.lines == (said,)
    (tmp_path / PROCESSES).write_text(json.dumps({"supervisor": 2**22 + 1, "programs": [program]}))
    with pytest.raises(FederationError, match=r"was killed\. Start it again"):
        programs_report(tmp_path)
