"""``hemoscope tune`` as a person runs it."""

from pathlib import Path

import numpy as np
import pytest

from hemoscope.cli import main
from hemoscope.inference.bundle import load_bundle
from hemoscope.labels import LABELS


@pytest.fixture
def words(tmp_path: Path, tiny_bundle: Path) -> list[str]:
    random = np.random.default_rng(0)
    labels = (random.random((120, 6)) < 0.15).astype(int)
    labels[:, 0] = labels[:, 1:].max(axis=1)
    scores = np.clip(0.5 * labels + random.random(labels.shape) / 2, 0.001, 0.999)
    for name, table in (("p.csv", scores), ("l.csv", labels)):
        rows = [f"ID_{i},p{i // 4}," + ",".join(map(str, row)) for i, row in enumerate(table)]
        (tmp_path / name).write_text("\n".join([",".join(["image_id", "patient_id", *LABELS]), *rows]))
    files = [f"--predictions={tmp_path / 'p.csv'}", f"--labels={tmp_path / 'l.csv'}", "--groups=patient_id"]
    return ["tune", *files, f"--model={tiny_bundle}", f"--output={tmp_path / 'new'}", "--rounds=20"]


def test_it_prints_scores_before_and_after_and_writes_a_bundle(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--rule=sensitivity", "--target=0.9"]) == 0
    printed = capsys.readouterr().out
    assert "120 images, 30 groups; 5 folds by group" in printed
    assert "sensitivity >= 0.9" in printed
    assert load_bundle(tmp_path / "new").card.operating_points.slice["any"].rule == "sensitivity >= 0.9"


def test_a_target_without_a_rule_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--target=0.9"]) == 2
    assert "belongs to a rule" in capsys.readouterr().err


def test_series_files_go_together_and_not_with_studies(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for added in (["--series-labels=l.csv"], ["--series-predictions=p.csv", "--series-labels=l.csv", "--studies=s"]):
        assert main([*words, *added]) == 2
        assert "must be given together, instead of --studies" in capsys.readouterr().err


def test_names_of_columns_hold_for_the_tables_of_series_too(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("p.csv", "l.csv"):
        text = (tmp_path / name).read_text()
        (tmp_path / f"s{name}").write_text(text.replace("image_id", "series").replace("ID_", "S_"))
    series = [f"--series-predictions={tmp_path / 'sp.csv'}", f"--series-labels={tmp_path / 'sl.csv'}"]
    assert main([*words, *series, "--map=image_id=series", "--dry-run"]) == 0
    assert "series" in capsys.readouterr().out
    assert main([*words, *series, "--map=image_id=series"]) == 0
    assert "By study (120)" in capsys.readouterr().out
    assert main([*words, *series, "--map=image_id=serie"]) == 2
    assert "--map image_id=serie: there is no such column" in capsys.readouterr().err
