"""Several runs in one bundle: the mean of their networks, a card of their mean scores, weights in half the space."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hemoscope.errors import TrainingError
from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.card import TrainingData, to_plain
from hemoscope.inference.engine import Engine
from hemoscope.labels import LABELS
from hemoscope.training import export as export_module
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.training.export import export_run
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_scores import out_of_fold_scores

PATIENTS, SLICES = 16, 3
EXPERIMENT: Experiment = parse_experiment(
    {
        "name": "tiny",
        "run": {"folds": 2, "init": "none"},
        "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
        "preprocessing": {"size": 32},
        "reading": {"size": 64},
    },
    where="the test",
)
DATASET = TrainingData(name="made", version="1", doi="none", license="Apache-2.0", attribution="here", changes="none")


def save_network(run: Path, seed: int) -> None:
    torch.manual_seed(seed)
    (run / "final").mkdir(exist_ok=True)
    save_weights(HemorrhageNetwork(EXPERIMENT.network, channels=3, size=32), run / "final" / "weights.safetensors")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it. Do not write into it."""
    run = tmp_path_factory.mktemp("seeds") / "tiny-run"
    random, patient = np.random.default_rng(3), np.repeat(np.arange(PATIENTS), SLICES)
    truth = np.tile((patient % 4 < 2).astype(int)[:, None], (1, len(LABELS)))
    ids = pd.DataFrame({"image_id": [f"{i:03}" for i in range(len(truth))], "patient_id": [f"p{n}" for n in patient]})
    logits = pd.DataFrame(
        3 * truth - 2 + random.normal(size=truth.shape), columns=[f"logit_{label}" for label in LABELS]
    )
    for fold in range(2):
        (run / f"fold-{fold}").mkdir(parents=True)
        pd.concat([ids, logits], axis=1)[patient % 2 == fold].to_csv(run / f"fold-{fold}" / "scores.csv", index=False)
    save_network(run, 5)
    (run / "experiment.json").write_text(json.dumps(EXPERIMENT.to_json()))
    (run / "dataset.json").write_text(json.dumps(to_plain(DATASET)))
    labels = pd.DataFrame(truth, columns=[label.value for label in LABELS])
    pd.concat([ids, labels], axis=1).to_csv(run / "slices.csv", index=False)
    return run


@pytest.fixture(scope="module")
def bundle(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return export_run(finished_run, tmp_path_factory.mktemp("seeds") / "bundle", version="7")


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are refused must be refused before their graph is made."""
    monkeypatch.setattr(export_module, "onnx_graph", lambda *_, **__: pytest.fail("made a graph of refused runs"))


@pytest.fixture
def other_seed(finished_run: Path, tmp_path: Path) -> Path:
    """The run again, from seed 2: another network and other scores."""
    run = Path(shutil.copytree(finished_run, tmp_path / "other-run"))
    change_record(run, run={"seed": 2})
    save_network(run, 6)
    for path in run.glob("fold-*/scores.csv"):
        scores = pd.read_csv(path, dtype={"image_id": str})
        scores[[f"logit_{label}" for label in LABELS]] += 0.5
        scores.to_csv(path, index=False)
    return run


def change_record(folder: Path, **tables: dict[str, object]) -> None:
    record = json.loads((folder / "experiment.json").read_text())
    for name, changes in tables.items():
        record[name] |= changes
    (folder / "experiment.json").write_text(json.dumps(record))


def test_runs_of_several_seeds_become_one_graph_that_gives_their_mean(
    finished_run: Path, other_seed: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    both = export_run(finished_run, tmp_path / "both", version="1", others=[other_seed])
    alone = export_run(other_seed, tmp_path / "alone", version="1")
    images = np.random.default_rng(1).random((3, 3, 64, 64), dtype=np.float32)
    averaged, first, second = (Engine(one, threads=1).run(images, maps=True) for one in (both, bundle, alone))
    assert abs(first.logits - second.logits).max() > 0.01  # else any weights would do
    assert averaged.logits == pytest.approx((first.logits + second.logits) / 2, abs=1e-4)
    assert averaged.maps == pytest.approx((first.maps + second.maps) / 2, abs=1e-4)
    assert "means over 2 networks of one recipe (seeds 1 and 2)" in both.card.description


def test_the_card_of_several_seeds_is_fitted_on_their_mean_scores(
    finished_run: Path, other_seed: Path, bundle: ModelBundle
) -> None:
    rule = bundle.card.study_rule
    alone = out_of_fold_scores(finished_run, EXPERIMENT, rule)
    both = out_of_fold_scores(finished_run, EXPERIMENT, rule, others=[other_seed])
    assert both.slices.logits == pytest.approx(alone.slices.logits + 0.25)
    assert both.studies.logits == pytest.approx(alone.studies.logits + 0.25)
    assert both.slices.patients == alone.slices.patients


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": {"seed": 1}}, "other-run has seed 1, as another run"),
        ({"run": {"seed": 3, "epochs": 7}}, "other-run differs from tiny-run by more than its seed"),
        ({"augment": {"noise": 0.0}}, "other-run differs from tiny-run by more than its seed"),
    ],
)
@pytest.mark.usefixtures("no_graph")
def test_runs_that_are_not_one_recipe_from_several_seeds_are_refused(
    finished_run: Path, other_seed: Path, tmp_path: Path, changes: dict[str, dict[str, object]], words: str
) -> None:
    change_record(other_seed, **changes)
    with pytest.raises(TrainingError, match=words):
        export_run(finished_run, tmp_path / "bundle", version="1", others=[other_seed])


@pytest.mark.usefixtures("no_graph")
def test_runs_that_scored_other_slices_are_refused(finished_run: Path, other_seed: Path, tmp_path: Path) -> None:
    shutil.copyfile(other_seed / "fold-0" / "scores.csv", other_seed / "fold-1" / "scores.csv")
    with pytest.raises(TrainingError, match=r"other-run/fold-1/scores\.csv scores other slices than that of tiny-run"):
        export_run(finished_run, tmp_path / "bundle", version="1", others=[other_seed])


@pytest.mark.usefixtures("no_graph")
def test_an_unfinished_run_among_several_is_refused(finished_run: Path, other_seed: Path, tmp_path: Path) -> None:
    (other_seed / "final" / "weights.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"other-run lacks final/weights\.safetensors"):
        export_run(finished_run, tmp_path / "bundle", version="1", others=[other_seed])


def test_weights_in_half_the_space_give_nearly_the_same_scores(
    finished_run: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    half = export_run(finished_run, tmp_path / "half", version="7", half_weights=True)
    assert len(half.read_graph()) < 0.7 * len(bundle.read_graph())
    images = np.random.default_rng(1).random((3, 3, 64, 64), dtype=np.float32)
    one, other = (Engine(each, threads=1).run(images) for each in (half, bundle))
    assert one.logits == pytest.approx(other.logits, abs=0.01)
    assert (one.logits != other.logits).any()
    assert half.card.description.endswith("Weights are stored in float16 and computed with in float32.")
