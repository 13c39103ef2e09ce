"""Writes raw scores of held-out images, for a training run and for a federated round."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from hemoscope.files import atomic_path
from hemoscope.inference.heat_maps import peak_distance
from hemoscope.labels import LABELS, Hemorrhage
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

    Where an outline is known, ``outline_px`` is its size and ``peak_distance_px`` the distance from it to the peak of
    the map of ``any`` (``heat_maps.peak_distance``), both in pixels as stored; else they are empty.

    ``mirror`` is ``ReadingConfig.mirror``. The file is written atomically. Afterwards the network is on the CPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scored = reading_network(network, mirror=mirror).to(device)
    logits: list[torch.Tensor] = []
    peaks: list[dict[str, float | None]] = []
    with torch.inference_mode():
        for batch in DataLoader(slices, batch_size=_SCORED_AT_ONCE):
            found = scored(batch.to(device))
            logits.append(found.logits.cpu())
            maps = found.maps[:, LABELS.index(Hemorrhage.ANY)].float().cpu().numpy()
            peaks += [_peak(slices, len(peaks) + row, one) for row, one in enumerate(maps)]
            progress(sum(map(len, logits)), len(slices))
    network.cpu()
    table = slices.table[["image_id", "patient_id", "series_id", "index"]].assign(position_mm=slices.positions_mm())
    scores = pd.DataFrame(torch.cat(logits).numpy(), columns=[f"logit_{label}" for label in LABELS])
    places = pd.DataFrame(peaks, columns=["outline_px", "peak_distance_px"]).astype({"outline_px": "Int64"})
    with atomic_path(path) as draft:
        pd.concat([table, scores, places], axis=1).to_csv(draft, index=False, float_format="%.6g")


def _peak(slices: PlainSlices, place: int, values: NDArray[np.float32]) -> dict[str, float | None]:
    """Return the size of a slice's outline and how far from it a map (height, width) peaks."""
    known = slices.outline(place)
    if known is None:
        return {"outline_px": None, "peak_distance_px": None}
    outline, box = known
    return {"outline_px": int(outline.sum()), "peak_distance_px": peak_distance(values, box, outline)}
