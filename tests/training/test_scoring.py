"""The scores of held-out slices say where the heat maps of outlined lesions peak."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from hemoscope.data.cache import Cache
from hemoscope.inference.heat_maps import peak_distance
from hemoscope.inference.preprocess import box_on_slice
from hemoscope.training.dataset import PlainSlices
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.network import HemorrhageNetwork, reading_network
from hemoscope.training.scoring import score_slices


def test_scores_say_how_far_from_each_outline_the_map_peaks(
    phantom_cache: Cache, tiny_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    experiment = tiny_experiment()
    torch.manual_seed(0)
    network = HemorrhageNetwork(experiment.network, channels=3, size=32)
    slices = PlainSlices(phantom_cache, list(phantom_cache.manifest["image_id"]), experiment.preprocessing)
    score_slices(network, slices, tmp_path / "scores.csv", mirror=True)
    scores = pd.read_csv(tmp_path / "scores.csv").set_index("image_id")
    reading = reading_network(network, mirror=True)
    outlined = slices.table["masked"].to_numpy()
    assert 0 < outlined.sum() < len(outlined)
    for place, row in slices.table.iterrows():
        image_id, series = row["image_id"], phantom_cache.read_series(row["series_id"])
        if not row["masked"]:
            assert scores.loc[image_id, ["outline_px", "peak_distance_px"]].isna().all()
            continue
        assert series.mask is not None
        drawn, box = series.mask[row["index"]], box_on_slice(series.volume, row["index"], experiment.preprocessing)
        with torch.inference_mode():
            maps = reading(slices[place][None]).maps[0, 0].numpy()
        assert scores["outline_px"][image_id] == drawn.sum()
        assert scores["peak_distance_px"][image_id] == pytest.approx(peak_distance(maps, box, drawn), rel=1e-4)
