"""From a public release to a model that reads a head, through the command line alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hemoscope.cli import main
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.card import to_plain
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

EXPERIMENT = """
name = "tiny"
description = "A tiny network"

[run]
epochs = 1
batch_size = 4
folds = 2
init = "none"

[network]
backbone = "test_efficientnet"
width = 8
pooled = 4

[preprocessing]
size = 32

[sampling]
negatives = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_ct_ich: Callable[..., Path]) -> Path:
    """A folder with a small release of CT-ICH's shape, an experiment file, and a cache that was prepared from both."""
    folder = tmp_path_factory.mktemp("journey")
    bleeds = frozenset(SUBTYPES)
    make_ct_ich(folder / "release", {f"p{n}": bleeds if n < 3 else frozenset() for n in range(6)})
    (folder / "release/patients/p4/brain/2.png").write_bytes(b"no picture")
    (folder / "tiny.toml").write_text(EXPERIMENT)
    assert main(["prepare", "ct-ich", "--images", str(folder / "release"), "--output", str(folder / "cache")]) == 0
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run of the tiny experiment, all parts."""
    words = ["train", str(place / "tiny.toml"), "--data", str(place / "cache"), "--output", str(place / "run")]
    assert main([*words, "--threads", "1"]) == 0
    return place / "run"


def rank_well(run: Path) -> None:
    """Give the folds scores that rank: a network of one epoch has none that a card could be fitted on."""
    truth = pd.read_csv(run / "slices.csv").set_index("image_id")
    random = np.random.default_rng(2)
    for path in run.glob("fold-*/scores.csv"):
        scores = pd.read_csv(path)
        for label in LABELS:
            scores[f"logit_{label}"] = 5.0 * truth.loc[scores["image_id"], label].to_numpy() - 3
            scores[f"logit_{label}"] += random.normal(0, 0.3, len(scores))
        scores.to_csv(path, index=False)


@pytest.fixture(scope="module")
def bundle(run: Path, place: Path) -> Path:
    """The exported bundle."""
    rank_well(run)
    assert main(["export", str(run), "--output", str(place / "bundle"), "--model-version", "3"]) == 0
    return place / "bundle"


def test_prepare_states_how_many_slices_there_are_and_which_were_excluded(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "ct-ich", "--images", str(place / "release"), "--output", str(tmp_path / "cache")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out == f"17 slices in {tmp_path / 'cache'}, 1 left out\n"
    assert said.err.startswith("left out p4_002: 2.png: not a readable image")


def test_prepare_refuses_a_folder_that_is_no_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "ct-ich", "--images", str(tmp_path), "--output", str(tmp_path / "cache")]) == 1
    assert capsys.readouterr().err.startswith("hemoscope prepare: labels.csv is not in the given folder")


def test_prepare_asks_for_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["prepare"])
    assert "DATASET" in capsys.readouterr().err


def test_train_writes_every_split_and_prints_the_next_step(
    run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("fold-0", "fold-1", "final"):
        assert (run / part / "weights.safetensors").is_file()
    words = ["train", str(place / "tiny.toml"), "--data", str(place / "cache"), "--output", str(run)]
    assert main([*words, "--resume"]) == 0
    said = capsys.readouterr()
    *parts, last = said.out.splitlines()
    assert last == f"finished: {run}. Next: hemoscope export {run} --output BUNDLE"
    assert [line.partition(":")[0] for line in parts] == ["fold-0", "fold-1", "final"]
    assert all(re.search(r": 1 epoch, \d+ steps, \d+ s; train/dice .*train/loss \d", line) for line in parts)
    assert said.err == ""
    assert main(words) == 1
    assert "exists already. Continue with --resume" in capsys.readouterr().err


def test_train_lists_the_experiments_that_ship_and_asks_for_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--list"])
    said = capsys.readouterr().out
    assert re.search(r"^paper +ResNet-50 and the flatten head, as published", said, re.MULTILINE)
    assert not re.search(r"^federated ", said, re.MULTILINE)


def test_train_takes_one_part_and_changed_settings(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(place / "tiny.toml"), "--data", str(place / "cache"), "--output", str(tmp_path / "one")]
    assert main([*words, "--only", "final", "--set", "run.seed=9", "--set", "augment.flip=0"]) == 0
    record = json.loads((tmp_path / "one" / "experiment.json").read_text())
    assert record["run"]["seed"] == 9
    assert record["augment"]["flip"] == 0.0
    assert not (tmp_path / "one" / "fold-0").exists()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"written to {tmp_path / 'one'}. It cannot be exported: one lacks fold-0/scores.csv")
    assert last.endswith("Finish it: hemoscope train ... --resume")


def test_a_split_by_slice_is_warned_of_and_recorded(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(place / "tiny.toml"), "--data", str(place / "cache"), "--output", str(tmp_path / "leak")]
    assert main([*words, "--set", "run.split=slice"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(
        "warning: Split by slice, as in the paper: slices of one patient are in both train and test"
    )
    assert said.out.startswith("split: 1 epoch")
    record = json.loads((tmp_path / "leak" / "split.json").read_text())
    assert (record["by"], record["seed"], record["validation"], record["test"]) == ("slice", 257, 0.0, 0.1)
    assert record["warning"].startswith("Split by slice")


def test_weights_to_begin_with_are_given_by_their_path(
    place: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(place / "tiny.toml"), "--data", str(place / "cache"), "--only", "final", "--output"]
    weights = run / "fold-0" / "weights.safetensors"
    assert main([*words, str(tmp_path / "tuned"), "--init", str(weights)]) == 0
    assert json.loads((tmp_path / "tuned/final/part.json").read_text())["init"].startswith("weights.safetensors")
    assert json.loads((tmp_path / "tuned/experiment.json").read_text())["run"]["init"] == "weights.safetensors"
    assert main([*words, str(tmp_path / "lost"), "--init", str(tmp_path / "absent.pth")]) == 1
    assert "absent.pth" in capsys.readouterr().err


def test_a_wrong_setting_ends_with_the_code_of_usage(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(place / "tiny.toml"), "--data", str(place / "cache"), "--output", str(tmp_path / "none")]
    assert main([*words, "--set", "run.epoch=9"]) == 2
    assert "unknown key epoch" in capsys.readouterr().err
    assert main([*words, "--only", "fold-9"]) == 2
    assert "no such split: fold-9" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_train_without_a_cache_names_the_command_that_makes_one(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(place / "tiny.toml"), "--data", str(tmp_path), "--output", str(tmp_path / "run")]
    assert main(words) == 1
    assert "Create it with: hemoscope prepare" in capsys.readouterr().err


def test_export_writes_a_bundle_that_loads_and_prints_its_hash(
    bundle: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_bundle(bundle)
    card = loaded.card
    assert (card.name, card.version) == ("hemoscope-tiny", "3")
    assert card.training_data[0].name == "CT-ICH"
    assert [table.level for table in card.scores] == ["slice", "patient"]
    monkeypatch.setattr("hemoscope.training.export.onnx_graph", lambda *_, **__: loaded.read_graph())
    assert main(["export", str(run), "--output", str(bundle)]) == 2
    assert "exists" in capsys.readouterr().err


def test_export_adds_score_tables_from_files(
    bundle: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_bundle(bundle)
    monkeypatch.setattr("hemoscope.training.export.onnx_graph", lambda *_, **__: loaded.read_graph())
    tables = tmp_path / "external.json"
    tables.write_text(json.dumps([{**to_plain(loaded.card.scores[0]), "name": "external"}]))
    assert main(["export", str(run), "--output", str(tmp_path / "more"), "--scores", str(tables)]) == 0
    more = load_bundle(tmp_path / "more")
    assert more.card.scores[2].name == "external"
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"hemoscope-tiny 1 in {tmp_path / 'more'}, SHA-256 {more.sha256}"
    assert second == f"Next: hemoscope evaluate --model {tmp_path / 'more'} --data CACHE --output REPORT"


@pytest.mark.parametrize("content", [None, "no json", "{}", '{"name": 1}', "3", '[{"name": "half"}]'])
def test_export_refuses_score_tables_that_are_none(
    run: Path, bundle: Path, tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tmp_path / "external.json"
    if content is not None:
        tables.write_text(content)
    assert main(["export", str(run), "--output", str(tmp_path / "more"), "--scores", str(tables)]) == 2
    assert "external.json" in capsys.readouterr().err


def test_export_refuses_an_unfinished_run(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(place / "tiny.toml"), "--data", str(place / "cache"), "--output", str(tmp_path / "half")]
    assert main([*words, "--only", "fold-0"]) == 0
    capsys.readouterr()
    assert main(["export", str(tmp_path / "half"), "--output", str(tmp_path / "bundle")]) == 1
    said = capsys.readouterr().err
    assert "half lacks fold-1/scores.csv, final/weights.safetensors. Finish it" in said


def test_the_exported_model_reads_a_head(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(make_phantom(seed=3, shape=(3, 64, 64)), tmp_path / "dicom")
    # Three slices are less than a head.
    assert main(["predict", str(tmp_path / "dicom"), "--model", str(bundle), "--format", "json"]) == ExitCode.INCOMPLETE
    findings = json.loads(capsys.readouterr().out)
    assert findings["model"]["name"] == "hemoscope-tiny"
    study = findings["studies"][0]
    assert set(study["probabilities"]) == set(LABELS)
    assert len(study["slices"]) == 3
    assert all(0 <= p <= study["probabilities"]["any"] for p in study["probabilities"].values())
