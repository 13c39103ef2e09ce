"""``hemoscope reproduce paper`` as a person runs it."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from hemoscope.cli import main, reproduce
from hemoscope.evaluation.published_paper import PUBLISHED
from hemoscope.labels import LABELS


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own data folder must not decide a test."""
    monkeypatch.delenv("HEMOSCOPE_DATA", raising=False)


def write_scores(folder: Path, predictions: str = "p.csv", labels: str = "l.csv") -> list[str]:
    """Predictions and labels of 80 images; returns the options that name them."""
    import gzip

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    truth = (random.random((80, 6)) < 0.3).astype(int)
    truth[:, 0] = truth[:, 1:].max(axis=1)
    scores = np.clip(0.5 * truth + random.random(truth.shape) / 2, 0.001, 0.999)
    for name, table in ((predictions, scores), (labels, truth)):
        rows = [f"ID_{i},p{i // 4}," + ",".join(map(str, row)) for i, row in enumerate(table)]
        text = "\n".join([",".join(["image_id", "patient_id", *LABELS]), *rows])
        content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
        (folder / name).write_bytes(content)
    return ["--predictions", str(folder / predictions), "--labels", str(folder / labels)]


def run(folder: Path, *words: str) -> int:
    return main(["reproduce", "paper", "--output", str(folder / "out"), "--rounds", "10", *words])


def test_it_prints_the_counts_and_where_the_page_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, *write_scores(tmp_path), "--groups", "patient_id") == 0
    printed = capsys.readouterr().out
    counts = [int(line.split()[0]) for line in printed.splitlines()[:5]]
    assert sum(counts) == len(PUBLISHED)
    assert "open reproduction.html" in printed
    assert "No predictions" not in printed
    assert json.loads((tmp_path / "out" / "reproduction.json").read_text())["bootstrap"]["unit"] == "group"


def test_files_of_the_data_folder_are_used_if_none_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scores(tmp_path / "data" / "rsna-paper", "predictions.csv.gz", "labels.csv.gz")
    monkeypatch.setenv("HEMOSCOPE_DATA", str(tmp_path / "data"))
    assert run(tmp_path) == 0
    document = json.loads((tmp_path / "out" / "reproduction.json").read_text())
    assert document["files"]["predictions"] == "predictions.csv.gz"
    assert document["numbers"][-1]["recomputed"] is not None


def test_without_data_it_says_so_and_still_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEMOSCOPE_DATA", str(tmp_path))
    assert run(tmp_path) == 0
    assert "No predictions: give --predictions and --labels" in capsys.readouterr().out
    assert (tmp_path / "out" / "reproduction.html").is_file()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--predictions", "p.csv"], "--predictions and --labels belong together"),
        (["--labels", "l.csv"], "--predictions and --labels belong together"),
        (["--groups", "patient_id"], "--groups names a column"),
        (["--timing"], "--timing and --slices belong together"),
        (["--slices", "SCANS"], "--timing and --slices belong together"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *words) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "l.csv")) == 1
    assert "p.csv: no such file" in capsys.readouterr().err


def test_timing_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduce, "find_spec", lambda name: None)
    assert run(tmp_path, "--timing", "--slices", str(tmp_path)) == 2
    assert "torch is not installed. Install it, in a clone: make setup-train" in capsys.readouterr().err


def test_it_must_be_said_what_to_reproduce() -> None:
    parser = argparse.ArgumentParser()
    reproduce.register(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([])
