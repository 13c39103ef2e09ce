"""Gives the records of the federated comparison their intervals in closed form, from the scores that were kept.

    python experiments/federated_intervals.py --output FOLDER

The first records had percentile bootstrap intervals, which hold the true AUROC too rarely if few patients are positive.
Scores were kept of the federated arms and of pooled training: they are measured anew, as ``hemoscope federated
compare`` does now. Of the sites alone no scores were kept. Their values stay, with the bootstrap interval where at
least five patients have the label, and without one elsewhere. So do the values on each site's own patients, without
intervals.
Writes ``report.json``, ``table.md`` and the pictures of both comparisons.
"""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from rich.console import Console

from hemoscope.evaluation.intervals import CONFIDENCE, FEWEST_PATIENTS
from hemoscope.federated.simulation.arm_scores import LEVELS, read_arms
from hemoscope.federated.simulation.comparison import measure
from hemoscope.federated.simulation.comparison_page import write_comparison
from hemoscope.inference.calibration import StudyRule

RESULTS = Path(__file__).parent / "results"
INTERVALS = {
    "method": "DeLong, Obuchowski, Student's t; with sites alone: percentile bootstrap, their scores were not kept",
    "unit": "patient",
    "confidence": CONFIDENCE,
    "fewest_patients_of_differences": FEWEST_PATIENTS,
}


def remeasured(name: str, results: Path = RESULTS) -> dict[str, Any]:
    """Return the report of ``results/name`` with every interval in closed form that the kept scores allow."""
    run, record = results / "federated", json.loads((results / name / "report.json").read_text())
    noisy = sorted(path.name for path in (results / name).glob("noise-*"))
    extent_mm = json.loads((run / "experiment.json").read_text())["reading"]["extent_mm"]
    with TemporaryDirectory() as folder:
        folders = {"federated": run, **{one: Path(folder) / one for one in noisy}, "pooled": run / "pooled"}
        for one in noisy:  # their only part lies in the folder of the run
            (Path(folder) / one / "fold-0").mkdir(parents=True)
            shutil.copy(results / name / one / "scores.csv", Path(folder) / one / "fold-0")
        truth = pd.read_csv(run / "slices.csv", dtype={"image_id": str, "patient_id": str})
        levels = read_arms(folders, record["parts"], truth, StudyRule(extent_mm=extent_mm))
    found = {level: measure(levels[level], ("federated", *noisy)) for level in LEVELS}
    for level, labels in found.items():
        for label, one in labels.items():
            kept = record["levels"][level][label]
            record["levels"][level][label] = one | {kind: _merged(one, kept, kind) for kind in ("arms", "differences")}
    for site in record["sites"]:
        for labels in site["levels"].values():
            for one in labels.values():
                one["arms"] = {arm: _without_interval(values) for arm, values in one["arms"].items()}
    record.pop("bootstrap", None)
    return {"parts": record.pop("parts"), "intervals": INTERVALS, **record}


def _merged(one: dict[str, Any], kept: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return what was measured anew, and the rest as it was kept, in the order of the record."""
    enough = one["positive_patients"] >= FEWEST_PATIENTS
    rest = {name: values if enough else _without_interval(values) for name, values in kept[kind].items()}
    return rest | one[kind]


def _without_interval(values: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else {"value": values["value"], "low": None, "high": None}


def main() -> None:
    """Write both records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    for name in ("federated", "federated-private"):
        for path in write_comparison(remeasured(name), output / name):
            Console().print(path)


if __name__ == "__main__":
    main()
