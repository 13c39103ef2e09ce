"""The ``[run]`` table of an experiment: its length, data split and hardware."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, get_args

from hemoscope.errors import ConfigError

Devices = Literal["auto"]
Strategy = Literal["auto", "ddp"]
SplitBy = Literal["folds", "patient", "slice"]
Crops = Literal["memory", "disk"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]  # an average of weights in half precision would not change

NAMED_INITS = ("imagenet", "pretrained", "none")
# Settings that do not affect the weights: they may change when a run resumes.
FREE_TO_CHANGE = ("workers", "checkpoint_steps", "crops")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Length, data split and hardware of a run.

    Attributes:
        epochs: passes over what ``sampling`` calls an epoch.
        max_steps: optimiser steps after which training ends, regardless of epochs; 0 is no limit.
        batch_size: slices per process in one batch, at least two.
        accumulate: batches whose gradients make one step: a step sees batch_size x accumulate x processes slices.
        seed: of all random numbers.
        precision: as Lightning names it: ``32-true``, ``bf16-mixed`` or ``16-mixed`` (on a GPU).
        init: source of the initial weights: ``imagenet`` (from an installed package), ``pretrained`` (timm, needs
            internet), ``none`` (random), or the path of a file.
        split: ``folds`` trains one network per patient-level fold and a final one on all patients; ``patient`` and
            ``slice`` train one network on one split (``slice`` is the paper's and leaks between slices of a patient).
        folds: patient-level folds for out-of-fold scores; 0 trains the final network alone. For ``split = "folds"``.
        held_out: patients that the final network is not trained on, such as the demo's. For ``split = "folds"``.
        validation: share of the patients for validation. For ``split = "patient"``.
        test: share of the patients, or of the slices, for the test. For ``split = "patient"`` and ``"slice"``.
        split_seed: of the split.
        early_stop: stop after this many epochs without a better validation loss, and keep the best epoch's weights; 0
            trains to the end and keeps the last weights. Needs a validation set.
        devices: accelerators, or processes of a CPU, on each node; ``auto`` uses all accelerators.
        nodes: number of machines.
        strategy: ``ddp`` trains in several processes; ``auto`` does so with more than one device.
        workers: data-loading processes per training process; 0 loads in the training process.
        crops: ``memory`` keeps the cropped slices in memory; ``disk`` stores them beside the cache, memory-mapped.
        checkpoint_steps: steps between checkpoints within an epoch; 0 writes one at the end of each epoch.
    """

    epochs: int = 20
    max_steps: int = 0
    batch_size: int = 32
    accumulate: int = 1
    seed: int = 1
    precision: Precision = "32-true"
    init: str = "imagenet"
    split: SplitBy = "folds"
    folds: int = 5
    held_out: tuple[str, ...] = ()
    validation: float = 0.1
    test: float = 0.1
    split_seed: int = 257
    early_stop: int = 0
    devices: int | Devices = 1
    nodes: int = 1
    strategy: Strategy = "auto"
    workers: int = 0
    crops: Crops = "memory"
    checkpoint_steps: int = 0

    def __post_init__(self) -> None:
        """Reject settings that no run can follow."""
        self._check_words()
        self._check_numbers()
        self._check_split()

    @property
    def validation_share(self) -> float:
        """Share of the validation set; 0 unless split by patient."""
        return self.validation if self.split == "patient" else 0.0

    def _check_words(self) -> None:
        kinds = {"precision": Precision, "split": SplitBy, "strategy": Strategy, "crops": Crops}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                msg = f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)}"
                raise ConfigError(msg)
        if self.init not in NAMED_INITS and not PurePath(self.init).suffix:
            msg = f"init must be one of {', '.join(NAMED_INITS)}, or the path of a file with weights, got {self.init}"
            raise ConfigError(msg)

    def _check_numbers(self) -> None:
        if self.epochs < 1 or self.seed < 0:
            msg = f"epochs must be at least 1 and seed at least 0, got {self.epochs} and {self.seed}"
            raise ConfigError(msg)
        if self.batch_size < 2:
            remedy = "Set run.batch_size=2 or more, and a smaller preprocessing.size if the memory is too small"
            msg = f"batch_size must be at least 2, since batch norm needs two slices, got {self.batch_size}. {remedy}"
            raise ConfigError(msg)
        least = {"accumulate": 1, "nodes": 1, "devices": 1}
        least |= dict.fromkeys(("max_steps", "early_stop", "workers", "checkpoint_steps", "split_seed"), 0)
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < bound:
                msg = f"{name} must be at least {bound}, got {value}"
                raise ConfigError(msg)
        if isinstance(self.devices, str) and self.devices != "auto":
            msg = f"devices must be a number or auto, got {self.devices}"
            raise ConfigError(msg)

    def _check_split(self) -> None:
        if self.folds < 0 or self.folds == 1:
            msg = f"folds must be 0 (none) or at least 2, got {self.folds}"
            raise ConfigError(msg)
        if not 0 <= self.validation < 1 or not 0 < self.test < 1:
            msg = f"validation must be 0 to below 1 and test between 0 and 1, got {self.validation} and {self.test}"
            raise ConfigError(msg)
        if self.split != "folds" and self.held_out:
            msg = f'held_out is for split = "folds": a {self.split} split has its own test set. Set run.held_out=[]'
            raise ConfigError(msg)
        if self.early_stop and not self.validation_share:
            msg = f'early_stop needs a validation set, split = "{self.split}" has none. Use split = "patient"'
            raise ConfigError(msg)
