"""The paper's experiment from Kaggle's folder to a report, by the commands that a researcher types, on phantoms.

``prepare rsna``, ``data stats``, ``train experiments/paper.toml`` (killed in the middle and resumed), ``export``,
``predict`` and ``evaluate``. What is killed, and what goes on after it, are processes of their own; the other commands
run in this one, which has imported what they need. The default run changes the network for a tiny one of the same kind;
the slow one keeps the paper's ResNet-50.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hemoscope.cli import main
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.data.cache import open_cache
from hemoscope.data.split import LEAK_WARNING, split_by_slice
from hemoscope.inference.bundle import load_bundle
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.dicom_writer import Acquisition, write_series
from hemoscope.testing.phantom import make_phantom

pytestmark = pytest.mark.timeout(900)  # several trainings, on whatever machine there is
REPOSITORY = Path(__file__).resolve().parents[2]
PATIENTS, SLICES = 6, 6
ATTEMPTS = 5
SMALL = {
    "run.init": '"none"',
    "run.batch_size": "4",
    "run.checkpoint_steps": "1",
    "preprocessing.size": "64",
    "optimizer.learning_rate": "1e-3",
}
NETWORKS: dict[str, Mapping[str, str]] = {
    "tiny": {"network.backbone": '"test_resnet"', "network.hidden": "16", "run.epochs": "6"},
    "resnet50": {"run.epochs": "3", "run.checkpoint_steps": "0"},
}


def hemoscope(*words: object) -> list[str]:
    return [str(Path(sys.executable).with_name("hemoscope")), *map(str, words)]


def run(*words: object, codes: tuple[int, ...] = (0,)) -> str:
    """What a command prints that ends with one of these exit codes."""
    with redirect_stdout(io.StringIO()) as said:
        assert main([str(word) for word in words]) in codes, said.getvalue()
    return said.getvalue()


def run_alone(*words: object) -> str:
    """The same, in a process of its own."""
    done = subprocess.run(
        hemoscope(*words), capture_output=True, text=True, timeout=600, check=False, env=_one_thread()
    )
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


def _one_thread() -> dict[str, str]:
    """Sums in one order, so that numbers can be compared bit for bit."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def write_kaggle(folder: Path) -> None:
    """The competition's layout: flat images named after their ids, and six lines an image."""
    (folder / "stage_2_train_images").mkdir(parents=True)
    lines = ["ID,Label"]
    for patient in range(PATIENTS):
        bleeds = frozenset(SUBTYPES) if patient % 2 == 0 else frozenset()
        phantom = make_phantom(seed=patient, shape=(SLICES, 64, 64), bleeds=bleeds)
        acquisition = Acquisition(patient_id=f"ID_{patient:08x}")
        files = write_series(phantom, folder / "written", seed=patient, acquisition=acquisition)
        for place, file in enumerate(files):
            image_id = f"ID_{patient:04x}{(place * 7919) % 4096:05x}"  # as in Kaggle's, an id tells no order
            file.rename(folder / "stage_2_train_images" / f"{image_id}.dcm")
            shown = phantom.slice_labels[place]
            lines += [f"{image_id}_{label},{int(shown[k])}" for k, label in enumerate(LABELS)]
    (folder / "stage_2_train.csv").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """Where a journey went: its data, the run that was never interrupted, the one that was, and the bundle."""

    cache: Path
    whole: Path
    killed: Path
    bundle: Path


def train_words(folder: Path, output: str, network: str, *more: str) -> list[str]:
    changes = [f"--set={name}={value}" for name, value in {**SMALL, **NETWORKS[network]}.items()]
    paper = str(REPOSITORY / "src/hemoscope/experiments/paper.toml")
    places = ["--data", str(folder / "cache"), "--output", str(folder / output), "--threads", "1"]
    return ["train", paper, *places, *changes, *more]


def train_until_killed(folder: Path, network: str) -> None:
    """Begin training, and kill it in the second epoch; begin anew if it was done by then, as on a busy machine."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(folder / "killed", ignore_errors=True)
        if killed_in_time(folder, network):
            return
    pytest.fail(f"the training was done before it could be killed, {ATTEMPTS} times")


def killed_in_time(folder: Path, network: str) -> bool:
    """Kill a training as soon as its second epoch has begun; False if its weights are there by then."""
    part = folder / "killed" / "split"
    process = subprocess.Popen(
        hemoscope(*train_words(folder, "killed", network)),
        env=_one_thread(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    written = (part / "metrics.jsonl", part / "checkpoint" / "last.ckpt")
    while process.poll() is None and not all(path.exists() for path in written):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)  # nothing is sent to a process that has ended
    assert process.wait() in (-signal.SIGKILL, 0), "it failed"
    assert all(path.exists() for path in written), "it ended without a second epoch"
    return not (part / "weights.safetensors").exists()


def travel(folder: Path, network: str) -> Journey:
    """All steps up to the bundle."""
    write_kaggle(folder / "kaggle")
    images, labels = folder / "kaggle" / "stage_2_train_images", folder / "kaggle" / "stage_2_train.csv"
    cache = folder / "cache"
    said = run("prepare", "rsna", "--images", images, "--labels", labels, "--output", cache, "--workers", 1)
    assert said.startswith(f"{PATIENTS * SLICES} slices in {cache}, 0 left out")
    train_until_killed(folder, network)
    run_alone(*train_words(folder, "killed", network, "--resume"))
    run(*train_words(folder, "whole", network))
    run("export", folder / "killed", "--output", folder / "bundle")
    return Journey(cache=cache, whole=folder / "whole", killed=folder / "killed", bundle=folder / "bundle")


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """With a tiny network in the ResNet's place."""
    return travel(tmp_path_factory.mktemp("paper"), "tiny")


