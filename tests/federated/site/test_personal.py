"""A site makes a federated model its own: the head alone, judged by its own patients, and exported as any run."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import brier_score_loss, roc_auc_score

from hemoscope.cli import main
from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, DataError, FederationError, TrainingError
from hemoscope.federated.exchange.shared_model import SharedModel, read_model
from hemoscope.federated.exchange.weights import exchange, initial_network
from hemoscope.federated.settings.federation import Federation
from hemoscope.federated.settings.site import Site, read_site
from hemoscope.federated.site import personal
from hemoscope.federated.site.label_changes import label_changes
from hemoscope.federated.site.local_round import RoundPlace, train_round
from hemoscope.federated.site.own_norm import save_local
from hemoscope.federated.site.personal import personalise
from hemoscope.inference.card import FederationRecord
from hemoscope.training.data_splits import make_data_splits
from hemoscope.training.experiment import Experiment
from hemoscope.training.export import export_run
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.models.network import HemorrhageNetwork

pytestmark = pytest.mark.usefixtures("one_thread")

Build = Callable[..., Experiment]
RECORD = {
    "sites": 4,
    "rounds": 3,
    "local_epochs": 1,
    "strategy": "fedavg",
    "batch_norm": "shared",
    "weighting": "slices",
    "secure_aggregation": True,
    "epsilon": None,
    "delta": None,
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A hospital, and what the server left after three rounds."""

    site: Site
    run: Path
    output: Path
    network: HemorrhageNetwork

    @property
    def model(self) -> SharedModel:
        return read_model(self.run)


@pytest.fixture
def world(hospital_cache: Cache, small_experiment: Build, tmp_path: Path) -> Callable[..., World]:
    """``world(run={...}, federation={...})``: changes of the experiment and of the federation."""

    def build(federation: dict[str, Any] | None = None, **changes: Any) -> World:
        experiment = small_experiment(**changes)
        whole = Federation(name="four", experiment=experiment, rounds=3, **(federation or {}))
        site = Site(name="riverside", data=hospital_cache.folder, work=tmp_path / "work")
        network = initial_network(experiment, 1)
        part = make_data_splits(experiment, hospital_cache)[-1]
        place = RoundPlace(number=1, rounds=1, epochs=2)
        train_round(network, experiment, hospital_cache, part, tmp_path / "elsewhere", place, batch_norm="shared")
        run = tmp_path / "federated"
        (run / "split").mkdir(parents=True)
        (run / "federation.json").write_text(json.dumps(whole.to_json()))
        record = {**RECORD, "batch_norm": whole.batch_norm, "part": "split", "lost": 2}
        (run / "split" / "part.json").write_text(json.dumps(record))
        save_weights(network, run / "split" / "weights.safetensors")
        return World(site=site, run=run, output=tmp_path / "own", network=network)

    return build


def changed(run: Path, federated: HemorrhageNetwork) -> set[str]:
    """Names of what differs in the weights of a run."""
    stored, before = load_file(run / "split" / "weights.safetensors"), federated.state_dict()
    assert stored.keys() == before.keys()
    return {name for name in before if not torch.equal(stored[name], before[name])}


