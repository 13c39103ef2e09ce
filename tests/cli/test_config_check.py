"""``hemoscope config check``: what a node's settings mean, and what its rules do with a study."""

from pathlib import Path

import pytest

from hemoscope.cli import main
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

NODE = """
[[peer]]
ae_title = "CT1"
addresses = ["10.1.2.3"]

[[rule]]
action = "ignore"
calling_ae_title = "CT1"
description = "bone"
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(NODE)
    return path


def test_it_says_who_may_send(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(node)]) == ExitCode.OK
    assert "CT1 may send from 10.1.2.3" in capsys.readouterr().out


@pytest.mark.parametrize(("calling", "bone"), [("CT1", "ignore"), ("CT2", "read")])
def test_it_shows_what_happens_to_each_series(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], calling: str, bone: str
) -> None:
    for number, name in enumerate(("soft", "Bone"), 1):
        acquisition = Acquisition(series_description=name, series_number=number)
        write_series(make_phantom(seed=2, shape=(2, 64, 64)), tmp_path / name, acquisition=acquisition)
    paths = [str(tmp_path / name) for name in ("soft", "Bone")]
    assert main(["config", "check", str(node), *paths, "--calling", calling]) == ExitCode.OK
    actions = {line.split()[0]: line.split()[3] for line in capsys.readouterr().out.splitlines() if "HEAD" in line}
    assert actions == {"soft": "read", "Bone": bone}


WEBHOOK = "[webhook]\nurl='https://site.example/'\nsecret_file='secret'\nurgencies=%s\n"
DESTINATION = "[[destination]]\nname='%s'\nae_title='PACS'\nhost='10.1.2.3'\nport=104\n"


@pytest.mark.parametrize(
    ("text", "options", "warning"),
    [
        (DESTINATION % "a", ("--retention-days", "7"), "keep_days of a is 14, and studies are deleted after 7 days"),
        (DESTINATION % "a" + "[results]\nresend_days=30\n", ("--retention-days", "20"), "resend_days is 30"),
        (DESTINATION % "a", ("--deidentify",), "deidentify forbids destinations"),
        (DESTINATION % "a" + DESTINATION % "b", (), "2 destinations are PACS at 10.1.2.3, port 104"),
        ("[node]\nlate_minutes=0.1\n", (), "late_minutes is no longer than quiet_seconds"),
        (DESTINATION % "a" + "[node]\nlate_minutes=1\n", (), "hold_incomplete_seconds is longer than late_minutes"),
        (WEBHOOK % "['prompt']", (), "urgencies of [webhook] has prompt and lacks unsure"),
    ],
)
def test_what_contradicts_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, options: tuple[str, ...], warning: str
) -> None:
    node = tmp_path / "node.toml"
    (tmp_path / "secret").write_text("a secret of many characters")
    node.write_text(text)
    assert main(["config", "check", str(node), *options]) == ExitCode.OK
    assert f"Warning: {warning}" in " ".join(capsys.readouterr().out.split())


def test_a_file_without_contradictions_has_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = tmp_path / "node.toml"
    (tmp_path / "secret").write_text("a secret of many characters")
    node.write_text(DESTINATION % "a" + WEBHOOK % "['prompt', 'unsure']")
    assert main(["config", "check", str(node), "--retention-days", "30"]) == ExitCode.OK
    assert "Warning" not in capsys.readouterr().out


def test_a_mistake_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.toml").write_text("[nodes]")
    assert main(["config", "check", str(tmp_path / "node.toml")]) == ExitCode.USAGE
    assert "node.toml: no such table: nodes" in capsys.readouterr().err
