"""The Lightning module: optimisers, schedules, the moving average, and validation against references."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch.utils.data import DataLoader

from hemoscope.errors import ConfigError
from hemoscope.training.dataset import Sample
from hemoscope.training.lightning_module import (
    OptimizerConfig,
    ProximalTerm,
    ScheduleSegment,
    TrainingModule,
    adam,
)
from hemoscope.training.losses import LossConfig
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig
from hemoscope.training.trainer import quiet_lightning

STEPS = 10
SCORES_ALONE = LossConfig(map=0.0, dice=0.0)


def network() -> HemorrhageNetwork:
    torch.manual_seed(1)
    return HemorrhageNetwork(NetworkConfig(backbone="test_resnet", head="pooled"), channels=3, size=32)


def module(loss: LossConfig = SCORES_ALONE, **options: object) -> TrainingModule:
    return TrainingModule(network(), loss, OptimizerConfig(**options))  # type: ignore[arg-type]


def samples(count: int, *, positive: bool | None = None, seed: int = 2) -> list[Sample]:
    random = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, 6, generator=random) > 0.5).float()
    if positive is not None:
        labels[:] = float(positive)
    one = torch.tensor(1.0)
    return [Sample(torch.rand(3, 32, 32, generator=random), row, torch.zeros(32, 32), one, one) for row in labels]


class Watch(lightning.Callback):
    """Learning rates and copies of the weights at every step, and the last epoch's metrics."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.weights: list[torch.Tensor] = []
        self.metrics: dict[str, float] = {}

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *_: object) -> None:
        self.weights.append(pl_module.network.head.classifier.weight.detach().clone())


