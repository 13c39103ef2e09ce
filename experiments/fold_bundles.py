"""Makes a bundle of each finished fold of a run, of two at least, to try a trial's networks as the product runs them.

    python experiments/fold_bundles.py RUN --output FOLDER

The bundle of a fold holds its network; calibration and thresholds are fitted on the held-out scores of all finished
folds. Its own held-out patients are among them: good for comparing trials by one rule, not for a card.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import pandas as pd
from rich.console import Console

from hemoscope.training.data_splits import FINAL
from hemoscope.training.export import export_run
from hemoscope.training.run_folder import write_json


def finished_folds(run: Path) -> list[str]:
    """Return the names of the folds that have weights and scores."""
    return sorted(
        fold.name
        for fold in run.glob("fold-*")
        if (fold / "weights.safetensors").is_file() and (fold / "scores.csv").is_file()
    )


def write_bundles(run: Path, output: Path) -> list[Path]:
    """Write FOLDER/fold-N for each finished fold, and return them. Raises SystemExit if they are not the first ones."""
    folds = finished_folds(run)
    if len(folds) < 2 or folds != [f"fold-{number}" for number in range(len(folds))]:
        raise SystemExit(f"{run.name}: finished folds are {folds or 'none'}. Finish fold-0 and fold-1 at least")
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / run.name
        shutil.copytree(run, whole, ignore=shutil.ignore_patterns("checkpoint", "tensorboard", "fold-*", FINAL))
        experiment = json.loads((run / "experiment.json").read_text(encoding="utf-8"))
        experiment["run"]["folds"] = len(folds)
        write_json(whole / "experiment.json", experiment)
        seen = set[str]()
        for fold in folds:
            (whole / fold).mkdir()
            shutil.copyfile(run / fold / "scores.csv", whole / fold / "scores.csv")
            seen |= set(pd.read_csv(run / fold / "scores.csv", dtype={"image_id": str})["image_id"])
        slices = pd.read_csv(run / "slices.csv", dtype=str)
        slices[slices["image_id"].isin(seen)].to_csv(whole / "slices.csv", index=False)
        (whole / FINAL).mkdir()
        for fold in folds:
            shutil.copyfile(run / fold / "weights.safetensors", whole / FINAL / "weights.safetensors")
            export_run(whole, output / fold, version=f"{run.name} {fold}")
    return [output / fold for fold in folds]


def main() -> None:
    """Write the bundles and print their folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    for bundle in write_bundles(chosen.run, chosen.output):
        Console().print(str(bundle), markup=False, highlight=False)


if __name__ == "__main__":
    main()
