"""Measures what a thin series costs: CQ500-CT-0 (238 slices of .625 mm) by the rule of the default bundle.

Compared with a series of 5 mm of the same head, made by averaging its slices, and with scoring every slice. Processor
time from a decoded volume to probabilities, on two threads; decoding is not part of it. Real head CT is read from
HEMOSCOPE_DATA, else from ``../shared/data`` beside the repository.

    .venv/bin/python benchmarks/bench.py thin_series
"""

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rows import Row, quick

from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.readable_series import read_best_series
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.predictor import Predictor
from hemoscope.volume import HounsfieldVolume

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS = quick(5)
THICK_MM = 5.0


def rows() -> Iterator[Row]:
    """Read the three of them in turn, five times."""
    folder = Path(os.environ.get("HEMOSCOPE_DATA", REPOSITORY.parent / "shared" / "data")) / "cq500-series"
    if not folder.is_dir():
        sys.stderr.write("no cq500-series: set HEMOSCOPE_DATA to the folder that holds it\n")
        return
    bundle = load_bundle(None)
    ours = Predictor(bundle, threads=2)
    every = Predictor(dataclasses.replace(bundle, card=dataclasses.replace(bundle.card, thin_series=None)), threads=2)
    thin = thin_volume(folder)
    thick = thickened(thin, round(THICK_MM / np.diff(thin.positions_mm).min()))
    scored = int(ours.probabilities(thin)[0].scored.sum())
    work = {"ours": (ours, thin), "thick": (ours, thick), "every": (every, thin)}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(RUNS):
        for name, (predictor, volume) in work.items():
            start = time.process_time()
            predictor.probabilities(volume)
            seconds[name].append(time.process_time() - start)
    measured, of_thick, of_every = (statistics.median(seconds[name]) for name in work)
    each = of_every / len(thin)
    limit = f"{scored} of {len(thin)} slices scored, {each:.3f} s each: {scored * each:.1f} s"
    for beside, compared, bar in ((f"{len(thick)} slices of 5 mm", of_thick, 2.0), ("every slice", of_every, 0.40)):
        yield Row(
            what="CQ500-CT-0, 238 slices of .625 mm, volume to probabilities",
            limit=limit,
            measured=measured,
            beside=beside,
            compared=compared,
            unit="CPU s",
            bar=bar,
            better="at most",
        )


def thin_volume(folder: Path) -> HounsfieldVolume:
    """Decode the series."""
    archive = open_archive([folder])
    decoded = read_best_series(archive, archive.studies[0]).decoded
    assert decoded is not None
    return decoded.volume


def thickened(volume: HounsfieldVolume, factor: int) -> HounsfieldVolume:
    """Average every ``factor`` slices to one, as a thick reconstruction of the same head."""
    count = len(volume) // factor
    kept = volume.hounsfield[: count * factor].reshape(count, factor, *volume.hounsfield.shape[1:])
    means = np.stack([np.rint(slices.mean(axis=0)).astype(np.int16) for slices in kept])
    positions = np.array(volume.positions_mm[: count * factor], dtype=np.float64).reshape(count, factor).mean(axis=1)
    spacing_mm = float(np.median(np.diff(positions)))
    return dataclasses.replace(
        volume,
        hounsfield=means,
        spacing_mm=(spacing_mm, *volume.spacing_mm[1:]),
        positions_mm=tuple(positions.tolist()),
        origins_mm=None,
        thickness_mm=(spacing_mm,) * count,
    )