def fit(chosen: TrainingModule, folder: Path, *, validation: list[Sample] | None = None, steps: int = STEPS) -> Watch:
    watch = Watch()
    trainer = lightning.Trainer(
        max_steps=steps,
        default_root_dir=folder,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=None if validation else 0,
        accelerator="cpu",
    )
    given = None if validation is None else DataLoader(validation, batch_size=3)
    with quiet_lightning():
        trainer.fit(chosen, DataLoader(samples(4 * steps), batch_size=4), given)
    watch.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return watch


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_optimizer_is_the_one_requested(kind: str, tmp_path: Path) -> None:
    chosen = module(kind=kind, schedule="constant", learning_rate=1e-3, weight_decay=0.1)
    optimizer = chosen.configure_optimizers()
    assert type(optimizer) is {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_optimizer_takes_the_same_steps_as_its_plain_form(kind: str) -> None:
    torch.manual_seed(3)
    layer = torch.nn.Linear(40, 30)
    same = torch.nn.Linear(40, 30)
    same.load_state_dict(layer.state_dict())
    plain_kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    plain = plain_kind(same.parameters(), lr=1e-2, weight_decay=0.1, foreach=False, fused=False)
    config = OptimizerConfig(kind=kind, learning_rate=1e-2, weight_decay=0.1)  # type: ignore[arg-type]
    before = layer.weight.detach().clone()
    for chosen, optimizer in ((layer, adam(layer, config)), (same, plain)):
        for step in range(5):
            optimizer.zero_grad()
            chosen(torch.full((1, 40), step - 1.5)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(layer.weight, same.weight, rtol=0, atol=1e-6)
    assert float((layer.weight.detach() - before).abs().max()) > 1e-2


def test_a_state_stored_in_another_order_of_axes_goes_on_the_same() -> None:
    config, image = OptimizerConfig(learning_rate=1e-2), torch.arange(400.0).reshape(1, 4, 10, 10) / 100

    def step(layer: torch.nn.Conv2d, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        layer(image).square().sum().backward()
        optimizer.step()

    torch.manual_seed(3)
    layer = torch.nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    optimizer = adam(layer, config)
    step(layer, optimizer)
    stored = deepcopy(optimizer.state_dict())
    for state in stored["state"].values():
        state.update({name: value.contiguous() for name, value in state.items()})  # as a checkpoint has them
    other = deepcopy(layer)
    resumed = adam(other, config)
    resumed.load_state_dict(stored)
    step(layer, optimizer)
    step(other, resumed)
    assert torch.equal(layer.weight, other.weight)


def test_frozen_parameters_are_not_optimised() -> None:
    config = NetworkConfig(backbone="resnet18", head="pooled", frozen_stages=1)
    frozen = HemorrhageNetwork(config, channels=3, size=32)
    optimizer = TrainingModule(frozen, SCORES_ALONE, OptimizerConfig(schedule="constant")).configure_optimizers()
    chosen = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert chosen == {id(parameter) for parameter in frozen.parameters() if parameter.requires_grad}


def test_a_constant_learning_rate_stays_and_one_cycle_rises_and_falls(tmp_path: Path) -> None:
    constant = fit(module(schedule="constant", learning_rate=1e-3), tmp_path)
    assert constant.rates == [1e-3] * STEPS
    cycle = fit(module(schedule="onecycle", learning_rate=1e-3, warmup=0.3), tmp_path).rates
    assert max(cycle) == pytest.approx(1e-3)
    assert cycle.index(max(cycle)) == 2  # 30% of ten steps, counted from none
    assert cycle[0] == pytest.approx(1e-3 / 25)
    assert cycle[-1] < 1e-6


def test_the_average_follows_the_weights_by_its_decay(tmp_path: Path) -> None:
    chosen = module(ema=0.8, schedule="constant")
    watch = fit(chosen, tmp_path, steps=3)
    expected = watch.weights[0]  # the first step is taken whole
    for weights in watch.weights[1:]:
        expected = 0.8 * expected + 0.2 * weights
    assert torch.allclose(chosen.trained.head.classifier.weight, expected, atol=1e-7)
    assert not torch.equal(chosen.trained.head.classifier.weight, chosen.network.head.classifier.weight)
    assert not any(parameter.requires_grad for parameter in chosen.trained.parameters())


def test_without_an_average_the_network_itself_is_kept() -> None:
    chosen = module(ema=0.0)
    assert chosen.trained is chosen.network


def test_validation_measures_known_labels_with_the_network_that_is_kept(tmp_path: Path) -> None:
    slices = samples(10, seed=5)
    slices[3].labels[:] = torch.tensor([math.nan, 1.0, math.nan, 0.0, 0.0, 1.0])
    chosen = module(ema=0.5)
    found = fit(chosen, tmp_path, validation=slices).metrics
    with torch.inference_mode():
        logits = chosen.trained.eval()(torch.stack([item.image for item in slices])).logits
    labels = torch.stack([item.labels for item in slices])
    known = ~labels.isnan()
    any_known = known[:, 0]
    reference = roc_auc_score(labels[any_known, 0], logits[any_known, 0])
    assert found["validation/auroc_any"] == pytest.approx(reference)
    weights = torch.tensor([2.0, 1, 1, 1, 1, 1]).expand(10, 6)[known]
    expected = log_loss(labels[known], torch.sigmoid(logits[known].double()), sample_weight=weights)
    assert found["validation/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("positive", [True, False])
def test_validation_of_one_class_has_a_loss_and_no_auroc(tmp_path: Path, positive: bool) -> None:
    found = fit(module(), tmp_path, validation=samples(4, positive=positive)).metrics
    assert math.isfinite(found["validation/loss"])
    assert "validation/auroc_any" not in found


def test_a_loss_that_waits_for_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the loss has the word prevalence .* Call LossConfig\.resolved first"):
        module(LossConfig(negative="prevalence"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "sgd"}, r"optimizer\.kind must be one of adamw, adam, got sgd"),
        ({"schedule": "cosine"}, r"optimizer\.schedule must be one of onecycle, constant, got cosine"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and weight_decay not negative, got 0.0 and 0.01"),
        ({"weight_decay": -0.1}, "weight_decay not negative, got 0.0005 and -0.1"),
        ({"warmup": 1.0}, "must be at least 0 and below 1, got 1.0 and 0.99"),
        ({"ema": 1.0}, "must be at least 0 and below 1, got 0.2 and 1.0"),
    ],
)
def test_optimisers_that_could_not_run_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OptimizerConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 0.9])
def test_stretches_of_a_training_go_through_one_cycle_together(tmp_path: Path, warmup: float) -> None:
    options = OptimizerConfig(learning_rate=1e-3, warmup=warmup)
    whole = fit(TrainingModule(network(), SCORES_ALONE, options), tmp_path).rates
    pieces: list[float] = []
    for number in (1, 2, 3, 4, 5):
        segment = ScheduleSegment(number=number, count=5)
        pieces += fit(TrainingModule(network(), SCORES_ALONE, options, segment=segment), tmp_path, steps=2).rates
    assert len(pieces) == STEPS
    assert pieces == pytest.approx(whole, rel=1e-12)


def test_the_proximal_term_is_half_its_strength_times_the_squared_distance_and_is_logged(tmp_path: Path) -> None:
    weights = [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([[3.0]]))]
    proximal_term = ProximalTerm(weights, 0.4)
    assert float(proximal_term.loss().detach()) == 0
    with torch.no_grad():
        weights[0] += torch.tensor([1.0, -2.0])
        weights[1] += 3.0
    loss = proximal_term.loss()
    assert float(loss.detach()) == pytest.approx(0.2 * (1 + 4 + 9))
    loss.backward()
    assert weights[0].grad is not None
    assert weights[0].grad.tolist() == pytest.approx([0.4, -0.8])  # strength times the way gone
    chosen = network()
    module = TrainingModule(
        chosen, SCORES_ALONE, OptimizerConfig(), proximal_term=ProximalTerm(chosen.parameters(), 5.0)
    )
    found = fit(module, tmp_path).metrics
    assert found["train/loss"] == pytest.approx(found["train/scores"] + found["train/proximal"], rel=1e-5)
    assert found["train/proximal"] > 0
