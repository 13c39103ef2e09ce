"""A round at a site is a piece of local training: the same samples, seeds, schedule and, alone, the same weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hemoscope.data.cache import Cache
from hemoscope.errors import FederationError, TrainingError
from hemoscope.federated.exchange.weights import initial_network
from hemoscope.federated.site.local_round import RoundPlace, RoundResult, score_part, scored, train_round
from hemoscope.training.data_splits import DataSplit, make_data_splits
from hemoscope.training.dataset import SampleIndex, SliceDataset
from hemoscope.training.experiment import Experiment
from hemoscope.training.lightning_module import TrainingModule
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_scores import split_scores
from hemoscope.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

LOGIT_TOLERANCE = 1e-3  # moves a probability by less than 0.0003; processors differ in the fifth decimal
Build = Callable[..., Experiment]
State = dict[str, torch.Tensor]


def state_of(network: HemorrhageNetwork) -> State:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: State, other: State, names: list[str]) -> float:
    return float(sum((one[name] - other[name]).square().sum() for name in names)) ** 0.5


def same_training(one: State, other: State, before: State) -> bool:
    """Whether two trainings agree but for rounding, which differs with the processor and where memory lies.

    Another draw, rate or epoch changes weights by as much as a step does; rounding by far less than a hundredth of all.
    """
    names = [name for name, value in before.items() if value.is_floating_point()]
    return distance(one, other, names) < 0.01 * distance(one, before, names)


def trained_names(network: HemorrhageNetwork) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


class Site:
    """One network at one site, trained round by round."""

    def __init__(self, cache: Cache, experiment: Experiment, folder: Path, part: DataSplit | None = None) -> None:
        self.cache, self.experiment, self.folder = cache, experiment, folder
        self.part = part or make_data_splits(experiment, cache)[-1]
        self.network = initial_network(experiment, experiment.run.seed)
        self.before = state_of(self.network)

    def round(self, number: int = 1, rounds: int = 1, epochs: int = 1, **options: Any) -> RoundResult:
        place = RoundPlace(number=number, rounds=rounds, epochs=epochs)
        options = {"batch_norm": "shared", **options}
        return train_round(self.network, self.experiment, self.cache, self.part, self.folder, place, **options)

    @property
    def state(self) -> State:
        return state_of(self.network)


@pytest.fixture
def site(hospital_cache: Cache, small_experiment: Build, tmp_path: Path) -> Callable[..., Site]:
    """``site(sampling={...}, ...)``: a site with that experiment; ``part=`` replaces the split's."""

    def build(part: DataSplit | None = None, **changes: Any) -> Site:
        return Site(hospital_cache, small_experiment(**changes), tmp_path / "work", part)

    return build


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[SampleIndex, float]]:
    """Every draw and the sum of the image that came of it, in order."""
    seen: list[tuple[SampleIndex, float]] = []
    item = SliceDataset.__getitem__

    def watched(self: SliceDataset, draw: SampleIndex) -> Any:
        sample = item(self, draw)
        seen.append((draw, float(sample.image.sum())))
        return sample

    monkeypatch.setattr(SliceDataset, "__getitem__", watched)
    return seen


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Learning rate and first moment's decay of every step."""
    seen: list[tuple[float, float]] = []
    step = TrainingModule.optimizer_step

    def watched(self: TrainingModule, *args: Any, **kwargs: Any) -> None:
        group = self.trainer.optimizers[0].param_groups[0]
        seen.append((group["lr"], group["betas"][0]))
        step(self, *args, **kwargs)

    monkeypatch.setattr(TrainingModule, "optimizer_step", watched)
    return seen


@pytest.mark.parametrize("schedule", ["onecycle", "constant"])
def test_one_round_of_some_epochs_is_a_local_training_of_as_many(
    site: Callable[..., Site], tmp_path: Path, schedule: str
) -> None:
    here = site(run={"epochs": 2}, optimizer={"schedule": schedule})
    train(here.experiment, here.cache, tmp_path / "run")
    found = here.round(epochs=2)
    local = dict(load_file(tmp_path / "run" / "split" / "weights.safetensors"))
    assert same_training(here.state, local, here.before)
    record = json.loads((tmp_path / "run" / "split" / "part.json").read_text())
    assert found.steps == record["steps"]
    assert found.loss == pytest.approx(record["losses"]["train/loss"])
    assert not same(here.state, here.before)


