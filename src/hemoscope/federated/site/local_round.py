"""One round at one site: the code of local training, on weights that came from the server, for a few epochs.

What a whole training would do, its rounds do in segments: epochs are numbered on from round to round, so the sampler
and all that is drawn (``EpochSampler``, ``SliceDataset``, ``SeedSteps``) go on, and a one-cycle schedule runs over all
rounds of this site. The optimiser starts afresh each round, since its moments belong to weights that are no more;
there is no moving average, since only the rounds' own weights are exchanged. One round of n epochs is, bit for bit, a
local training of n epochs.

An epoch with fewer slices than a batch (a small hospital) is one batch of all that there is, where local training
would refuse it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn.modules.batchnorm import _BatchNorm

from hemoscope.data.cache import Cache
from hemoscope.errors import FederationError
from hemoscope.federated.exchange.weights import exchange
from hemoscope.federated.settings.federation_sections import BatchNorm
from hemoscope.inference.calibration import StudyRule
from hemoscope.progress import Progress, StageProgress, no_progress, no_stage_progress
from hemoscope.training.crops import chosen_slices
from hemoscope.training.data_module import CROPS, SplitDataModule, resolved_loss
from hemoscope.training.data_splits import DataSplit
from hemoscope.training.dataset import PlainSlices
from hemoscope.training.experiment import Experiment
from hemoscope.training.lightning_module import ProximalTerm, ScheduleSegment, TrainingModule
from hemoscope.training.losses import LossConfig
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_scores import SliceAndStudyScores, read_score_files
from hemoscope.training.scoring import score_slices
from hemoscope.training.series_batches import label_array
from hemoscope.training.trainer import make_round_trainer, quiet_lightning


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlace:
    """Where a round stands in its federation: round ``number`` (from 1) of ``rounds``, of ``epochs`` epochs each."""

    number: int
    rounds: int
    epochs: int

    def __post_init__(self) -> None:
        """Reject a round outside its federation, and one without an epoch. Raises FederationError."""
        if not 1 <= self.number <= self.rounds or self.epochs < 1:
            found = f"round {self.number} of {self.rounds} with {self.epochs} epochs"
            msg = f"{found}: rounds count from 1 to the last, and each has an epoch. Check what the server sent"
            raise FederationError(msg)

    @property
    def first_epoch(self) -> int:
        """The number of this round's first epoch, from 0 over all rounds."""
        return (self.number - 1) * self.epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """What a round came to.

    Attributes:
        loss: mean of the last epoch, without FedProx' term, so that sites and strategies compare.
        slices: of the part's training images; of them ``positives`` have a positive label.
        positives: see ``slices``.
        steps: of the optimiser.
        seconds: of the whole round, reading included.
    """

    loss: float
    slices: int
    positives: int
    steps: int
    seconds: float


