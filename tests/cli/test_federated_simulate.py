"""``hemoscope federated simulate`` and ``compare`` as typed: what is refused at once, and a round as a line."""

from pathlib import Path
from typing import Any

import pytest

from hemoscope.cli import main
from hemoscope.cli.federated_rounds import round_line
from hemoscope.cli.federated_simulate import _poison, _share
from hemoscope.errors import ConfigError

ROUND: dict[str, Any] = {
    "number": 2,
    "asked": [1, 2, 3, 4],
    "used": [1, 3],
    "refused": {"2": "the update's norm is 210"},
    "lost": [4],
    "suspicious": {"3": ["below chance", "turned"]},
    "losses": {"1": 0.5, "3": 0.7},
    "epsilon": 12.345,
    "seconds": 61.7,
    "scores": {"auroc": {"slices": {"any": {"value": 0.8126, "low": 0.7512, "high": 0.8533}}}},
}


def test_a_round_is_one_line_of_who_took_part_and_anomalies() -> None:
    assert round_line("fold-0", ROUND, 10) == (
        "fold-0: round 2 of 10, 2 of 4 sites, loss 0.6000, AUROC of any 0.813 (0.751 to 0.853), epsilon 12.3, "
        "site 2 refused: the update's norm is 210, site 3 suspicious: below chance; turned, site 4 lost, 62 s"
    )


def test_a_void_round_and_one_that_was_only_scored_are_lines_too() -> None:
    assert round_line("split", {"number": 1, "void": True, "asked": [1], "used": []}, 3) == "split: round 1 of 3, void"
    assert round_line("split", {"number": 3, "scores": {"auroc": {}}}, 3) == "split: round 3 of 3"


@pytest.mark.parametrize("text", ["site-2", "site-2=steal", "two=flip", "=flip"])
def test_a_poison_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["federated", "simulate", "f.toml", "--data", "c", "--output", str(tmp_path), "--poison", text])
    assert "give site-2=flip or site-2=scale" in capsys.readouterr().err


def test_a_poison_is_a_site_and_what_it_does() -> None:
    assert _poison("site-2=flip") == (2, "flip")
    assert _poison("site-11=scale") == (11, "scale")


def test_another_run_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["federated", "compare", "RUN", "--data", "c", "--output", "r", "--with", "runs/dp"])
    assert "give NAME=RUN, got 'runs/dp'" in capsys.readouterr().err


def test_trainings_side_by_side_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemoscope.cli.federated_simulate.available_processors", lambda: 8)
    assert _share(None, None) == (8, 1)
    assert _share(2, None) == (2, 4)
    assert _share(2, 3) == (2, 3)
    with pytest.raises(ConfigError, match="--workers must be at least 1, got 0"):
        _share(0, None)


def test_a_report_that_is_there_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemoscope.cli.federated.find_spec", lambda _name: True)
    assert main(["federated", "compare", "RUN", "--data", "c", "--output", str(tmp_path)]) != 0
    assert "exists already. Go on with --resume" in capsys.readouterr().err
