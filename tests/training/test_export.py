"""From a run to a bundle: the card's content, its fitting data, and which runs are refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hemoscope.errors import BundleError, TrainingError
from hemoscope.inference.bundle import ModelBundle, load_bundle
from hemoscope.inference.calibration import Calibration
from hemoscope.inference.card import FederationRecord, SequenceRule, SplitRecord, TrainingData, to_plain
from hemoscope.inference.engine import Engine
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage
from hemoscope.training import export as export_module
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.training.export import FEDERATION_RECORD, export_run, read_run
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.models.network import HemorrhageNetwork, MirroredNetwork
from hemoscope.training.models.sequence import SequenceConfig, SequenceNetwork
from hemoscope.training.run_scores import SliceAndStudyScores, out_of_fold_scores
from hemoscope.version import DISCLAIMER

PATIENTS, SLICES = 28, 5
DATASET = TrainingData(
    name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="made here", changes="none"
)
EXPERIMENT: Experiment = parse_experiment(
    {
        "name": "tiny",
        "description": "A tiny network",
        "run": {"folds": 2, "init": "none", "held_out": ["p3"]},
        "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
        "preprocessing": {"size": 32},
        "reading": {"size": 64, "extent_mm": 10.0},
    },
    where="the test",
)


def made_truth() -> NDArray[np.float64]:
    """Every second patient bleeds, in the middle slices, with a type that follows from its number."""
    truth = np.zeros((PATIENTS, SLICES, 6))
    for number in range(0, PATIENTS, 2):
        truth[number, 1:4, 0] = 1
        truth[number, 1:4, 1 + (number // 2) % len(SUBTYPES)] = 1
    return truth.reshape(-1, 6)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it, with scores that rank well for all but subdural. Do not write into it."""
    run = tmp_path_factory.mktemp("exported") / "tiny-run"
    random = np.random.default_rng(3)
    truth = made_truth()
    logits = 4 * truth - 3 + random.normal(0, 0.8, truth.shape)
    logits[:, LABELS.index(Hemorrhage.SUBDURAL)] = random.normal(-3, 1, len(truth))
    patients = [f"p{number}" for number in range(PATIENTS) for _ in range(SLICES)]
    table = pd.DataFrame({"image_id": [f"{i:04d}" for i in range(len(truth))], "patient_id": patients})
    scores = pd.concat([table, pd.DataFrame(logits, columns=[f"logit_{label}" for label in LABELS])], axis=1)
    fold = np.repeat(np.arange(PATIENTS) % 2, SLICES)
    for number in range(2):
        (run / f"fold-{number}").mkdir(parents=True)
        scores[fold == number].to_csv(run / f"fold-{number}" / "scores.csv", index=False)
    (run / "final").mkdir()
    torch.manual_seed(5)
    network = HemorrhageNetwork(EXPERIMENT.network, channels=3, size=32)
    save_weights(network, run / "final" / "weights.safetensors")
    (run / "experiment.json").write_text(json.dumps(EXPERIMENT.to_json()))
    (run / "dataset.json").write_text(json.dumps(to_plain(DATASET)))
    known = pd.DataFrame(truth.astype(int), columns=[label.value for label in LABELS])
    pd.concat([table, known], axis=1).to_csv(run / "slices.csv", index=False)
    return run


