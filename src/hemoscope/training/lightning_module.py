"""The Lightning module: the network, its loss, its optimiser, and a moving average of its weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hemoscope.errors import ConfigError, TrainingError
from hemoscope.evaluation.metrics import Ranking
from hemoscope.training.dataset import Sample
from hemoscope.training.losses import PREVALENCE, LossConfig, loss_parts, score_sums
from hemoscope.training.models.depthwise import depthwise_in_float32
from hemoscope.training.models.network import HemorrhageNetwork

Kind = Literal["adamw", "adam"]
Schedule = Literal["onecycle", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """The optimiser and its schedule.

    Attributes:
        kind: ``adamw``, or ``adam`` as in the paper.
        schedule: ``onecycle`` (the learning rate rises over the share ``warmup`` of all steps, then falls to zero)
            or ``constant``.
        learning_rate: the maximum.
        weight_decay: part of the gradient in ``adam`` (L2), decoupled in ``adamw``.
        warmup: see ``schedule``.
        ema: decay of the weights' moving average; 0 turns it off.
    """

    kind: Kind = "adamw"
    schedule: Schedule = "onecycle"
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    warmup: float = 0.2
    ema: float = 0.99

    def __post_init__(self) -> None:
        """Reject settings that no optimiser accepts."""
        for name, choice in (("kind", Kind), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(choice):
                msg = f"optimizer.{name} must be one of {', '.join(get_args(choice))}, got {getattr(self, name)}"
                raise ConfigError(msg)
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            found = f"{self.learning_rate} and {self.weight_decay}"
            msg = f"optimizer: learning_rate must be positive and weight_decay not negative, got {found}"
            raise ConfigError(msg)
        if not (0 <= self.warmup < 1 and 0 <= self.ema < 1):
            msg = f"optimizer: warmup and ema must be at least 0 and below 1, got {self.warmup} and {self.ema}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSegment:
    """One of ``count`` segments of equal length of one schedule; ``number`` counts from 1."""

    number: int = 1
    count: int = 1


class ProximalTerm:
    """FedProx' proximal term: half of ``strength`` times the squared distance of weights from their initial values.

    Li et al. 2020, "Federated optimization in heterogeneous networks", equation 2.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], strength: float) -> None:
        """Keep the current parameters as the reference."""
        self.strength = strength
        self.parameters = list(parameters)
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    def loss(self) -> Tensor:
        """Return the term as a scalar."""
        pairs = zip(self.parameters, self.start, strict=True)
        squares = [(now - start.to(now.device)).square().sum() for now, start in pairs]
        return self.strength / 2 * torch.stack(squares).sum()


