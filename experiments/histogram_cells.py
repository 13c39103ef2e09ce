"""Counts the cells that hold rows of one patient alone, in histograms of a run's out-of-fold scores at simulated sites.

    python experiments/histogram_cells.py experiments/results/default

The patients are partitioned at random among four sites of 33, 24, 17 and 8, five times; cells hold at least five rows.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from hemoscope.federated.exchange.histograms import CellCounts, Level, count_cells, score_histograms
from hemoscope.inference.calibration import StudyRule
from hemoscope.training.run_scores import LevelScores, read_score_files

_SITES, _LEAST, _SEEDS = (33, 24, 17, 8), 5, range(5)


def of_patients(scores: LevelScores, patients: set[str]) -> LevelScores:
    """Return the rows of some patients."""
    rows = [row for row, patient in enumerate(scores.patients) if patient in patients]
    names = tuple(scores.patients[row] for row in rows)
    return LevelScores(logits=scores.logits[rows], truth=scores.truth[rows], patients=names)


def counted(scores: LevelScores, level: Level, sites: list[set[str]]) -> CellCounts:
    """Return the cells of all sites together."""
    found = CellCounts(0, 0)
    for patients in sites:
        own = of_patients(scores, patients)
        found += count_cells(own, score_histograms(own, level=level, least_cell=_LEAST))
    return found


def main() -> None:
    """Print one row for each partition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training_run", type=Path, metavar="RUN")
    run = parser.parse_args().training_run
    folds = sorted(f"{path.parent.name}/{path.name}" for path in run.glob("fold-*/scores.csv"))
    truth = pd.read_csv(run / "slices.csv", dtype={"image_id": str, "patient_id": str})
    scores = read_score_files(run, folds, truth, StudyRule())
    table = Table("seed", "cells by slice", "of one patient", "cells by study", "of one patient")
    for seed in _SEEDS:
        patients = np.random.default_rng(seed).permutation(sorted(set(scores.slices.patients)))
        sites = [set(site.tolist()) for site in np.split(patients, np.cumsum(_SITES[:-1]))]
        levels: tuple[tuple[LevelScores, Level], ...] = ((scores.slices, "slice"), (scores.studies, "patient"))
        found = [counted(rows, level, sites) for rows, level in levels]
        table.add_row(str(seed), *(str(number) for one in found for number in (one.cells, one.of_one_patient)))
    Console().print(table)


if __name__ == "__main__":
    main()
