"""Measures the study head on the out-of-fold scores of a run: unsure studies, and the specificity at a sensitivity.

    python experiments/study_head.py experiments/results/default

Calibration, quantiles and thresholds of a patient come from the other folds of patients (five, ten assignments). The
second table raises the target of the threshold's rule until its cross-fitted sensitivity, over the ten
assignments on average, is at least .92. Seconds.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hemoscope.evaluation.conformal import HIGH, LOW, UNSURE, fit_unsure
from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.training.export import read_run
from hemoscope.training.fitted_levels import cross_fit_level
from hemoscope.training.fitted_settings import established_labels, fit
from hemoscope.training.run_scores import SliceAndStudyScores, out_of_fold_scores

SEEDS = range(10)
TARGETS = (0.9, 0.92, 0.94, 0.96)


def unsure_table(scored: SliceAndStudyScores) -> Table:
    """Count the studies of each set, for each alpha and assignment of patients to folds."""
    found, truth = fit(scored, established_labels(scored)), scored.studies.truth[:, 0]
    shown = consistent(calibrated(scored.studies.logits, found.calibration.study), found.established)
    rule = fit_unsure(shown[:, 0], truth)
    table = Table("alpha", "seed", "low (with hemorrhage)", "unsure (with)", "high (without)")
    for seed in SEEDS:
        points = found.points
        held = cross_fit_level(scored.studies, points.study, found.established, points.urgent, seed=seed, unsure=rule)
        for one, sets in zip(rule.sets if rule else (), held.sets if held else (), strict=True):
            counts = [
                f"{(sets == kind).sum()} ({((sets == kind) & (truth == wanted)).sum()})"
                for kind, wanted in ((LOW, 1), (UNSURE, 1), (HIGH, 0))
            ]
            table.add_row(f"{one.alpha:g}", str(seed), *counts)
    return table


def sensitivity_table(scored: SliceAndStudyScores) -> Table:
    """Give cross-fitted sensitivity and specificity of `any` by study for several targets of the threshold's rule."""
    found, truth = fit(scored, established_labels(scored)), scored.studies.truth[:, 0] == 1
    table = Table("target in sample", "sensitivity (mean, range)", "specificity (mean, range)")
    for target in TARGETS:
        rule = f"sensitivity >= {target:g}"
        points = PerLabel.build(
            lambda label, rule=rule: (
                replace(found.points.study[label], rule=rule) if label is Hemorrhage.ANY else found.points.study[label]
            )
        )
        held = [cross_fit_level(scored.studies, points, found.established, seed=seed) for seed in SEEDS]
        decisions = np.array([one.decisions[:, 0] for one in held if one is not None])
        shares = (decisions[:, truth].mean(axis=1), 1 - decisions[:, ~truth].mean(axis=1))
        table.add_row(f"{target:g}", *(f"{one.mean():.3f} ({one.min():.3f} to {one.max():.3f})" for one in shares))
    return table


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    experiment = read_run(run)
    scored = out_of_fold_scores(run, experiment, StudyRule(extent_mm=experiment.reading.extent_mm))
    for table in (unsure_table(scored), sensitivity_table(scored)):
        Console().print(table)


if __name__ == "__main__":
    main()
