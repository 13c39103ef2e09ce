"""Asks how much of the errors of a run is bleeds that CT-ICH outlines and its images hardly show.

    python experiments/visible_bleeds.py cache/ct-ich [experiments/results/default ...]

The lift of an outline is the median HU within less that of the brain in a ring around it (``training/donors.py``), in
the head's crop; that of a patient, the highest of the slices. It knows no model: readers also outline what is
as dense as brain, darker, or known from another scan. For each run, AUROC of `any` out of fold, the slices smoothed as
served, of all patients and without those whose bleeds lift below each limit; and the highest specificity by study among
thresholds that find the asked share of the studies that bleed (in sample: how well the scores can do at best). Lifts
are noisy, and the limits were set after the errors had been looked at: the table explains, it earns nothing.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score
from slice_rule import by_patient, read_scores, smoothed_by_patient
from trials import WIDTH_MM

from hemoscope.data.cache import Cache, open_cache
from hemoscope.progress import no_progress
from hemoscope.training.crops import load_crops
from hemoscope.training.donors import measured_donors
from hemoscope.training.experiment import read_experiment
from hemoscope.training.export import read_run

LIMITS_HU = (None, 0.0, 4.0, 8.0)
SENSITIVITY = 0.92
DEFAULT = Path(__file__).parent / "results" / "default"


def lifts(cache: Cache) -> pd.DataFrame:
    """Return image_id, patient_id, lift_hu of every outlined slice; lift_hu is missing where it cannot be measured."""
    outlined = cache.manifest.loc[cache.manifest["masked"].astype(bool), "image_id"].tolist()
    crops = load_crops(cache, outlined, read_experiment(Path("default"), []).preprocessing, progress=no_progress)
    found = measured_donors(crops, range(len(crops.labels)))
    table = pd.DataFrame({"image_id": one.image_id, "lift_hu": one.lift_hu} for one in found)
    return table.merge(cache.manifest[["image_id", "patient_id"]], on="image_id")


def specificity_at(scores: NDArray[np.float64], bleeds: NDArray[np.bool_], sensitivity: float) -> float:
    """Return the share of the others below the highest threshold that finds this share of those that bleed."""
    needed = int(np.ceil(sensitivity * bleeds.sum() - 1e-9))
    threshold = np.sort(scores[bleeds])[::-1][needed - 1]
    return float((scores[~bleeds] < threshold).mean())


def figures(run: Path, left_out: set[str]) -> list[str]:
    """Return one row of the table."""
    table = read_scores(run)
    table = table[~table["patient_id"].isin(left_out)].reset_index(drop=True)
    extent_mm = read_run(run).reading.extent_mm
    studies = by_patient(table, table[[name for name in table if name.startswith("logit_")]].to_numpy(), extent_mm)
    bleeds = table.groupby("patient_id")["any"].max().to_numpy() == 1
    slices = roc_auc_score(table["any"], smoothed_by_patient(table, WIDTH_MM)[:, 0])
    return [
        f"{bleeds.sum()} of {len(bleeds)}",
        f"{slices:.3f}",
        f"{roc_auc_score(bleeds, studies[:, 0]):.3f}",
        f"{specificity_at(studies[:, 0], bleeds, SENSITIVITY):.2f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("runs", type=Path, nargs="*", default=[DEFAULT], metavar="RUN")
    arguments = parser.parse_args()
    found = lifts(open_cache(arguments.cache))
    highest = found.groupby("patient_id")["lift_hu"].max().sort_values()
    console = Console(width=140)
    patients = Table("patient", "outlined slices", "highest lift, HU", title="The faintest ten")
    for patient, lift in highest.head(10).items():
        patients.add_row(str(patient), str((found["patient_id"] == patient).sum()), f"{lift:.0f}")
    console.print(patients)
    table = Table("run", "left out", "patients that bleed", "by slice", "by patient", "best specificity by study")
    for run in arguments.runs:
        for limit in LIMITS_HU:
            left_out = set() if limit is None else set(highest.index[~(highest >= limit)].astype(str))
            shown = "none" if limit is None else f"below {limit:g} HU: {len(left_out)}"
            table.add_row(run.name, shown, *figures(run, left_out))
    console.print(table)


if __name__ == "__main__":
    main()
