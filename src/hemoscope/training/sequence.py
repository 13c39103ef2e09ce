"""Training the sequence network on the embeddings of a finished slice network, and scoring with both.

It is trained as it serves: thin slices share a place of about the nominal spacing, and a slice's refined score is its
own plus the correction of its place. The loss is that of the slice network, over slices and over series, whose label is
the highest that is known of its slices. Against learning to trust a slice network that has seen these slices: views of
every series (``embeddings``), dropout, and a correction that starts at zero.
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
from hemoscope.training.losses import LossConfig, score_sums
from hemoscope.training.models.checkpoint import load_weights, save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.models.sequence import SequenceConfig, SequenceNetwork
from hemoscope.training.series import (
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
_AS_SERVED = -1  # no view but that of serving


class SequenceModule(lightning.LightningModule):
    """The sequence network in training."""

    def __init__(self, network: SequenceNetwork, loss: LossConfig) -> None:
        """``loss`` holds numbers (``LossConfig.resolved``)."""
        super().__init__()
        self.network = network
        self.loss = loss

    def training_step(self, batch: SeriesSample, _: int) -> Tensor:
        """Loss of one batch: of its slices, and of its series."""
        slices, studies = refined(self.network, batch)
        losses = {
            "slices": _mean_loss(slices.flatten(0, 1), batch.labels.flatten(0, 1), self.loss),
            "studies": _mean_loss(studies, highest_known(batch.labels), self.loss),
        }
        total = torch.stack(list(losses.values())).sum()
        shown = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict({**shown, "train/loss": total.detach()}, on_step=False, on_epoch=True, batch_size=len(studies))
        return total

    def configure_optimizers(self) -> Any:
        """AdamW and one cycle over the whole run."""
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
    """Train the sequence network of a part, or load it where that is done; one process alone.

    ``folder``, the part's, gets ``sequence.safetensors``, ``embeddings/`` and ``sequence/`` with the checkpoint and
    ``metrics.jsonl``. Series are read whole, but learn from the labels of ``split.train`` alone.

    Args:
        network: the finished slice network.
        experiment: with a ``sequence``.
        cache: the prepared dataset.
        split: the network is trained on its ``train`` images.
        folder: of the part.
        show: told the stage, how much of it is done, and how much there is.

    Raises:
        ConfigError: the experiment has no sequence, or its loss cannot be derived from these labels.
        TrainingError: a file of an earlier start cannot be read.
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
    """Write raw scores of images as the bundle would serve them, and of their series.

    ``path`` (``scores*.csv``) gets ``image_id, patient_id, index`` and ``logit_*``, refined; beside it ``studies*.csv``
    gets, for each series, ``series_id, study_id, patient_id``, ``logit_*`` as the card's study scores, and the six
    labels: the highest known of its slices among the images, empty where none is known. Series are read whole.

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
    """The mean over known labels: of this process alone, since no other trains the sequence."""
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
    module.network.to("cpu")


def _scored(sequence: SequenceNetwork, series: EmbeddedSeries) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Refined logits (T, 6) and study logits (6,) of a series as served."""
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
        msg = f"{experiment.name} has no sequence. Add the table [sequence] to the experiment"
        raise ConfigError(msg)
    return experiment.sequence


def _write(table: pd.DataFrame, path: Path) -> None:
    part = path.with_suffix(".part")
    table.to_csv(part, index=False, float_format="%.6g")
    part.replace(path)
