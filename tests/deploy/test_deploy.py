"""What ``deploy/`` ships: a hardened service, and a container whose user can change no code."""

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from hemoscope.cli.commands import build_parser

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
SERVICE = DEPLOY / "hemoscope.service"
MOST_EXPOSURE = 20  # in tenths: 2.0 of 10


@pytest.mark.reference_tool
def test_the_service_is_hardened(reference_tool: Callable[[str], Path]) -> None:
    words = (reference_tool("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", SERVICE)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_service_starts_the_command_as_its_own_user() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(SERVICE)
    program, *words = unit["Service"]["ExecStart"].split()
    assert program.endswith("/bin/hemoscope")
    assert build_parser().parse_args(words).command == "serve"
    assert unit["Service"]["User"] == "hemoscope"


def test_the_container_runs_as_another_user_than_root_and_installs_nothing_that_is_not_pinned() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE) == ["hemoscope"]
    steps = re.split(r"\bpip install\b", text.replace("\\\n", " "))[1:]
    assert steps
    for step in steps:
        assert "--no-index" in step.split("&&")[0]
        assert "--require-hashes" in step.split("&&")[0] or "--no-deps" in step.split("&&")[0]


@pytest.mark.parametrize(
    ("component", "fault"),
    [
        ({"name": "x.y", "version": "1", "licenses": [{"license": {"id": "MIT"}}]}, ""),
        ({"name": "x.y", "version": "1"}, "x_y==1 has no licence"),
        ({"name": "x.y", "version": "2", "licenses": [{"license": {"id": "MIT"}}]}, "x_y==1 is not listed"),
        ({"name": "z", "version": "1"}, "x_y==1 is not listed"),
    ],
)
def test_a_package_without_licence_or_missing_from_the_sbom_is_named(
    tmp_path: Path, component: dict[str, object], fault: str
) -> None:
    (tmp_path / "sbom.json").write_text(json.dumps({"components": [component]}))
    (tmp_path / "pins.txt").write_text("# pins\nx_y==1\n")
    words = [sys.executable, "-P", DEPLOY / "check_sbom.py", tmp_path / "sbom.json", tmp_path / "pins.txt"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == fault
    assert done.returncode == (1 if fault else 0)


def test_pip_takes_the_list_of_hashes_of_a_folder_and_no_other_file(tmp_path: Path) -> None:
    """A wheel that was changed after it was hashed is refused."""
    wheel = tmp_path / "wheels" / "tiny_thing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    write_wheel(wheel, "first")
    listed = subprocess.run(
        [sys.executable, "-P", DEPLOY / "hash_wheels.py", wheel.parent], capture_output=True, text=True, check=True
    )
    (tmp_path / "hashes.txt").write_text(listed.stdout)
    words = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--find-links", wheel.parent]
    words += ["--require-hashes", "-r", tmp_path / "hashes.txt", "--target", tmp_path / "installed"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    write_wheel(wheel, "second")
    assert b"DO NOT MATCH THE HASHES" in subprocess.run(words, capture_output=True, check=False).stderr


def write_wheel(path: Path, content: str) -> None:
    """A wheel of one module; its names are those of a package that is in no index."""
    about = "tiny_thing-1.0.dist-info"
    with ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_thing.py", f"content = {content!r}\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", f"tiny_thing.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a root file system of its own")
@pytest.mark.skipif(not any(REPOSITORY.glob("wheels/*.whl")), reason="needs the wheels: make dist wheels")
def test_the_steps_of_the_containerfile_make_a_server_that_answers(
    reference_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    reference_tool("mmdebstrap")
    program = [sys.executable, "-P", DEPLOY / "try_containerfile.py", tmp_path / "root"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("/health answers 200\n/ready answers 200\n")
