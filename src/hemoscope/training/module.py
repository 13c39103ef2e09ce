"""What Lightning runs: the network, its loss, its optimiser, and a moving average of its weights."""

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hemoscope.models.network import HemorrhageNetwork
from hemoscope.training.dataset import Sample
from hemoscope.training.losses import LossConfig, loss_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW under one cycle of the learning rate, and the decay of the weights' moving average (0 switches it off)."""

    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    warmup: float = 0.2
    ema: float = 0.99


class TrainingModule(lightning.LightningModule):
    """One network in training; ``trained`` is what a finished run keeps."""

    def __init__(self, network: HemorrhageNetwork, loss: LossConfig, optimizer: OptimizerConfig) -> None:
        """Keep the parts; the average starts as a copy."""
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.loss = loss
        self.optimizer = optimizer
        decay = get_ema_multi_avg_fn(optimizer.ema)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(network, multi_avg_fn=decay, use_buffers=True) if optimizer.ema else None

    @property
    def trained(self) -> HemorrhageNetwork:
        """The averaged network where there is one."""
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, HemorrhageNetwork)
        return network

    def training_step(self, batch: Sample, _: int) -> Tensor:
        """Loss of one batch; its parts are logged."""
        image = batch.image.contiguous(memory_format=torch.channels_last)
        parts = loss_parts(self.network(image), batch.labels, batch.outline, batch.typed, self.loss)
        total = torch.stack(list(parts.values())).sum()
        self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()}, on_step=False, on_epoch=True)
        self.log("train/loss", total.detach(), prog_bar=True, on_step=False, on_epoch=True)
        return total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the average follow."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        """AdamW and one cycle over the whole run."""
        chosen = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        config = self.optimizer
        adamw = torch.optim.AdamW(chosen, lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            adamw, max_lr=config.learning_rate, total_steps=steps, pct_start=config.warmup
        )
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
