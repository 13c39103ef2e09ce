"""Scores the held-out slices of finished folds again: read otherwise, or by the mean of several runs.

    python experiments/rescore.py RUN [RUN ...] --output RUN [--data CACHE] [--set reading.size=384] [--mean weights]

Without ``--data``, the stored scores of several runs are averaged. With it, the networks of the folds score their
held-out slices again, from the cache that they were trained on: at another reading size or without the mirror image
(``--set reading.size=384``, ``--set reading.mirror=false``), and of several runs by the mean of their scores or by the
mean of their weights. The output is a run folder for ``trials.py add``; of one run, it holds the final weights too, for
``hemoscope export``.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from hemoscope.data.cache import Cache, open_cache
from hemoscope.labels import LABELS
from hemoscope.training.data_splits import FINAL
from hemoscope.training.dataset import PlainSlices
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.training.export import read_network, read_run
from hemoscope.training.models.network import AveragedNetworks, HemorrhageNetwork
from hemoscope.training.run_folder import write_json
from hemoscope.training.scoring import score_slices

_LOGITS = [f"logit_{label}" for label in LABELS]
_COPIED = ("versions.json", "dataset.json", "slices.csv", "strata.csv")


def rescore(
    runs: Sequence[Path], output: Path, *, data: Path | None, changes: Sequence[str] = (), mean: str = "scores"
) -> list[str]:
    """Write the scores of every fold that all runs have; return the names of the folds."""
    experiment = _changed(read_run(runs[0]), changes)
    folds = sorted(path.parent.name for path in runs[0].glob("fold-*/scores.csv"))
    folds = [fold for fold in folds if all((run / fold / "scores.csv").is_file() for run in runs)]
    if data is None and (changes or mean != "scores"):
        msg = "the stored scores can only be averaged. Give the networks their slices: --data CACHE"
        raise SystemExit(msg)
    cache = None if data is None else open_cache(data)
    for fold in folds:
        (output / fold).mkdir(parents=True)
        if cache is None:
            _average_scores([run / fold for run in runs], output / fold)
        else:
            networks = [read_network(run / fold, read_run(run)) for run in runs]
            network = averaged_weights(networks) if mean == "weights" else AveragedNetworks(networks)
            _score(network, experiment, cache, runs[0] / fold, output / fold)
    if len(runs) == 1 and (runs[0] / FINAL).is_dir():
        shutil.copytree(runs[0] / FINAL, output / FINAL)
    for name in _COPIED:
        if (runs[0] / name).is_file():
            shutil.copyfile(runs[0] / name, output / name)
    write_json(output / "experiment.json", experiment.to_json())  # last: the folder is complete
    return folds


def _changed(experiment: Experiment, changes: Sequence[str]) -> Experiment:
    """Apply changes of how the network reads. Raises SystemExit for others, which would need another training."""
    if others := [change for change in changes if not change.startswith("reading.")]:
        msg = f"{others[0]} needs another training. Only the table reading can be changed here"
        raise SystemExit(msg)
    tables = {"reading": {}, **experiment.to_json()}
    for change in changes:
        key, _, text = change.removeprefix("reading.").partition("=")
        tables["reading"][key] = json.loads(text)
    return parse_experiment(tables, where="--set")


def _average_scores(folders: Sequence[Path], output: Path) -> None:
    tables = [pd.read_csv(folder / "scores.csv", dtype={"image_id": str, "patient_id": str}) for folder in folders]
    if any(table["image_id"].tolist() != tables[0]["image_id"].tolist() for table in tables):
        msg = f"{output.name}: the runs scored other slices. Train them on the same data and folds"
        raise SystemExit(msg)
    means = {logit: np.mean([table[logit] for table in tables], axis=0) for logit in _LOGITS}
    tables[0].assign(**means).to_csv(output / "scores.csv", index=False, float_format="%.6g")


def averaged_weights(networks: Sequence[HemorrhageNetwork]) -> HemorrhageNetwork:
    """Return a network of the mean weights and batch statistics."""
    states = [network.state_dict() for network in networks]
    means = {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}
    networks[0].load_state_dict(means)
    return networks[0]


def _score(network: torch.nn.Module, experiment: Experiment, cache: Cache, fold: Path, output: Path) -> None:
    images = pd.read_csv(fold / "scores.csv", dtype={"image_id": str})["image_id"].tolist()
    slices = PlainSlices(cache, images, experiment.reading_preprocessing)
    score_slices(network, slices, output / "scores.csv", mirror=experiment.reading.mirror)


def main() -> None:
    """Write a run folder of scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, metavar="CACHE")
    parser.add_argument("--set", action="append", default=[], metavar="reading.KEY=VALUE")
    parser.add_argument("--mean", choices=("scores", "weights"), default="scores")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    folds = rescore(chosen.runs, chosen.output, data=chosen.data, changes=chosen.set, mean=chosen.mean)
    Console().print(f"{', '.join(folds)} in {chosen.output}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
