"""Writes raw scores of held-out images, for a training run and for a federated round."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader

from hemoscope.files import atomic_path
from hemoscope.labels import LABELS
from hemoscope.progress import Progress, no_progress
from hemoscope.training.data_splits import SPLIT, DataSplit
from hemoscope.training.dataset import PlainSlices
from hemoscope.training.models.network import HemorrhageNetwork, reading_network

_SCORED_AT_ONCE = 16


def score_files(split: DataSplit) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names of a split's score files and the images that each contains."""
    names = ("scores-validation.csv", "scores-test.csv") if split.name == SPLIT else ("", "scores.csv")
    yield from ((name, images) for name, images in zip(names, (split.validation, split.test), strict=True) if images)


def score_slices(
    network: HemorrhageNetwork,
    slices: PlainSlices,
    path: Path,
    progress: Progress = no_progress,
    *,
    mirror: bool,
) -> None:
    """Write one row per slice: ids, position along the head in mm, and six logits of what is exported.

    ``mirror`` is ``ReadingConfig.mirror``. The file is written atomically. Afterwards the network is on the CPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scored = reading_network(network, mirror=mirror).to(device)
    logits: list[torch.Tensor] = []
    with torch.inference_mode():
        for batch in DataLoader(slices, batch_size=_SCORED_AT_ONCE):
            logits.append(scored(batch.to(device)).logits.cpu())
            progress(sum(map(len, logits)), len(slices))
    network.cpu()
    table = slices.table[["image_id", "patient_id", "series_id", "index"]].assign(position_mm=slices.positions_mm())
    scores = pd.DataFrame(torch.cat(logits).numpy(), columns=[f"logit_{label}" for label in LABELS])
    with atomic_path(path) as draft:
        pd.concat([table, scores], axis=1).to_csv(draft, index=False, float_format="%.6g")
