"""Every recipe can overfit 32 slices, also the network as served (with fixed batch statistics).

An incorrectly connected network, loss or optimiser fails here first. Fast cases use a small backbone.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hemoscope.inference.preprocess import model_input
from hemoscope.labels import SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.experiment import Experiment, read_experiment
from hemoscope.training.lightning_module import TrainingModule
from hemoscope.training.losses import score_loss
from hemoscope.training.models.network import HemorrhageNetwork

EXPERIMENTS = Path(__file__).resolve().parents[2] / "src/hemoscope/experiments"
SIZE, HEADS, SLICES = 64, 8, 4
NEAR_ZERO = 0.02

# Small images, random weights, no auxiliary maps, and a learning rate for them: the recipes' own are for fine-tuning.
CHANGES = (
    f"preprocessing.size={SIZE}",
    "run.init=none",
    "network.frozen_stages=0",
    "loss.map=0.0",
    "loss.dice=0.0",
    "optimizer.schedule=constant",
    "optimizer.ema=0.0",
    "optimizer.learning_rate=1e-3",
)
SMALL = "network.backbone=test_resnet"


def recipe(name: str, *changes: str) -> Experiment:
    return read_experiment(EXPERIMENTS / f"{name}.toml", [*CHANGES, *changes])


def thirty_two_slices(experiment: Experiment) -> tuple[Tensor, Tensor]:
    """Images as the model sees them, and their labels: every type bleeds in some heads, in others none."""
    images, labels = [], []
    for seed in range(HEADS):
        bleeds = frozenset(SUBTYPES[: seed % 6])
        phantom = make_phantom(seed=seed, shape=(SLICES, SIZE, SIZE), bleeds=bleeds)
        images += [model_input(phantom.volume, index, experiment.preprocessing) for index in range(SLICES)]
        labels.append(phantom.slice_labels)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.concatenate(labels).astype(np.float32))


def overfit(experiment: Experiment, *, steps: int) -> tuple[list[float], int]:
    """Loss of the network as served after every tenth step on all slices, and how many answers were wrong at last."""
    torch.manual_seed(1)
    images, labels = thirty_two_slices(experiment)
    learned = experiment.preprocessing
    network = HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size)
    module = TrainingModule(network, experiment.loss.resolved(labels.numpy()), experiment.optimizer)
    optimizer = module.configure_optimizers()
    losses, wrong = [math.inf], labels.numel()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        score_loss(network.train()(images).logits, labels, module.loss).backward()
        optimizer.step()
        if step % 10 == 0:
            with torch.inference_mode():
                logits = network.eval()(images).logits
            losses.append(float(score_loss(logits, labels, module.loss)))
            wrong = int(((logits > 0) != (labels > 0)).sum())
        if losses[-1] < NEAR_ZERO and not wrong:
            break
    return losses, wrong


def test_the_slices_hold_every_label_on_both_sides() -> None:
    images, labels = thirty_two_slices(recipe("paper"))
    assert images.shape == (32, 3, SIZE, SIZE)
    assert labels.shape == (32, 6)
    assert ((labels.sum(0) >= 2) & (labels.sum(0) <= 30)).all()
    assert len(images.flatten(1).unique(dim=0)) == 32


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("paper", (SMALL,), id="flattened"),
        pytest.param("paper", (SMALL, "network.head=pooled"), id="pooled"),
        pytest.param("doubly-weighted", (SMALL,), id="doubly weighted"),
        pytest.param("focal", (SMALL,), id="focal"),
        pytest.param("default", (SMALL,), id="maps"),
    ],
)
def test_every_kind_of_head_and_loss_can_overfit_32_slices(name: str, changes: tuple[str, ...]) -> None:
    losses, wrong = overfit(recipe(name, *changes, "optimizer.learning_rate=3e-3"), steps=400)
    assert losses[-1] < NEAR_ZERO, losses
    assert wrong == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "name", ["paper", "resnet101", "resnet152", "doubly-weighted", "convnext", "reference", "default"]
)
def test_the_recipes_own_networks_can_overfit_32_slices(name: str) -> None:
    losses, wrong = overfit(recipe(name), steps=400)
    assert losses[-1] < NEAR_ZERO, losses
    assert wrong == 0