@pytest.fixture
def any_head(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """``any_head(good)``: whatever was trained, the validation part is for it, or against it."""

    def decide(good: bool) -> None:
        losses = iter([1.0, 0.5] if good else [0.5, 1.0])
        monkeypatch.setattr(personal, "_loss", lambda *_: next(losses))

    return decide


def test_the_head_alone_is_trained_and_the_backbone_and_its_statistics_stay(
    world: Callable[..., World], any_head: Callable[[bool], None]
) -> None:
    here = world()
    any_head(True)
    found = personalise(here.site, here.model, here.output, epochs=2)
    assert found.own_head
    names = changed(here.output, here.network)
    parameters = {name for name, _ in here.network.head.named_parameters(prefix="head")}
    assert names == parameters
    record = json.loads((here.output / "split" / "part.json").read_text())
    assert record["trained_parameters"] == sum(p.numel() for p in here.network.head.parameters())
    assert record["init"] == "the federated model of four"
    assert not np.array_equal(found.before.test.slices.logits, found.after.test.slices.logits)


def test_a_head_that_the_sites_own_patients_are_against_is_not_kept(
    world: Callable[..., World], any_head: Callable[[bool], None]
) -> None:
    here = world()
    any_head(False)
    found = personalise(here.site, here.model, here.output)
    assert not found.own_head
    assert (found.after, found.tried) == (found.before, 1.0)
    assert changed(here.output, here.network) == set()
    for name in ("scores-validation.csv", "scores-test.csv"):
        assert (here.output / "split" / name).read_bytes() == (here.output / "federated" / name).read_bytes()
    assert json.loads((here.output / "personal.json").read_text())["own_head"] is False


def test_the_loss_that_judges_is_that_of_the_validation_part(world: Callable[..., World]) -> None:
    here = world()
    found = personalise(here.site, here.model, here.output)
    for judged in (found.before, found.after):
        scores = judged.validation.slices
        losses = np.logaddexp(0, np.where(scores.truth == 1, -scores.logits, scores.logits))
        assert judged.loss == pytest.approx(float((losses * [2, 1, 1, 1, 1, 1]).sum() / (7 * len(losses))), rel=1e-6)
    assert found.own_head == (found.tried < found.before.loss)


def test_the_run_is_exported_as_any_and_its_card_says_where_it_comes_from(
    world: Callable[..., World], tmp_path: Path
) -> None:
    here = world()
    personalise(here.site, here.model, here.output, epochs=1)
    card = export_run(here.output, tmp_path / "bundle", version="1").card
    assert card.federation == FederationRecord(**RECORD, personalised=True)  # type: ignore[arg-type]
    assert card.name == "hemoscope-small-personal"
    assert "several sites together (four), then personalised at one" in card.description
    assert card.split is not None
    assert card.split.by == "patient"
    for path in here.output.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert "riverside" not in path.read_text()


def test_the_same_patients_train_validate_and_test_as_in_the_rounds(
    world: Callable[..., World], hospital_cache: Cache
) -> None:
    here = world()
    personalise(here.site, here.model, here.output, epochs=1)
    (part,) = make_data_splits(here.model.federation.experiment, hospital_cache)
    for name, images in (("scores-validation.csv", part.validation), ("scores-test.csv", part.test)):
        assert sorted(pd.read_csv(here.output / "split" / name)["image_id"]) == sorted(images)


def test_before_and_after_are_measured_on_the_test_part_as_foreign_tools_measure(world: Callable[..., World]) -> None:
    here = world()
    found = personalise(here.site, here.model, here.output, epochs=1)
    rows = label_changes(found)
    assert rows[0].label == "any"
    truth, logits = found.before.test.slices.truth[:, 0], found.before.test.slices.logits[:, 0]
    assert rows[0].positives == int(truth.sum())
    assert rows[0].slice_auroc[0] == pytest.approx(roc_auc_score(truth, logits))
    assert rows[0].brier[0] == pytest.approx(brier_score_loss(truth, 1 / (1 + np.exp(-logits))))
    after = found.after.test.studies
    assert rows[0].study_auroc[1] == pytest.approx(roc_auc_score(after.truth[:, 0], after.logits[:, 0]))


def test_a_ranking_that_a_small_test_part_does_not_define_is_none(world: Callable[..., World]) -> None:
    here = world()
    found = personalise(here.site, here.model, here.output, epochs=1)
    test = found.before.test
    ones = replace(test.slices, truth=np.ones_like(test.slices.truth))
    sick = replace(found.before, test=replace(test, slices=ones))
    rows = label_changes(replace(found, before=sick, after=sick))
    assert all(row.slice_auroc == (None, None) and row.brier[0] is not None for row in rows)
    healthy = replace(found.before, test=replace(test, slices=replace(ones, truth=0 * ones.truth)))
    assert label_changes(replace(found, before=healthy, after=healthy)) == ()


def test_a_sites_own_batch_norm_is_part_of_its_model(world: Callable[..., World]) -> None:
    here = world(federation={"batch_norm": "local"})
    with pytest.raises(FederationError, match="in four every site has its own batch norm, and this site has none"):
        personalise(here.site, here.model, here.output)
    assert not here.output.exists()
    own = initial_network(here.model.federation.experiment, 1)
    with torch.no_grad():
        own.backbone.bn1.running_mean.fill_(0.5)
    save_local(own, here.site.work / "four" / "split")
    personalise(here.site, here.model, here.output, epochs=1)
    stored = load_file(here.output / "split" / "weights.safetensors")
    assert torch.equal(stored["backbone.bn1.running_mean"], own.backbone.bn1.running_mean)
    shared = [name for name in exchange(own, "local").trained if name.startswith("backbone.")]
    assert all(torch.equal(stored[name], here.network.state_dict()[name]) for name in shared)


def test_nothing_is_left_under_the_runs_name_where_it_fails(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world()

    def fail(*_: object, **__: object) -> None:
        raise DataError("a series is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(personal, "train_round", fail)
        with pytest.raises(DataError):
            personalise(here.site, here.model, here.output)
    assert not here.output.exists()
    personalise(here.site, here.model, here.output, epochs=1)
    with pytest.raises(FederationError, match=r"own exists already\. Choose a new --output"):
        personalise(here.site, here.model, here.output)


@pytest.mark.parametrize("run", [{"split": "folds", "folds": 2}, {"validation": 0.0}])
def test_without_a_validation_part_nothing_can_be_judged(world: Callable[..., World], run: dict[str, Any]) -> None:
    here = world(run=run)
    with pytest.raises(ConfigError, match="four trained without a validation part by patient"):
        personalise(here.site, here.model, here.output)


def test_training_for_no_epoch_is_refused(world: Callable[..., World]) -> None:
    here = world()
    with pytest.raises(ConfigError, match="epochs must be at least 1, got 0"):
        personalise(here.site, here.model, here.output, epochs=0)


def test_weights_of_another_network_are_refused(world: Callable[..., World], small_experiment: Build) -> None:
    here = world()
    other = initial_network(small_experiment(network={"width": 16}), 1)
    save_weights(other, here.run / "split" / "weights.safetensors")
    with pytest.raises(TrainingError, match=r"weights\.safetensors does not hold weights of this network"):
        personalise(here.site, here.model, here.output)


def test_a_model_is_read_from_three_files(world: Callable[..., World]) -> None:
    here = world()
    assert asdict(here.model.record) == {**RECORD, "patients": None, "slices": None, "personalised": True}
    assert here.model.federation.rounds == 3
    (here.run / "split" / "part.json").write_text(json.dumps({"sites": 4}))
    with pytest.raises(FederationError, match=r"split/part\.json does not say how the model was trained \(KeyError\)"):
        read_model(here.run)
    (here.run / "split" / "part.json").unlink()
    with pytest.raises(FederationError, match=r"^federated lacks split/part\.json\. Give the folder that the server"):
        read_model(here.run)


def test_the_command_shows_the_test_part_before_and_after(
    world: Callable[..., World], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = world()
    file = tmp_path / "site.toml"
    file.write_text(f'name = "riverside"\ndata = "{here.site.data}"\nwork = "work"\n')
    assert read_site(file).work == here.site.work
    asked = ["federated", "personalise", str(file), "--model", str(here.run), "--output", str(here.output)]
    assert main([*asked, "--epochs", "1"]) == 0
    shown = capsys.readouterr().out
    kept = json.loads((here.output / "personal.json").read_text())
    words = "the site's own head is kept" if kept["own_head"] else "the federated head is kept"
    assert f"validation loss {kept['validation_loss']['federated']:.4f} before" in shown
    assert words in shown
    test = pd.read_csv(here.output / "federated" / "scores-test.csv").merge(here.site.cache().manifest, on="image_id")
    before = roc_auc_score(test["any"].astype(int), test["logit_any"])
    assert re.search(rf"Any hemorrhage +{test['any'].sum()} +{before:.3f} > ", shown)
    assert f"hemoscope export {here.output}" in shown
    assert main([*asked, "--epochs", "1"]) == 1
    assert "exists already" in capsys.readouterr().err