def test_rounds_draw_what_one_training_draws_and_go_on_with_its_schedule(
    site: Callable[..., Site], drawn: list[tuple[SampleIndex, float]], rates: list[tuple[float, float]]
) -> None:
    whole = site()
    whole.round(epochs=4)
    expected, cycle = list(drawn), list(rates)
    drawn.clear(), rates.clear()
    rounds = site()
    for number in (1, 2):
        rounds.round(number, rounds=2, epochs=2)
    assert {draw.epoch for draw, _ in expected} == {0, 1, 2, 3}
    assert drawn == expected
    assert rates == pytest.approx(np.array(cycle), rel=1e-12)
    # Adam's moments start afresh, so the weights are others from the second round on.
    assert not same_training(rounds.state, whole.state, whole.before)


def test_a_round_follows_from_its_first_weights_alone(site: Callable[..., Site]) -> None:
    once, again = site(), site()
    once.round(2, rounds=3)
    torch.rand(7)  # another process draws other numbers
    again.round(2, rounds=3)
    assert same_training(once.state, again.state, once.before)
    other = site()
    other.round(3, rounds=3)
    assert not same_training(other.state, once.state, once.before)


def test_a_proximal_term_keeps_a_site_near_them(site: Callable[..., Site]) -> None:
    far, near, held = site(), site(), site()
    plain = far.round(epochs=3)
    pulled = near.round(epochs=3, proximal=1.0)
    held.round(epochs=3, proximal=1000.0)
    names = trained_names(far.network)
    moved = [distance(s.state, s.before, names) for s in (far, near, held)]
    assert moved[0] > moved[1] > moved[2] > 0
    # The loss that is reported is that of the data, or strategies could not be compared.
    assert pulled.loss == pytest.approx(plain.loss, rel=0.2)


def test_a_sites_own_batch_norm_has_no_proximal_term(site: Callable[..., Site]) -> None:
    own, shared = site(), site()
    own.round(epochs=2, proximal=1000.0, batch_norm="local")
    shared.round(epochs=2, proximal=1000.0)
    norm = [name for name in trained_names(own.network) if "bn" in name]
    rest = [name for name in trained_names(own.network) if name not in norm and "mix" not in name]
    assert distance(own.state, own.before, norm) > 2 * distance(shared.state, shared.before, norm)
    assert distance(own.state, own.before, rest) == pytest.approx(distance(shared.state, shared.before, rest), rel=0.5)