def train_round(  # noqa: PLR0913  (what a round is made of)
    network: HemorrhageNetwork,
    experiment: Experiment,
    cache: Cache,
    part: DataSplit,
    folder: Path,
    place: RoundPlace,
    *,
    proximal: float = 0.0,
    batch_norm: BatchNorm,
    show: StageProgress = no_stage_progress,
) -> RoundResult:
    """Train a network in place for one round.

    Args:
        network: with the round's first weights; it comes back on the CPU.
        experiment: how to train; its ``run.epochs`` and ``optimizer.ema`` do not count, and its ``run.max_steps``
            ends a round.
        cache: of this site alone.
        part: whose ``learn`` images are trained on; nothing else is read.
        folder: of this site, for cropped slices, which the next round maps again. They lie beside the cache instead
            where ``run.crops`` is ``disk``. Nothing else is written.
        place: of the round.
        proximal: mu of FedProx; 0 is none. It pulls at the parameters that are exchanged.
        batch_norm: ``fixed`` leaves batch norm's statistics alone and uses them, its scale and shift are trained as
            any parameter; ``shared`` and ``local`` train as usual.
        show: called with the stage, how much of it is done, and how much there is.

    Raises:
        TrainingError: an epoch has fewer than two slices, this machine cannot train so, or the loss is not finite.
        ConfigError: weights of the loss cannot be derived from the part's labels.
        DataError: the part names images that the cache lacks.
    """
    started = time.monotonic()
    run = replace(experiment.run, epochs=place.epochs)
    data = SplitDataModule(
        replace(experiment, run=run),
        cache,
        replace(part, validation=()),
        show,
        first_epoch=place.first_epoch,
        crops=folder / CROPS,
        lower_batch=True,
    )
    proximal_term = _proximal_term(network, proximal, batch_norm)
    module = _module(network, experiment, resolved_loss(experiment, cache, part), place, proximal_term)
    with quiet_lightning():
        progress = partial(show, f"{part.name}: training")
        extra: list[Callback] = [FixedStatistics()] if batch_norm == "fixed" else []
        trainer = make_round_trainer(run, folder, progress, first_epoch=place.first_epoch, extra=extra)
        _fit(trainer, module, data)
    network.cpu()
    labels = label_array(chosen_slices(cache, part.train))
    return RoundResult(
        loss=_loss(trainer),
        slices=len(labels),
        positives=int((labels == 1).any(axis=1).sum()),
        steps=trainer.global_step,
        seconds=round(time.monotonic() - started, 1),
    )


def score_part(
    network: HemorrhageNetwork,
    experiment: Experiment,
    cache: Cache,
    images: tuple[str, ...],
    path: Path,
    progress: Progress = no_progress,
) -> None:
    """Write the logits of some images as a run does (``score_slices``), at the experiment's size of reading.

    Raises:
        DataError: images that the cache lacks, or a series that cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    slices = PlainSlices(cache, images, experiment.reading_preprocessing)
    score_slices(network, slices, path, progress, mirror=experiment.reading.mirror)


def scored(folder: Path, names: Sequence[str], experiment: Experiment, cache: Cache) -> SliceAndStudyScores:
    """What ``score_part`` wrote, with the cache's truth: by slice, and by study as the experiment's rule makes it.

    Args:
        folder: that the files lie in, or below.
        names: of the files, which count as one.
        experiment: with the rule.
        cache: with the truth.

    Raises:
        TrainingError: images are scored that the cache lacks.
    """
    return read_score_files(folder, names, cache.manifest, StudyRule(extent_mm=experiment.reading.extent_mm))


class FixedStatistics(Callback):
    """Batch norm uses its statistics and does not change them, whatever mode the rest of the network is in."""

    def on_train_batch_start(self, trainer: object, pl_module: lightning.LightningModule, *_: object) -> None:
        """Before every batch: whoever sets the network to training sets these layers too."""
        del trainer
        for layer in pl_module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()


def _module(
    network: HemorrhageNetwork,
    experiment: Experiment,
    loss: LossConfig,
    place: RoundPlace,
    proximal_term: ProximalTerm | None,
) -> TrainingModule:
    optimizer = replace(experiment.optimizer, ema=0.0)
    segment = ScheduleSegment(number=place.number, count=place.rounds)
    return TrainingModule(network, loss, optimizer, segment=segment, proximal_term=proximal_term)


def _proximal_term(network: HemorrhageNetwork, proximal: float, batch_norm: BatchNorm) -> ProximalTerm | None:
    """FedProx' term over what is exchanged: a site's own batch norm has no shared weights to be pulled to."""
    if not proximal:
        return None
    exchanged = set(exchange(network, batch_norm).trained)
    return ProximalTerm((p for name, p in network.named_parameters() if name in exchanged), proximal)


def _fit(trainer: lightning.Trainer, module: TrainingModule, data: SplitDataModule) -> None:
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit as error:  # how Lightning takes Ctrl-C; the command has its own words for it
        raise KeyboardInterrupt from error


def _loss(trainer: lightning.Trainer) -> float:
    """The last epoch's mean without FedProx' term."""
    shown = trainer.callback_metrics
    return float(shown["train/loss"] - shown.get("train/proximal", torch.tensor(0.0)))