class TrainingModule(lightning.LightningModule):
    """One network in training; ``trained`` is the network that a finished run keeps."""

    def __init__(
        self,
        network: HemorrhageNetwork,
        loss: LossConfig,
        optimizer: OptimizerConfig,
        *,
        segment: ScheduleSegment | None = None,
        proximal_term: ProximalTerm | None = None,
    ) -> None:
        """Keep network, loss and optimiser; the average starts as a copy.

        Args:
            network: to train.
            loss: with numeric weights.
            optimizer: optimiser and schedule.
            segment: of a longer schedule; None if this training is the whole schedule.
            proximal_term: added to the loss as ``train/proximal``.

        Raises:
            ConfigError: the loss still needs the training labels.
        """
        super().__init__()
        self.segment = segment or ScheduleSegment()
        self.proximal_term = proximal_term
        if PREVALENCE in (loss.positive, loss.negative):
            msg = f"the loss has the word {PREVALENCE} instead of numbers. Call LossConfig.resolved first"
            raise ConfigError(msg)
        self.network = network.to(memory_format=torch.channels_last)
        depthwise_in_float32(self.network)
        self.loss = loss
        self.optimizer = optimizer
        self.average = _average(network, optimizer.ema) if optimizer.ema else None
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def trained(self) -> HemorrhageNetwork:
        """The averaged network if there is one, else the network."""
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, HemorrhageNetwork)
        return network

    def training_step(self, batch: Sample, _: int) -> Tensor:
        """Return the loss of one batch and log its terms."""
        image = batch.image.contiguous(memory_format=torch.channels_last)
        parts = loss_parts(
            self.network(image), batch.labels, batch.mask, batch.typed, self.loss, mask_known=batch.mask_known
        )
        if self.proximal_term is not None:
            parts["proximal"] = self.proximal_term.loss()
        total = torch.stack(list(parts.values())).sum()
        check_loss(self, total)
        shown = {f"train/{name}": value.detach() for name, value in parts.items()}
        self.log_dict(shown, on_step=False, on_epoch=True, sync_dist=True)
        self.log("train/loss", total.detach(), prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        return total

    def val_dataloader(self) -> list[Any]:
        """No validation by default; without this method Lightning warns."""
        return []

    def validation_step(self, batch: Sample, _: int) -> None:
        """Collect the scores of one batch by the ``trained`` network."""
        image = batch.image.contiguous(memory_format=torch.channels_last)
        self._seen.append((self.trained(image).logits.float(), batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Log the loss of all scores, ``validation/loss``, and the AUROC of ``any``, ``validation/auroc_any``.

        Both use the scores of all processes. AUROC needs a positive and a negative slice.
        """
        logits, labels = (self._of_all(torch.cat(parts)) for parts in zip(*self._seen, strict=True))
        self._seen.clear()
        total, count = score_sums(logits, labels, self.loss)
        self.log("validation/loss", total / count)
        known = ~labels[:, 0].isnan()
        if set(labels[known, 0].tolist()) == {0.0, 1.0}:
            ranking = Ranking.of(logits[known, 0].cpu().numpy(), labels[known, 0].cpu().numpy())
            self.log("validation/auroc_any", float(ranking.evaluate(np.ones((1, int(known.sum()))))[0][0]))

    def _of_all(self, rows: Tensor) -> Tensor:
        """Gather the rows of all processes, which may have different numbers."""
        if self.trainer.world_size == 1:
            return rows
        counts = self._gathered(torch.tensor([len(rows)], device=self.device)).flatten().tolist()
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        return torch.cat([part[:count] for part, count in zip(self._gathered(padded), counts, strict=True)])

    def _gathered(self, rows: Tensor) -> Tensor:
        """Gather rows of equal shape from all processes: (processes, ...)."""
        gathered = self.all_gather(rows)
        assert isinstance(gathered, Tensor)
        return gathered

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take one step, then update the moving average."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        """Build optimiser and schedule from ``OptimizerConfig``."""
        config = self.optimizer
        optimizer = adam(self.network, config)
        if config.schedule == "constant":
            return optimizer
        cycle = _cycle(optimizer, config, steps=int(self.trainer.estimated_stepping_batches), segment=self.segment)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def adam(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimiser of the weights that are trained.

    On processors, one pass over a weight does the whole step (``fused``): PyTorch's default makes a dozen. Elsewhere
    the default is kept.
    """
    chosen = [parameter for parameter in network.parameters() if parameter.requires_grad]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.kind]
    fused = True if all(parameter.device.type == "cpu" for parameter in chosen) else None
    optimizer: torch.optim.Optimizer = kind(
        chosen, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused
    )
    optimizer.register_load_state_dict_post_hook(_in_order_of_weights)
    return optimizer


def _in_order_of_weights(optimizer: torch.optim.Optimizer) -> None:
    """Store what a checkpoint says of a weight in the weight's own order of axes: the fused step goes by memory."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def check_loss(module: lightning.LightningModule, loss: Tensor) -> None:
    """Stop a training whose loss is not a number; all processes stop together. Raises TrainingError with the step."""
    trainer = module.trainer
    if not trainer.strategy.reduce_boolean_decision(bool(loss.isfinite()), all=True):
        _stop(f"the loss of step {trainer.global_step + 1} is {float(loss.detach()):g}")


def check_weights(network: nn.Module, trainer: lightning.Trainer) -> None:
    """Keep no weights that the last step made useless. Raises TrainingError with the step."""
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        _stop(f"step {trainer.global_step} left weights that are not finite")


def _stop(what: str) -> NoReturn:
    msg = f"{what}: the training was stopped. Train again with a lower optimizer.learning_rate or run.precision=32-true"
    raise TrainingError(msg)


def _cycle(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, steps: int, segment: ScheduleSegment
) -> torch.optim.lr_scheduler.OneCycleLR:
    """One cycle over all segments of ``steps`` steps each, positioned at the start of this one."""
    whole, done = steps * segment.count, steps * (segment.number - 1)
    # torch divides by the length of the warm-up minus one step.
    warmup = config.warmup * (1 + 1e-9) if config.warmup * whole == 1 else config.warmup

    def cycle(last: int) -> torch.optim.lr_scheduler.OneCycleLR:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=config.learning_rate, total_steps=whole, pct_start=warmup, last_epoch=last
        )

    fresh = cycle(-1)  # a new schedule writes its bounds into the optimiser; a continued one reads them
    return cycle(done - 1) if done else fresh


def _average(network: HemorrhageNetwork, decay: float) -> AveragedModel:
    follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
    average.requires_grad_(False)  # DDP would wait for gradients of these parameters
    return average