@pytest.fixture(scope="session")
def bundle(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    output = tmp_path_factory.mktemp("exported") / "bundle"
    export_run(finished_run, output, version="7")
    return load_bundle(output)


def scored(run: Path, bundle: ModelBundle) -> SliceAndStudyScores:
    return out_of_fold_scores(run, EXPERIMENT, bundle.card.study_rule)


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """The finished run, to be damaged."""
    return Path(shutil.copytree(finished_run, tmp_path / "tiny-run"))


def test_the_bundle_states_its_name_and_its_training_data(bundle: ModelBundle) -> None:
    card = bundle.card
    assert (card.name, card.version) == ("hemoscope-tiny", "7")
    assert card.description.startswith("A tiny network. Trained with Hemoscope ")
    assert card.description.endswith("Scores are means over a slice and its mirror image.")
    assert card.training_data == (DATASET,)
    assert card.preprocessing == EXPERIMENT.reading_preprocessing
    assert card.preprocessing.size == 64
    assert card.study_rule.extent_mm == 10.0
    assert card.disclaimer == DISCLAIMER
    assert card.labels == tuple(label.value for label in LABELS)
    assert any("Not a medical device" in line for line in card.limits_of_use)
    assert any("not trained on p3" in line for line in card.limits_of_use)


def test_the_graph_of_the_bundle_is_the_final_network_mirrored(bundle: ModelBundle, finished_run: Path) -> None:
    from hemoscope.training.models.checkpoint import load_weights

    network = HemorrhageNetwork(EXPERIMENT.network, channels=3, size=32)
    load_weights(network, finished_run / "final" / "weights.safetensors")
    images = np.random.default_rng(1).random((3, 3, 64, 64), dtype=np.float32)
    with torch.inference_mode():
        expected = MirroredNetwork(network).eval()(torch.from_numpy(images))
    found = Engine(bundle, threads=1).run(images, maps=True)
    assert np.allclose(found.logits, expected.logits.numpy(), atol=1e-4)
    assert found.maps is not None
    assert np.allclose(found.maps, expected.maps.numpy(), atol=1e-4)


def test_a_run_without_the_mirror_is_exported_with_a_single_look(run_copy: Path, tmp_path: Path) -> None:
    from hemoscope.training.models.checkpoint import load_weights

    record = json.loads((run_copy / "experiment.json").read_text())
    record["reading"]["mirror"] = False
    (run_copy / "experiment.json").write_text(json.dumps(record))
    found = export_run(run_copy, tmp_path / "bundle", version="7")
    assert found.card.description.endswith("Every slice is scored once, without its mirror image.")
    network = HemorrhageNetwork(EXPERIMENT.network, channels=3, size=32)
    load_weights(network, run_copy / "final" / "weights.safetensors")
    images = np.random.default_rng(1).random((3, 3, 64, 64), dtype=np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(images))
    scores = Engine(found, threads=1).run(images, maps=True)
    assert np.allclose(scores.logits, expected.logits.numpy(), atol=1e-4)
    assert scores.maps is not None
    assert np.allclose(scores.maps, expected.maps.numpy(), atol=1e-4)


def test_the_card_holds_six_scores_by_slice_and_by_patient(bundle: ModelBundle, finished_run: Path) -> None:
    by_slice, by_patient = bundle.card.scores
    assert (by_slice.level, by_slice.n_images, by_slice.n_patients) == ("slice", PATIENTS * SLICES, PATIENTS)
    assert (by_patient.level, by_patient.n_images, by_patient.n_patients) == ("patient", PATIENTS, PATIENTS)
    slices = scored(finished_run, bundle).slices
    served = consistent(calibrated(slices.logits, bundle.card.calibration.slice), bundle.card.established)
    for k, label in enumerate(LABELS):
        score = by_slice.labels[label]
        assert score.auroc is not None
        assert score.auroc.value == pytest.approx(roc_auc_score(slices.truth[:, k], served[:, k]), abs=1e-4)
        assert score.auroc.low is not None
        assert score.auroc.low <= score.auroc.value
        assert score.average_precision is not None
        assert score.ece is not None
        assert score.n_positive == int(slices.truth[:, k].sum()) == 3 * score.n_positive_patients
        assert by_patient.labels[label].n_positive == score.n_positive_patients
    for table in (by_slice, by_patient):
        assert "out of fold" in table.name
        assert "not these exact weights" in table.description


def test_a_label_that_ranks_by_chance_is_not_established_and_the_limits_name_it(bundle: ModelBundle) -> None:
    established = bundle.card.established.as_dict()
    assert established["any"]
    assert not established["subdural"]
    line = next(line for line in bundle.card.limits_of_use if line.startswith("Not established"))
    assert "subdural" in line
    assert "any hemorrhage" not in line


def test_operating_points_reach_what_their_rules_promise_on_the_out_of_fold_scores(
    bundle: ModelBundle, finished_run: Path
) -> None:
    card = bundle.card
    patients = scored(finished_run, bundle).studies
    found = consistent(calibrated(patients.logits, card.calibration.study), card.established)[:, 0]
    bleeds = patients.truth[:, 0] == 1
    point = card.operating_points.study[Hemorrhage.ANY]
    assert point.rule == "sensitivity >= 0.9"
    assert (found[bleeds] >= point.threshold).mean() >= 0.9
    assert point.sensitivity == pytest.approx(float((found[bleeds] >= point.threshold).mean()))
    urgent = found >= card.operating_points.urgent.threshold
    assert bleeds[urgent].mean() >= 0.9
    assert card.operating_points.urgent.rule.startswith("precision >= 0.9")
    assert card.operating_points.urgent.threshold >= point.threshold


def test_calibration_keeps_the_order_of_scores(bundle: ModelBundle) -> None:
    for table in (bundle.card.calibration.slice, bundle.card.calibration.study):
        assert all(calibration.scale > 0 for calibration in table.values)


def test_a_patient_bleeds_where_any_slice_does(finished_run: Path, bundle: ModelBundle) -> None:
    patients = scored(finished_run, bundle).studies
    assert patients.patients == tuple(sorted(f"p{number}" for number in range(PATIENTS)))
    expected = {f"p{n}": made_truth().reshape(PATIENTS, SLICES, 6)[n].max(axis=0) for n in range(PATIENTS)}
    for name, truth in zip(patients.patients, patients.truth, strict=True):
        assert np.array_equal(truth, expected[name])


def test_image_ids_of_digits_keep_their_zeroes(finished_run: Path, bundle: ModelBundle) -> None:
    assert len(scored(finished_run, bundle).slices.logits) == PATIENTS * SLICES


def test_scores_are_put_in_the_order_of_the_slices(run_copy: Path, finished_run: Path, bundle: ModelBundle) -> None:
    path = run_copy / "fold-0" / "scores.csv"
    pd.read_csv(path, dtype=str).iloc[::-1].to_csv(path, index=False)
    shuffled, plain = (scored(run, bundle).slices for run in (run_copy, finished_run))
    assert np.allclose(shuffled.logits, plain.logits)
    assert shuffled.patients == plain.patients


def test_further_scores_are_in_the_card_as_given(
    finished_run: Path, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "onnx_graph", lambda *_, **__: bundle.read_graph())
    external = dataclasses.replace(bundle.card.scores[0], name="external")
    written = export_run(finished_run, tmp_path / "more", version="8", scores=(external,))
    assert written.card.scores[2] == external
    assert written.card.scores[:2] == bundle.card.scores


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is refused must be refused before its graph is made."""
    monkeypatch.setattr(export_module, "onnx_graph", lambda *_, **__: pytest.fail("made a graph of a refused run"))


def as_split_run(run: Path, by: str) -> None:
    """Turn a run on folds into one on a split; half of the patients who bleed are in the test set."""
    record = EXPERIMENT.to_json()
    record["run"] |= {"split": by, "held_out": []}
    (run / "experiment.json").write_text(json.dumps(record))
    (run / "final").rename(run / "split")
    scores = pd.concat([pd.read_csv(path, dtype=str) for path in sorted(run.glob("fold-*/scores.csv"))])
    tested = scores["patient_id"].str[1:].astype(int) % 4 < 2
    scores[tested].to_csv(run / "split" / "scores-test.csv", index=False)
    if by == "patient":
        scores[~tested].to_csv(run / "split" / "scores-validation.csv", index=False)
    split = SplitRecord(
        dataset="phantoms",
        by=by,  # type: ignore[arg-type]
        seed=257,
        validation=0.1 if by == "patient" else 0.0,
        test=0.1,
        images_sha256="0" * 64,
    )
    (run / "split.json").write_text(json.dumps({**to_plain(split), "images": {}, "warning": None}))


@pytest.mark.parametrize("by", ["patient", "slice"])
def test_a_run_on_one_split_is_exported_with_its_split(
    run_copy: Path, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(export_module, "onnx_graph", lambda *_, **__: bundle.read_graph())
    as_split_run(run_copy, by)
    card = export_run(run_copy, tmp_path / "bundle", version="1").card
    assert card.split is not None
    assert (card.split.by, card.split.dataset) == (by, "phantoms")
    assert [(table.level, table.n_images) for table in card.scores] == [("slice", 70), ("patient", 14)]
    assert (card.calibration.slice["any"] != Calibration(scale=1.0, bias=0.0)) == (by == "patient")
    assert not any(card.established.values)  # seven patients who bleed are too few
    assert any("Split by slice" in line for line in card.limits_of_use) == (by == "slice")


@pytest.mark.usefixtures("no_graph")
def test_a_split_run_without_its_split_or_its_scores_is_refused(run_copy: Path, tmp_path: Path) -> None:
    as_split_run(run_copy, "patient")
    (run_copy / "split.json").rename(run_copy / "aside.json")
    with pytest.raises(TrainingError, match=r"tiny-run lacks split\.json"):
        export_run(run_copy, tmp_path / "bundle", version="1")
    (run_copy / "aside.json").rename(run_copy / "split.json")
    scores = run_copy / "split" / "scores-test.csv"
    table = pd.read_csv(scores, dtype=str)
    table.assign(image_id=["elsewhere", *table["image_id"][1:]]).to_csv(scores, index=False)
    with pytest.raises(TrainingError, match=r"split/scores-test\.csv: 69 of 70 scores are of slices of this run"):
        export_run(run_copy, tmp_path / "bundle", version="1")
    scores.unlink()
    with pytest.raises(TrainingError, match=r"lacks split/scores-test\.csv"):
        export_run(run_copy, tmp_path / "bundle", version="1")


def test_a_run_with_a_sequence_brings_both_graphs_and_the_scores_of_studies(run_copy: Path, tmp_path: Path) -> None:
    record = EXPERIMENT.to_json()
    record["sequence"] = {"hidden": 4}
    (run_copy / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match=r"lacks fold-0/studies\.csv, .*final/sequence\.safetensors"):
        export_run(run_copy, tmp_path / "bundle", version="1")
    sequence = SequenceConfig(hidden=4)
    size = HemorrhageNetwork(EXPERIMENT.network, channels=3, size=32).embedding_size
    save_weights(SequenceNetwork(sequence, embedding_size=size), run_copy / "final" / "sequence.safetensors")
    names = [label.value for label in LABELS]
    truth = pd.read_csv(run_copy / "slices.csv").groupby("patient_id", as_index=False)[names].max()
    for number in range(2):
        chosen = truth[truth["patient_id"].str[1:].astype(int) % 2 == number].reset_index(drop=True)
        logits = (6.0 * chosen[names] - 3 + np.random.default_rng(number).normal(0, 1, (len(chosen), 6))).add_prefix(
            "logit_"
        )
        pd.concat([chosen, logits], axis=1).to_csv(run_copy / f"fold-{number}" / "studies.csv", index=False)
    written = export_run(run_copy, tmp_path / "bundle", version="1")
    assert set(written.card.files) == {"model.onnx", "sequence.onnx"}
    assert written.card.sequence == SequenceRule(embedding_size=size, study_scores="sequence")
    assert written.card.scores[1].n_images == PATIENTS
    auroc = written.card.scores[1].labels[Hemorrhage.SUBDURAL].auroc  # at chance by slice, not by study
    assert auroc is not None
    assert auroc.value > 0.9
    Engine(load_bundle(tmp_path / "bundle"), threads=1)


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize(
    "absent", ["fold-0/scores.csv", "fold-1/scores.csv", "final/weights.safetensors", "slices.csv"]
)
def test_an_unfinished_run_is_refused_with_what_it_lacks(run_copy: Path, tmp_path: Path, absent: str) -> None:
    (run_copy / absent).unlink()
    with pytest.raises(TrainingError, match=f"tiny-run lacks {absent}. Finish it: hemoscope train"):
        export_run(run_copy, tmp_path / "bundle", version="1")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("no_graph")
def test_a_run_without_folds_is_refused(run_copy: Path, tmp_path: Path) -> None:
    record = EXPERIMENT.to_json()
    record["run"]["folds"] = 0
    (run_copy / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match=r"has no folds, .*Train it with run\.folds = 5"):
        export_run(run_copy, tmp_path / "bundle", version="1")


@pytest.mark.usefixtures("no_graph")
def test_slices_without_a_score_are_refused(run_copy: Path, tmp_path: Path) -> None:
    path = run_copy / "fold-1" / "scores.csv"
    pd.read_csv(path, dtype=str).iloc[2:].to_csv(path, index=False)
    with pytest.raises(TrainingError, match="2 of 140 slices of this run have no out-of-fold score"):
        export_run(run_copy, tmp_path / "bundle", version="1")


@pytest.mark.usefixtures("no_graph")
def test_a_slice_scored_twice_is_refused(run_copy: Path, tmp_path: Path) -> None:
    first, second = (run_copy / f"fold-{number}" / "scores.csv" for number in range(2))
    pd.concat([pd.read_csv(first, dtype=str), pd.read_csv(second, dtype=str).iloc[:1]]).to_csv(first, index=False)
    with pytest.raises(TrainingError, match=r"0 of 140 slices .* there are 141 scores"):
        export_run(run_copy, tmp_path / "bundle", version="1")


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("content", [None, "{}"])
def test_a_run_that_does_not_state_its_training_data_is_refused(
    run_copy: Path, tmp_path: Path, content: str | None
) -> None:
    path = run_copy / "dataset.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(TrainingError, match=r"tiny-run/dataset\.json does not describe the training data") as caught:
        export_run(run_copy, tmp_path / "bundle", version="1")
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not a run folder"):
        read_run(tmp_path)


def test_a_bundle_is_not_written_over(finished_run: Path, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "onnx_graph", lambda *_, **__: bundle.read_graph())
    with pytest.raises(BundleError, match="exists"):
        export_run(finished_run, bundle.folder, version="9")
    assert load_bundle(bundle.folder).sha256 == bundle.sha256


def test_the_terms_of_the_data_travel_from_cache_to_card(
    tmp_path: Path, tiny_experiment: Callable[..., Experiment], phantom_cache: object
) -> None:
    """What training writes beside a run is what export reads."""
    from hemoscope.training.export import read_dataset
    from hemoscope.training.train import train

    train(tiny_experiment(run={"epochs": 1, "folds": 0}), phantom_cache, tmp_path / "run")  # type: ignore[arg-type]
    assert read_dataset(tmp_path / "run") == phantom_cache.dataset  # type: ignore[attr-defined]


def test_a_run_that_started_from_a_federation_states_it(
    run_copy: Path, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "onnx_graph", lambda *_, **__: bundle.read_graph())
    record = FederationRecord(
        sites=4,
        rounds=3,
        local_epochs=1,
        strategy="fedavg",
        batch_norm="shared",
        weighting="slices",
        secure_aggregation=False,
        personalised=True,
    )
    (run_copy / FEDERATION_RECORD).write_text(json.dumps(to_plain(record)))
    card = export_run(run_copy, tmp_path / "bundle", version="1").card
    assert card.federation == record
    assert any(line.startswith("Trained by 4 sites, then fine-tuned") for line in card.limits_of_use)
    assert bundle.card.federation is None


@pytest.mark.usefixtures("no_graph")
def test_a_damaged_record_of_a_federation_is_refused(run_copy: Path, tmp_path: Path) -> None:
    (run_copy / FEDERATION_RECORD).write_text('{"sites": 4}')
    with pytest.raises(TrainingError, match=r"federation_record\.json does not describe the federated training"):
        export_run(run_copy, tmp_path / "bundle", version="1")
