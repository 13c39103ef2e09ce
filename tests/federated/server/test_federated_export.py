"""From the folder that a federation's server leaves to a bundle that predicts, end to end on a tiny network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hemoscope import cli
from hemoscope.dicom.archive import open_archive
from hemoscope.errors import BundleError, FederationError
from hemoscope.federated.exchange.histograms import score_histograms
from hemoscope.federated.server import federated_export
from hemoscope.federated.server.federated_export import export_federation
from hemoscope.federated.settings.federation import Federation
from hemoscope.federated.settings.federation_sections import HistogramConfig
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import Hemorrhage
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_scores import LevelScores

PART_RECORD = {
    "part": "split",
    "sites": 3,
    "rounds": 4,
    "local_epochs": 2,
    "strategy": "fedprox",
    "batch_norm": "shared",
    "weighting": "slices",
    "secure_aggregation": False,
    "epsilon": None,
    "delta": None,
    "seconds": 1.0,
}


def site_record(seed: int, *, patients: int = 24) -> dict[str, Any]:
    """What one site reported: every second patient bleeds and ranks above the others."""
    random = np.random.default_rng(seed)
    truth = np.tile((np.arange(patients) % 2).astype(float)[:, None], 6)
    logits = 4 * truth - 2 + random.normal(0, 0.7, truth.shape)
    names = tuple(f"p{number}" for number in range(patients))
    studies = LevelScores(logits=logits, truth=truth, patients=names)
    slices = LevelScores(logits=np.tile(logits, (3, 1)), truth=np.tile(truth, (3, 1)), patients=names * 3)
    return {
        "slices": json.loads(score_histograms(slices, level="slice", least_cell=5).to_json()),
        "studies": json.loads(score_histograms(studies, level="patient", least_cell=5).to_json()),
    }


def write_run(run: Path, federation: Federation) -> Path:
    """A run as the server leaves it."""
    experiment = federation.experiment
    folds = [f"fold-{number}" for number in range(experiment.run.folds)] if experiment.run.split == "folds" else []
    last = "final" if experiment.run.split == "folds" else "split"
    for part in {*folds, last}:
        (run / part).mkdir(parents=True)
    for number, part in enumerate(folds or [last]):
        sites = [site_record(3 * number + site) for site in range(3)]
        validation = [] if folds else [site_record(30 + site) for site in range(3)]
        (run / part / "histograms.json").write_text(json.dumps({"score": sites, "validation": validation}))
    torch.manual_seed(5)
    network = HemorrhageNetwork(experiment.network, channels=3, size=32)
    save_weights(network, run / last / "weights.safetensors")
    (run / last / "part.json").write_text(json.dumps({**PART_RECORD, "part": last}))
    (run / "federation.json").write_text(json.dumps(federation.to_json()))
    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small_experiment: Callable[..., Experiment]) -> Path:
    """A federation of three sites on one split. Do not write into it."""
    federation = Federation(name="hospitals", description="Three hospitals.", experiment=small_experiment())
    return write_run(tmp_path_factory.mktemp("federated") / "run", federation)


@pytest.fixture(scope="session")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("federated") / "bundle"
    assert cli.main(["federated", "export", str(finished), "--output", str(output), "--model-version", "3"]) == 0
    return output


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_the_card_says_how_the_sites_trained(exported: Path) -> None:
    card = load_bundle(exported).card
    assert (card.name, card.version) == ("hemoscope-hospitals", "3")
    assert card.description.startswith("Three hospitals. 3 sites trained it together, each on its own images")
    assert card.federation is not None
    assert (card.federation.sites, card.federation.rounds, card.federation.strategy) == (3, 4, "fedprox")
    assert (card.federation.slices, card.federation.patients, card.federation.personalised) == (None, None, False)
    assert card.training_data[0].name == "3 sites of the federation hospitals"
    assert card.split is None
    assert all(card.established.values)
    assert card.scores[1].labels[Hemorrhage.ANY].n_positive_patients == 36


def test_the_bundle_predicts(exported: Path, tmp_path: Path) -> None:
    write_series(make_phantom(seed=1, shape=(5, 64, 64), bleeds=frozenset({Hemorrhage.SUBDURAL})), tmp_path / "head")
    found = Predictor(load_bundle(exported), threads=1).predict(open_archive([tmp_path / "head"]))
    assert not found.rejected
    assert len(found.studies[0].findings.slices) == 5


def test_the_card_is_shown_with_its_federation(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["info", str(exported)]) == 0
    text = capsys.readouterr().out
    for fact in (
        "Sites: 3; images stayed there",
        "Rounds: 4, of 2 local epochs each",
        "Strategy: fedprox",
        "histograms",
    ):
        assert fact in text


@pytest.fixture
def graph_of(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a graph takes seconds: the one that was made will do."""
    graph = load_bundle(exported).read_graph()
    monkeypatch.setattr(federated_export, "onnx_graph", lambda *_, **__: graph)


