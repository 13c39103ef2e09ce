"""``hemoscope evaluate --predictions`` as a person runs it."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from hemoscope.cli import evaluate_predictions
from hemoscope.labels import LABELS


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hemoscope evaluate")
    evaluate_predictions.register(parser)
    return parser.parse_args(words)


def test_it_prints_the_scores_and_where_the_report_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    labels = (random.random((80, 6)) < 0.3).astype(int)
    scores = np.clip(0.5 * labels + random.random(labels.shape) / 2, 0.001, 0.999)
    for name, table in (("p.csv", scores), ("l.csv", labels)):
        rows = [f"ID_{i},p{i // 4}," + ",".join(map(str, row)) for i, row in enumerate(table)]
        (tmp_path / name).write_text("\n".join([",".join(["image_id", "patient_id", *LABELS]), *rows]))
    words = [f"--predictions={tmp_path / 'p.csv'}", f"--labels={tmp_path / 'l.csv'}", "--groups=patient_id"]
    arguments = parsed(*words, f"--output={tmp_path / 'out'}", "--rounds=20")
    assert arguments.run(arguments) == 0
    printed = capsys.readouterr().out
    assert "80 images, 20 groups" in printed
    assert "Any hemorrhage" in printed
    assert (tmp_path / "out" / "report.json").is_file()


def test_no_rounds_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--predictions=p", "--labels=l", "--output=o", "--rounds=0")
    assert "number of rounds above 0" in capsys.readouterr().err
