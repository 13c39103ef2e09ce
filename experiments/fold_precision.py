"""Compares reduced precision with float32 on slices that a network did not see: each fold's network on its own.

    python experiments/fold_bundles.py RUN --output FOLDER
    python experiments/fold_precision.py CACHE RUN FOLDER --precision bf16

Prints the AUROC of every label by slice, over all folds together, in both precisions, with the 95% interval of their
difference by patient, and the largest changes. ``precision.py`` has the rule of acceptance.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import roc_auc_score

from hemoscope.data.cache import Cache, open_cache
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.engine import Engine
from hemoscope.inference.precision import Precision
from hemoscope.inference.preprocess import model_input
from hemoscope.labels import LABELS

ROUNDS = 1000
Logits = NDArray[np.float32]


def scored(cache: Cache, fold: Path, bundle: Path, precision: Precision) -> tuple[pd.DataFrame, Logits, Logits]:
    """Return the held-out slices of a fold, and their logits (n, 6) in float32 and in another precision."""
    held_out = pd.read_csv(fold / "scores.csv", dtype={"image_id": str, "patient_id": str})
    loaded = load_bundle(bundle)
    engines = [Engine(loaded, threads=1, precision=one) for one in (Precision.FLOAT32, precision)]
    places = cache.manifest.set_index("image_id")
    found: list[list[NDArray[np.float32]]] = [[], []]
    last, volume = None, None
    for image in track(held_out["image_id"], fold.name, transient=True):
        row = places.loc[image]
        if row["series_id"] != last:
            last, volume = row["series_id"], cache.read_series(str(row["series_id"])).volume.canonical
        assert volume is not None
        given = model_input(volume, int(row["index"]), loaded.card.preprocessing)
        for engine, logits in zip(engines, found, strict=True):
            logits.append(engine.run([given]).logits[0])
    return held_out, np.array(found[0]), np.array(found[1])


def differences(
    truth: NDArray[np.float64], exact: Logits, reduced: Logits, patients: NDArray[np.object_]
) -> NDArray[np.float64]:
    """Return the bootstrapped differences in AUROC of one label; rounds with one class alone are left out."""
    rng, found = np.random.default_rng(0), []
    rows = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    for _ in range(ROUNDS):
        drawn = np.concatenate([rows[number] for number in rng.integers(len(rows), size=len(rows))])
        if 0 < truth[drawn].sum() < len(drawn):
            found.append(roc_auc_score(truth[drawn], reduced[drawn]) - roc_auc_score(truth[drawn], exact[drawn]))
    return np.array(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("--precision", type=Precision, default=Precision.BF16)
    chosen = parser.parse_args()
    cache, folds = open_cache(chosen.cache), sorted(path.name for path in chosen.bundles.glob("fold-*"))
    parts = [scored(cache, chosen.run / fold, chosen.bundles / fold, chosen.precision) for fold in folds]
    held_out = pd.concat([part[0] for part in parts])
    truth = pd.read_csv(chosen.run / "slices.csv", dtype={"image_id": str}).set_index("image_id")
    table = Table("label", "float32", chosen.precision.value, "difference", "95%", "largest change of a logit")
    for place, label in enumerate(LABELS):
        labels = truth.loc[held_out["image_id"], label.value].to_numpy(np.float64)
        exact, reduced = (np.concatenate([part[side][:, place] for part in parts]) for side in (1, 2))
        low, high = np.quantile(differences(labels, exact, reduced, held_out["patient_id"].to_numpy()), [0.025, 0.975])
        both = [float(roc_auc_score(labels, one)) for one in (exact, reduced)]
        table.add_row(
            label.value,
            *(f"{one:.4f}" for one in both),
            f"{both[1] - both[0]:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            f"{np.abs(exact - reduced).max():.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