def test_fixed_statistics_stay_and_the_rest_of_batch_norm_learns(site: Callable[..., Site]) -> None:
    fixed, usual = site(), site()
    fixed.round(batch_norm="fixed")
    usual.round(batch_norm="shared")
    statistics = [n for n in fixed.before if n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert statistics
    assert all(torch.equal(fixed.state[name], fixed.before[name]) for name in statistics)
    assert not any(torch.equal(usual.state[name], usual.before[name]) for name in statistics)
    assert not torch.equal(fixed.state["backbone.bn1.weight"], fixed.before["backbone.bn1.weight"])


def test_a_site_with_less_than_a_batch_trains_on_all_it_has_at_once(site: Callable[..., Site]) -> None:
    small = site(run={"batch_size": 64})
    found = small.round(epochs=3)
    assert found.steps == 3
    assert not same(small.state, small.before)


def test_a_site_without_a_bleed_says_what_it_lacks(site: Callable[..., Site]) -> None:
    healthy = site(part=DataSplit(name="split", train=("p1_0", "p1_1", "p3_0")))
    with pytest.raises(TrainingError, match=r"an epoch has 0 slices, fewer than a batch of 2\. Give data"):
        healthy.round()
    assert same(healthy.state, healthy.before)


def test_a_round_counts_what_it_learned_from_and_writes_nothing_but_crops(site: Callable[..., Site]) -> None:
    here = site()
    found = here.round()
    rows = here.cache.manifest.set_index("image_id").loc[list(here.part.train)]
    assert (found.slices, found.positives) == (len(rows), int(rows["any"].sum()))
    assert found.seconds > 0
    assert {path.name for path in here.folder.iterdir()} == {"crops"}
    files = {path: path.stat().st_mtime_ns for path in here.folder.rglob("*")}
    here.round()
    assert {path: path.stat().st_mtime_ns for path in here.folder.rglob("*")} == files


def test_progress_reports_each_stage_to_its_end(site: Callable[..., Site]) -> None:
    shown: list[tuple[str, int, int]] = []
    site().round(show=lambda *reported: shown.append(reported))
    assert list(dict.fromkeys(stage for stage, _, _ in shown)) == ["split: cropping", "split: training"]
    assert shown[-1][1] == shown[-1][2] > 0


def test_a_loss_that_is_not_finite_ends_the_round(site: Callable[..., Site]) -> None:
    here = site()
    with torch.no_grad():
        next(here.network.head.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"the loss of step 1 is nan: .* lower optimizer\.learning_rate"):
        here.round()


@pytest.mark.parametrize(("number", "rounds", "epochs"), [(0, 3, 1), (4, 3, 1), (1, 3, 0)])
def test_a_round_outside_its_federation_is_refused(number: int, rounds: int, epochs: int) -> None:
    with pytest.raises(FederationError, match=f"round {number} of {rounds} with {epochs} epochs: rounds count from 1"):
        RoundPlace(number=number, rounds=rounds, epochs=epochs)


def test_a_site_is_scored_as_a_run_of_its_own_is(site: Callable[..., Site], tmp_path: Path) -> None:
    here = site(run={"epochs": 1}, reading={"size": 64, "extent_mm": 20.0})
    run = tmp_path / "run"
    train(here.experiment, here.cache, run)
    here.network.load_state_dict(load_file(run / "split" / "weights.safetensors"))
    path = tmp_path / "scores" / "test.csv"
    score_part(here.network, here.experiment, here.cache, here.part.test, path)
    tables = [pd.read_csv(file) for file in (path, run / "split" / "scores-test.csv")]
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=0, atol=LOGIT_TOLERANCE)
    from hemoscope.inference.calibration import StudyRule

    expected = split_scores(run, here.experiment, "test", StudyRule(extent_mm=20.0))
    found = scored(path.parent, [path.name], here.experiment, here.cache)
    assert expected is not None
    for level in ("slices", "studies"):
        ours, theirs = getattr(found, level), getattr(expected, level)
        np.testing.assert_allclose(ours.logits, theirs.logits, rtol=0, atol=LOGIT_TOLERANCE)
        assert np.array_equal(ours.truth, theirs.truth, equal_nan=True)
        assert ours.patients == theirs.patients


def test_labels_that_nobody_knows_are_no_number_in_the_truth(site: Callable[..., Site], tmp_path: Path) -> None:
    here = site()
    score_part(here.network, here.experiment, here.cache, ("p0_0", "p1_0"), tmp_path / "two.csv")
    manifest = here.cache.manifest.copy()
    manifest.loc[manifest["image_id"] == "p1_0", "subdural"] = pd.NA
    found = scored(tmp_path, ["two.csv"], here.experiment, replace(here.cache, manifest=manifest))
    assert np.isnan(found.slices.truth).sum() == 1


def test_scores_of_another_hospital_are_refused(site: Callable[..., Site], tmp_path: Path) -> None:
    here = site()
    score_part(here.network, here.experiment, here.cache, ("p0_0", "p1_0"), tmp_path / "two.csv")
    elsewhere = replace(here.cache, manifest=here.cache.manifest.query("patient_id != 'p1'"))
    with pytest.raises(TrainingError, match=r"two\.csv: 1 of 2 scores are of slices of this run"):
        scored(tmp_path, ["two.csv"], here.experiment, elsewhere)
