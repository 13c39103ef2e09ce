"""The configuration of Lightning's trainer: devices and logging."""

import logging
import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.utils.data import DataLoader

from hemoscope.errors import TrainingError
from hemoscope.training.run_config import RunConfig
from hemoscope.training.trainer import is_first_process, make_round_trainer, make_trainer, quiet_lightning


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def trainer_of(folder: Path, **run: object) -> lightning.Trainer:
    with quiet_lightning():
        return make_trainer(RunConfig(**run), folder, lambda *_: None, validate=False, extra=[])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "kind", "world"),
    [
        ({}, SingleDeviceStrategy, 1),
        ({"devices": "auto"}, SingleDeviceStrategy, 1),
        ({"devices": 2}, DDPStrategy, 2),
        ({"strategy": "ddp"}, DDPStrategy, 1),
        ({"devices": 2, "nodes": 3}, DDPStrategy, 6),
    ],
)
def test_more_than_one_device_trains_in_several_processes(
    tmp_path: Path, run: dict[str, object], kind: type, world: int
) -> None:
    trainer = trainer_of(tmp_path, **run)
    assert isinstance(trainer.strategy, kind)
    assert trainer.world_size == world


def test_settings_of_the_run_reach_lightning(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, epochs=7, max_steps=9, accumulate=3, precision="bf16-mixed")
    assert (trainer.max_epochs, trainer.max_steps, trainer.accumulate_grad_batches) == (7, 9, 3)
    assert trainer.precision == "bf16-mixed"


def test_a_job_of_slurm_is_not_submitted_again_behind_the_users_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = trainer_of(tmp_path)
    environment = trainer._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue


def test_machines_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise MisconfigurationException("You requested gpu: [0, 1] but your machine only has: [0]")

    monkeypatch.setattr(lightning, "Trainer", refuse)
    with pytest.raises(TrainingError, match=r"cannot train with run\.devices = 2, nodes = 1.* machine only has: \[0\]"):
        trainer_of(tmp_path, devices=2)


def test_a_precision_that_lightning_would_replace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"precision = 16-mixed needs a GPU.*run\.precision=bf16-mixed"):
        trainer_of(tmp_path, precision="16-mixed")


def test_advice_is_kept_back_and_true_warnings_are_not(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = logger.level
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet_lightning():
            logger.info("Tip: install this")
            warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
            warnings.warn("the loss is infinite", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["the loss is infinite"]
    assert "Tip" not in caplog.text
    assert logger.level == before


def test_this_process_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_first_process()
    monkeypatch.setattr("lightning.pytorch.utilities.rank_zero_only.rank", 1)
    assert not is_first_process()


class Draws(lightning.LightningModule):
    """Remembers what torch draws in each batch; learns nothing worth a file."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.drawn: list[float] = []

    def training_step(self, _batch: object, _: int) -> torch.Tensor:
        self.drawn.append(float(torch.rand(1)))
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_stretch_of_a_training_draws_on_where_the_last_ended_and_writes_nothing(tmp_path: Path) -> None:
    def drawn(*, epochs: int, first: int) -> list[float]:
        module = Draws()
        with quiet_lightning():
            run = RunConfig(epochs=epochs)
            trainer = make_round_trainer(run, tmp_path, lambda *_: None, first_epoch=first, extra=[])
            trainer.fit(module, DataLoader([0.0, 1.0], batch_size=1))
        return module.drawn

    assert drawn(epochs=1, first=0) + drawn(epochs=2, first=1) == drawn(epochs=3, first=0)
    assert len(set(drawn(epochs=3, first=0))) == 6
    assert list(tmp_path.iterdir()) == []
