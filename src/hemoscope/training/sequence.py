"""Trains the sequence network on the embeddings of a finished slice network, and scores with both.

Training matches serving: thin slices are grouped to about the nominal spacing, and a slice's refined score is its own
plus its group's correction. The loss is the slice network's, over slices and over series; a series' label is the
highest known label of its slices. The slice network was trained on these slices, so its scores on them are too good;
augmented views (``embeddings``), dropout and a correction that starts at zero keep this network from relying on them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError
from hemoscope.files import atomic_path
from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.probabilities import study_logits
from hemoscope.labels import LABELS
from hemoscope.progress import Progress, StageProgress, no_progress, no_stage_progress
from hemoscope.training.callbacks import KeepCheckpoint, MetricsFile, SeedSteps, StepProgress
from hemoscope.training.checkpoint_io import SafeCheckpointIO, latest_checkpoint
from hemoscope.training.crops import chosen_slices
from hemoscope.training.data_splits import DataSplit
from hemoscope.training.embeddings import EmbeddedSeries, EmbeddingStore
from hemoscope.training.experiment import Experiment
from hemoscope.training.lightning_module import check_loss, check_weights
from hemoscope.training.losses import LossConfig, score_sums
from hemoscope.training.models.checkpoint import load_weights, save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.models.sequence import SequenceConfig, SequenceNetwork
from hemoscope.training.series_batches import (
    SeriesDataset,
    SeriesSample,
    SeriesSampler,
    highest_known,
    label_array,
    padded,
    refined,
    series_sample,
)

WEIGHTS = "sequence.safetensors"
FOLDER = "sequence"

_NAMES = [label.value for label in LABELS]
_AS_SERVED = -1  # only the view used in serving


class SequenceModule(lightning.LightningModule):
    """The sequence network in training."""

    def __init__(self, network: SequenceNetwork, loss: LossConfig) -> None:
        """``loss`` has numeric weights (``LossConfig.resolved``)."""
        super().__init__()
        self.network = network
        self.loss = loss

    def training_step(self, batch: SeriesSample, _: int) -> Tensor:
        """Return the loss of one batch, over its slices and its series."""
        slices, studies = refined(self.network, batch)
        losses = {
            "slices": _mean_loss(slices.flatten(0, 1), batch.labels.flatten(0, 1), self.loss),
            "studies": _mean_loss(studies, highest_known(batch.labels), self.loss),
        }
        total = torch.stack(list(losses.values())).sum()
        check_loss(self, total)
        shown = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict({**shown, "train/loss": total.detach()}, on_step=False, on_epoch=True, batch_size=len(studies))
        return total

    def configure_optimizers(self) -> Any:
        """Build AdamW with one cycle over the whole run."""
        config = self.network.config
        adamw = torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(adamw, max_lr=config.learning_rate, total_steps=steps)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def fit_sequence(
    network: HemorrhageNetwork,
    experiment: Experiment,
    cache: Cache,
    split: DataSplit,
    folder: Path,
    show: StageProgress = no_stage_progress,
) -> SequenceNetwork:
    """Train the sequence network of a split, or load it if it is finished; call in one process only.

    Writes ``sequence.safetensors``, ``embeddings/`` and ``sequence/`` (checkpoint, ``metrics.jsonl``) into ``folder``.
    Series are read whole, but only the labels of ``split.train`` are used.

    Args:
        network: the finished slice network.
        experiment: with a ``sequence``.
        cache: the prepared dataset.
        split: whose ``train`` images are used.
        folder: of the split.
        show: called with the stage, the amount done and the total.

    Raises:
        ConfigError: the experiment has no sequence, or its loss weights cannot be derived from these labels.
        TrainingError: a file of an interrupted run cannot be read.
    """
    config, seed = _config(experiment), experiment.run.seed
    lightning.seed_everything(seed, verbose=False)
    sequence = SequenceNetwork(config, embedding_size=network.embedding_size)
    done = folder / WEIGHTS
    if done.is_file():
        load_weights(sequence, done)
        return sequence.eval()
    table = chosen_slices(cache, split.train)
    store = EmbeddingStore(network, experiment, cache, folder, views=config.views)
    data = SeriesDataset(store, table, config, seed=seed)
    store.fill(data.series_ids, partial(show, f"{split.name}: embedding"))
    module = SequenceModule(sequence, experiment.loss.resolved(label_array(table)))
    _fit(module, data, experiment, folder / FOLDER, partial(show, f"{split.name}: training the sequence"))
    save_weights(sequence, done)
    return sequence.eval()


def score_sequence(
    network: HemorrhageNetwork,
    sequence: SequenceNetwork,
    cache: Cache,
    image_ids: Sequence[str],
    experiment: Experiment,
    path: Path,
    show: Progress = no_progress,
) -> None:
    """Write raw scores of images and of their series, as the bundle would compute them.

    ``path`` (``scores*.csv``) has ``image_id, patient_id, index`` and refined ``logit_*``; beside it ``studies*.csv``
    has, for each series, ``series_id, study_id, patient_id``, ``logit_*`` of the study, and the six labels: the highest
    known label of its slices among the images, empty if none is known. Series are read whole.

    Raises:
        ConfigError: the experiment has no sequence.
        DataError: the cache lacks an image.
    """
    config, table = _config(experiment), chosen_slices(cache, image_ids)
    store = EmbeddingStore(network, experiment, cache, path.parent, views=_AS_SERVED)
    series_ids = sorted(set(table["series_id"].astype(str)))
    store.fill(series_ids, show)
    slices = np.empty((len(table), len(LABELS)))
    studies: list[dict[str, Any]] = []
    for series_id in series_ids:
        series, rows = store.read(series_id), table[table["series_id"] == series_id]
        scores, study = _scored(sequence.eval(), series)
        if config.study == "study_rule":
            rule = StudyRule(extent_mm=experiment.reading.extent_mm)
            study = study_logits(scores, series.positions_mm, rule)
        slices[rows.index] = scores[rows["index"].to_numpy()]
        studies.append({**_study_row(rows), **dict(zip(_columns(), study, strict=True))})
    _write(
        pd.concat([table[["image_id", "patient_id", "index"]], pd.DataFrame(slices, columns=_columns())], axis=1), path
    )
    order = ["series_id", "study_id", "patient_id", *_columns(), *_NAMES]
    _write(pd.DataFrame(studies)[order], path.with_name(path.name.replace("scores", "studies", 1)))


def _mean_loss(logits: Tensor, labels: Tensor, config: LossConfig) -> Tensor:
    """Mean over known labels of this process: only one process trains the sequence network."""
    total, count = score_sums(logits, labels, config)
    return total / count.clamp(min=torch.finfo(total.dtype).tiny)


def _fit(
    module: SequenceModule,
    data: SeriesDataset,
    experiment: Experiment,
    folder: Path,
    progress: Progress,
) -> None:
    config, seed = module.network.config, experiment.run.seed
    checkpoint = folder / "checkpoint" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    loader: DataLoader[SeriesSample] = DataLoader(
        data, batch_size=config.batch_series, sampler=SeriesSampler(len(data), seed=seed), collate_fn=padded
    )
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=1,
        plugins=[SafeCheckpointIO()],
        callbacks=[
            SeedSteps(seed),
            MetricsFile(folder / "metrics.jsonl"),
            StepProgress(progress),
            KeepCheckpoint(checkpoint, steps=0),
        ],
        logger=False,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    last = latest_checkpoint(checkpoint)
    module.train()
    trainer.fit(module, loader, ckpt_path=None if last is None else str(last))
    check_weights(module.network, trainer)
    module.network.to("cpu")


def _scored(sequence: SequenceNetwork, series: EmbeddedSeries) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return refined logits (T, 6) and study logits (6,) of a series, as in serving."""
    nothing = np.full((len(series.positions_mm), len(LABELS)), np.nan, dtype=np.float32)
    with torch.inference_mode():
        slices, study = refined(sequence, padded([series_sample(series, nothing)]))
    return slices[0].numpy().astype(np.float64), study[0].numpy().astype(np.float64)


def _study_row(rows: pd.DataFrame) -> dict[str, Any]:
    ids = {name: str(rows[name].iloc[0]) for name in ("series_id", "study_id", "patient_id")}
    return {**ids, **dict(zip(_NAMES, np.fmax.reduce(label_array(rows), axis=0), strict=True))}


def _columns() -> list[str]:
    return [f"logit_{name}" for name in _NAMES]


def _config(experiment: Experiment) -> SequenceConfig:
    if experiment.sequence is None:
        msg = f"{experiment.name} has no sequence network. Add the table [sequence] to the experiment"
        raise ConfigError(msg)
    return experiment.sequence


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as draft:
        table.to_csv(draft, index=False, float_format="%.6g")