def check_resumed(journey: Journey) -> None:
    """The killed run has the numbers of the whole one: weights, losses, scores; and it learned."""
    weights, expected = (load_file(run / "split" / "weights.safetensors") for run in (journey.killed, journey.whole))
    assert list(weights) == list(expected)
    assert all(torch.allclose(weights[name], expected[name], 1e-4, 1e-5) for name in weights)
    scores, wanted = (pd.read_csv(run / "split" / "scores-test.csv") for run in (journey.killed, journey.whole))
    pd.testing.assert_frame_equal(scores, wanted, rtol=1e-4, atol=1e-4)
    rows, known = (
        [json.loads(line) for line in (run / "split" / "metrics.jsonl").read_text().splitlines()]
        for run in (journey.killed, journey.whole)
    )
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in known] == list(range(len(known)))
    assert rows[-1]["train/loss"] == pytest.approx(known[-1]["train/loss"], rel=1e-4)
    assert rows[-1]["train/loss"] < 0.8 * rows[0]["train/loss"]


def test_a_training_that_was_killed_resumes_to_the_same_numbers_and_its_loss_falls(journey: Journey) -> None:
    check_resumed(journey)


def test_the_split_is_the_papers_and_the_record_is_the_papers_recipe(journey: Journey) -> None:
    images = list(open_cache(journey.cache).manifest["image_id"])
    tested = pd.read_csv(journey.killed / "split" / "scores-test.csv")["image_id"]
    assert set(tested) == set(split_by_slice(images, test=0.1, seed=257).test)
    record = json.loads((journey.killed / "experiment.json").read_text())
    assert record["network"]["head"] == "flatten"
    assert record["run"]["split"] == "slice"
    assert record["sampling"]["kind"] == "all"


def test_the_data_are_described(journey: Journey, tmp_path: Path) -> None:
    said = run("data", "stats", journey.cache, "--output", tmp_path / "stats")
    assert "Table I" in said
    assert (tmp_path / "stats" / "stats.html").is_file()


def test_the_card_states_that_the_split_leaks_and_claims_nothing(journey: Journey) -> None:
    card = load_bundle(journey.bundle).card
    assert card.split is not None
    assert (card.split.by, card.split.test, card.split.seed) == ("slice", 0.1, 257)
    assert not any(card.established.values)
    assert f"{LEAK_WARNING}." in card.limits_of_use


def test_the_bundle_reads_a_phantom_study(journey: Journey, tmp_path: Path) -> None:
    write_series(make_phantom(seed=30, shape=(4, 64, 64), bleeds=frozenset(SUBTYPES)), tmp_path / "study")
    words = ["predict", tmp_path / "study", "--model", journey.bundle, "--format", "json"]
    said = run(*words, codes=(ExitCode.OK, ExitCode.INCOMPLETE))  # four slices are less than a head
    (study,) = json.loads(said)["studies"]
    assert len(study["slices"]) == 4
    assert set(study["probabilities"]) == {label.value for label in LABELS}


def test_the_report_scores_the_test_set_and_states_that_it_leaks(journey: Journey, tmp_path: Path) -> None:
    words = ["evaluate", "--model", journey.bundle, "--data", journey.cache, "--split", "test", "--rounds", 50]
    said = run(*words, "--output", tmp_path / "report")
    tested = pd.read_csv(journey.killed / "split" / "scores-test.csv")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["n_images"] == len(tested)
    assert LEAK_WARNING in said
    assert LEAK_WARNING in json.dumps(report)
    assert LEAK_WARNING in (tmp_path / "report" / "report.html").read_text()
    # What the bundle says of the test set is what training said of it: raw scores through a sigmoid.
    predicted = pd.read_csv(tmp_path / "report" / "predictions.csv").set_index("image_id").loc[tested["image_id"]]
    types = [label.value for label in SUBTYPES]
    expected = 1 / (1 + np.exp(-tested[[f"logit_{name}" for name in types]].to_numpy()))
    whole = 1 / (1 + np.exp(-tested["logit_any"].to_numpy()[:, None]))
    assert np.allclose(predicted[types].to_numpy(), np.minimum(expected, whole), atol=2e-3)


@pytest.mark.slow
def test_the_papers_own_network_makes_the_same_journey(tmp_path: Path) -> None:
    check_resumed(travel(tmp_path, "resnet50"))
