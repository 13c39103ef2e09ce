"""``hemoscope federated``: each subcommand has help, those that need Flower say so, check prints what would happen."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from hemoscope import cli
from hemoscope.cli import federated
from hemoscope.cli.federated import SUBCOMMANDS
from hemoscope.data.cache import COLUMNS, write_manifest
from hemoscope.inference.card import TrainingData

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs the extra: pip install 'hemoscope[train]'")

EXPERIMENT = Path(__file__).resolve().parents[2] / "src/hemoscope/experiments/federated-experiment.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trial.toml"
    path.write_text(f'name = "trial"\ndescription = "a trial"\nexperiment = "{EXPERIMENT}"\n')
    return path


@pytest.fixture
def site_file(tmp_path: Path) -> Callable[[str], Path]:
    """``site_file(policy)``: a site file whose data are not there."""

    def write(policy: str) -> Path:
        path = tmp_path / "site.toml"
        path.write_text(f'name = "north"\ndata = "cache"\nwork = "work"\n[policy]\n{policy}\n')
        return path

    return write


@pytest.mark.parametrize("name", [one.name for one in SUBCOMMANDS])
def test_each_subcommand_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["federated", name, "--help"])
    assert f"usage: hemoscope federated {name}" in capsys.readouterr().out


def test_a_subcommand_that_needs_flower_names_the_line_that_installs_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(federated, "find_spec", lambda _name: None)
    assert cli.main(["federated", "simulate", str(file), "--data", "cache", "--output", "run"]) == 2
    said = capsys.readouterr().err
    assert "flwr is not installed. Install it, in a clone: make setup-federated, and then" in said
    assert "python -m pip install 'hemoscope[federated]'" in said
    assert ".venv-federated/bin/hemoscope" in said


def test_flower_is_quiet_whatever_the_shell_says(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in federated.QUIET:
        monkeypatch.setenv(name, "by the shell")
    assert cli.main(["federated", "check", str(file)]) == 0
    assert {name: os.environ[name] for name in federated.QUIET} == federated.QUIET


def test_check_prints_what_would_happen_what_leaves_and_what_is_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["federated", "check", str(file), "--set", "rounds=3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("trial: a trial\n")
    for words in ("What happens", "3 rounds x 1 epoch", "What leaves a site", "never", "What is refused"):
        assert words in said


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_check_prints_the_whole_fingerprint_on_a_line_of_its_own_whatever_the_width(
    file: Path, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hemoscope.federated.settings.federation import read_federation

    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["federated", "check", str(file)]) == 0
    assert read_federation(file).fingerprint in capsys.readouterr().out.splitlines()


def test_check_prints_the_whole_fingerprint_into_a_pipe(file: Path) -> None:
    code = "import sys; from hemoscope.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "federated", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if re.fullmatch("[0-9a-f]{64}", line)]


def test_check_refuses_what_excludes_each_other(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["federated", "check", str(file), "--set", "strategy.name=median"]) == 2
    assert 'median needs weighting = "uniform"' in capsys.readouterr().err


def test_check_says_why_a_site_takes_no_part(
    file: Path, site_file: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["federated", "check", str(file), "--site", str(site_file("secure_aggregation = true"))]
    assert cli.main(words) == 2
    assert "site.toml: this site trains with secure aggregation alone. Change the" in capsys.readouterr().err


def test_check_counts_a_sites_patients_and_says_that_it_takes_part(
    file: Path, site_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["federated", "check", str(file), "--site", str(site_file("min_sites = 2")), "--sites", "4"]
    assert cli.main(words) == 1
    assert "cache holds no manifest.parquet" in capsys.readouterr().err
    (tmp_path / "cache").mkdir()
    places = [(patient, index) for patient in ("p1", "p2") for index in range(3)]
    rows = [
        dict(zip(COLUMNS, (f"{patient}-{index}", patient, patient, patient, index, False, *[0] * 6), strict=True))
        for patient, index in places
    ]
    terms = TrainingData(name="made", version="1", doi="none", license="Apache-2.0", attribution="us", changes="none")
    write_manifest(tmp_path / "cache", rows, terms)
    assert cli.main(words) == 0
    assert capsys.readouterr().out.endswith("\nnorth takes part, with 2 patients and 6 slices.\n")


@pytest.mark.parametrize("number", ["0", "-1"])
def test_check_of_no_sites_is_refused(file: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["federated", "check", str(file), "--sites", number]) == 2
    assert f"--sites must be at least 1, got {number}" in capsys.readouterr().err


def test_a_run_of_a_part_that_the_experiment_has_not_is_refused_before_a_site_is_asked(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(federated, "find_spec", lambda _name: "there")
    words = ["federated", "run", str(file), "--server", str(tmp_path / "state"), "--output", str(tmp_path / "run")]
    assert cli.main([*words, "--part", "fold-99"]) == 2
    assert "no such part: fold-99. This experiment has" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