@pytest.mark.usefixtures("graph_of")
def test_folds_that_were_reported_together_make_a_card_that_says_so(
    tmp_path: Path, small_experiment: Callable[..., Experiment]
) -> None:
    experiment = small_experiment(run={"split": "folds", "folds": 2})
    run = write_run(tmp_path / "run", Federation(name="folds", experiment=experiment))
    with pytest.raises(FederationError, match=r"run lacks final/histograms\.json\. Train these parts too"):
        export_federation(run, tmp_path / "bundle", version="1")
    shutil.copy(run / "fold-0" / "histograms.json", run / "final" / "histograms.json")
    for fold in ("fold-0", "fold-1"):
        shutil.rmtree(run / fold)
    card = export_federation(run, tmp_path / "bundle", version="1").card
    assert card.federation is not None
    assert (card.federation.patients, card.federation.slices) == (72, 216)
    for table in card.scores:
        assert "every patient is scored once" in table.description
        assert "Calibration is fitted on these same scores, so its error flatters." in table.description
    assert card.scores[0].labels[Hemorrhage.ANY].ece is not None


@pytest.mark.usefixtures("graph_of")
def test_a_federation_on_folds_counts_all_its_patients(
    tmp_path: Path, small_experiment: Callable[..., Experiment]
) -> None:
    experiment = small_experiment(run={"split": "folds", "folds": 2})
    each = HistogramConfig(folds="each")
    run = write_run(tmp_path / "run", Federation(name="folds", experiment=experiment, histograms=each))
    card = export_federation(run, tmp_path / "bundle", version="1").card
    assert card.federation is not None
    assert (card.federation.patients, card.federation.slices) == (144, 432)
    assert card.scores[0].n_images == 432
    assert "144 patients and 432 slices" in card.training_data[0].attribution
    shutil.rmtree(run / "fold-1")
    with pytest.raises(FederationError, match=r"run lacks fold-1/histograms\.json\. Train these parts too"):
        export_federation(run, tmp_path / "other", version="1")


def test_without_folds_there_is_no_score_to_fit_on(tmp_path: Path, small_experiment: Callable[..., Experiment]) -> None:
    experiment = small_experiment(run={"split": "folds", "folds": 0})
    run = write_run(tmp_path / "run", Federation(name="folds", experiment=experiment))
    with pytest.raises(FederationError, match=r"run has no folds.*run\.folds = 5"):
        export_federation(run, tmp_path / "bundle", version="1")


def test_sites_that_kept_their_batch_norm_have_no_common_network(
    tmp_path: Path, small_experiment: Callable[..., Experiment]
) -> None:
    run = write_run(tmp_path / "run", Federation(name="fedbn", experiment=small_experiment(), batch_norm="local"))
    with pytest.raises(FederationError, match=r"no network is whole. Export one at a site: .* personalise"):
        export_federation(run, tmp_path / "bundle", version="1")


@pytest.mark.parametrize("absent", ["split/histograms.json", "split/part.json", "split/weights.safetensors"])
def test_an_unfinished_federation_is_refused_with_what_it_lacks(copy: Path, tmp_path: Path, absent: str) -> None:
    (copy / absent).unlink()
    with pytest.raises(FederationError, match=f"run lacks {absent}.*--resume"):
        export_federation(copy, tmp_path / "bundle", version="1")


def test_a_folder_that_is_no_federation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"is not the folder of a federation: it holds no federation\.json"):
        export_federation(tmp_path, tmp_path / "bundle", version="1")


def test_noise_without_an_epsilon_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "split/part.json").write_text(json.dumps({**PART_RECORD, "delta": 1e-5}))
    with pytest.raises(FederationError, match=r"split/part\.json does not say how the model was trained"):
        export_federation(copy, tmp_path / "bundle", version="1")


@pytest.mark.usefixtures("graph_of")
def test_a_bundle_is_not_written_over(finished: Path, exported: Path) -> None:
    with pytest.raises(BundleError, match="exists"):
        export_federation(finished, exported, version="1")
