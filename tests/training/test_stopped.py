"""A training that cannot give a network stops by itself, and keeps nothing that looks like one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hemoscope.data.cache import Cache
from hemoscope.errors import TrainingError
from hemoscope.training.experiment import Experiment
from hemoscope.training.lightning_module import TrainingModule
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.sequence import SequenceModule
from hemoscope.training.train import train

Build = Callable[..., Experiment]


def test_a_loss_that_is_not_a_number_stops_the_training_and_names_the_step(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build
) -> None:
    experiment = tiny_experiment(run={"folds": 0, "epochs": 50}, optimizer={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"step \d+ .*stopped\. Train again with a lower optimizer\.learning_rate"):
        train(experiment, phantom_cache, tmp_path / "run")
    assert not (tmp_path / "run" / "final" / "weights.safetensors").exists()


def test_a_last_step_that_spoils_the_weights_is_named(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingModule.optimizer_step

    def spoil(self: TrainingModule, *arguments: object, **options: object) -> None:
        step(self, *arguments, **options)
        with torch.no_grad():
            next(self.trained.parameters()).fill_(torch.nan)

    monkeypatch.setattr(TrainingModule, "optimizer_step", spoil)
    with pytest.raises(TrainingError, match="step 1 left weights that are not finite"):
        train(tiny_experiment(run={"folds": 0, "max_steps": 1}), phantom_cache, tmp_path / "run")


def test_a_sequence_network_stops_as_well(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SequenceModule.__init__

    def spoil(self: SequenceModule, *arguments: object) -> None:
        made(self, *arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            next(self.network.parameters()).fill_(torch.nan)

    monkeypatch.setattr(SequenceModule, "__init__", spoil)
    experiment = tiny_experiment(run={"folds": 0, "epochs": 1}, sequence={"epochs": 1, "batch_series": 2})
    with pytest.raises(TrainingError, match="the loss of step 1 is nan"):
        train(experiment, phantom_cache, tmp_path / "run")


def test_a_precision_that_this_machine_lacks_is_refused_before_anything_is_read(
    tmp_path: Path, phantom_cache: Cache, tiny_experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(HemorrhageNetwork, "__init__", lambda *_: pytest.fail("too late"))
    with pytest.raises(TrainingError, match=r"16-mixed needs a GPU"):
        train(tiny_experiment(run={"precision": "16-mixed"}), phantom_cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()
