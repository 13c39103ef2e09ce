"""Compares trials of a recipe with a baseline on two fixed folds, and keeps one table of everything that was tried.

    python experiments/trials.py add RUN [--name NAME] [--baseline NAME] [--note TEXT]
    python experiments/trials.py table

``add`` copies the record of a run (settings, versions, losses, out-of-fold scores) to experiments/results/trials/NAME
and writes the table again; a run of the same name is replaced. ``table`` writes it from the stored records alone.

The protocol, fixed before the first trial:

- Folds 0 and 1, one seed. A baseline is another record: ``default`` (the model that ships), or a trial that was kept.
- Both sets of scores are of the same images. Patients are resampled within each fold (2,000 rounds).
- The scores of the decision are smoothed over neighboring slices, as the product smooths them, with the fixed width of
  7.5 mm; CT-ICH states no positions: its slices are taken as 5 mm apart. Raw scores stand beside them. By patient, the
  study rule reads the raw scores, or a sequence network gives its own.
- A trial is kept if the 95% interval of the difference in AUROC of `any` by slice lies above 0, or if the average
  precision of a rare type (fewer than ten patients) rises by a quarter while the interval of `any` reaches above 0.
- Every trial stays in the table, kept or not. Intervals are not corrected for the number of trials, and omit how much a
  second training of the same recipe would differ.
"""

import argparse
import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from slice_rule import by_patient, smoothed_by_patient

from hemoscope.errors import ConfigError
from hemoscope.evaluation.established import ESTABLISHED_PATIENTS
from hemoscope.evaluation.paired_bootstrap import PairedScores, paired_bootstrap
from hemoscope.evaluation.paired_tests import PairedDifference
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.training.experiment import parse_experiment

RESULTS = Path(__file__).parent / "results"
TRIALS = RESULTS / "trials"
FOLDS = ("fold-0", "fold-1")
WIDTH_MM = 7.5
ROUNDS = 2000
RISE = 1.25
LEVELS = ("slice, smoothed", "slice, raw", "patient")
_COPIED = ("scores.csv", "studies.csv", "part.json", "metrics.jsonl")
_IDS = {"image_id": str, "patient_id": str}
_NAMES = [label.value for label in LABELS]
_LOGITS = [f"logit_{name}" for name in _NAMES]
# Settings that do not change what is learned or scored.
_ASIDE = ("name", "description", "run.seed", "run.workers", "run.crops", "run.checkpoint_steps")
_HEADING = f"""\
Trials on {" and ".join(FOLDS)}. AUROC: the baseline's, the trial's, and the paired difference with its 95% interval by
patient; AP: average precision by slice, the baseline's and the trial's. Scores by slice are smoothed over neighboring
slices unless *raw*; *types* is the mean over the five. All intervals are in table.json. The rule, fixed before the
first trial, and its limits stand in experiments/trials.py, which writes this table."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A trial beside its baseline, on the folds that both have.

    ``levels`` are the scores by ``LEVELS``; ``rare`` the types with too few patients to be established.
    """

    name: str
    baseline: str
    note: str
    folds: tuple[str, ...]
    seed: int
    minutes: float | None
    changes: dict[str, str]
    revision: str | None
    levels: dict[str, PairedScores]
    rare: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Whether the trial is kept, by the rule above, and why."""
        if self.folds != FOLDS:
            return f"open: {', '.join(self.folds)} alone"
        decisive = self.levels[LEVELS[0]].labels
        found = decisive["any"]["auroc"]
        if found is None or found.low is None or found.high is None:
            return "open: no interval of any"
        if found.low > 0:
            return "kept: any"
        risen = [name for name in self.rare if _has_risen(decisive[name]["average_precision"])]
        return f"kept: {', '.join(risen)}" if risen and found.high > 0 else "not kept"


def _has_risen(found: PairedDifference | None) -> bool:
    return found is not None and found.first >= RISE * found.second


def add(run: Path, name: str, *, baseline: str, note: str, trials: Path = TRIALS) -> None:
    """Copy the record of a run. Raises SystemExit if it cannot be compared with the baseline."""
    folds = [fold for fold in FOLDS if (run / fold / "scores.csv").is_file()]
    if not (run / "experiment.json").is_file() or not folds:
        msg = f"{run.name} is not a run with scores of {' or '.join(FOLDS)}. Train it: --only fold-0 --only fold-1"
        raise SystemExit(msg)
    _check_same_images(run, record(baseline, trials), folds)
    folder = trials / name
    if run.resolve() == folder.resolve():
        msg = f"{name} is a trial already. Write the table again: trials.py table"
        raise SystemExit(msg)
    shutil.rmtree(folder, ignore_errors=True)
    for part in sorted(path.parent.name for path in run.glob("fold-*/scores.csv")):
        (folder / part).mkdir(parents=True)
        for file in _COPIED:
            if (run / part / file).is_file():
                shutil.copyfile(run / part / file, folder / part / file)
    for file in ("experiment.json", "versions.json"):
        shutil.copyfile(run / file, folder / file)
    (folder / "trial.json").write_text(json.dumps({"baseline": baseline, "note": note}, indent=1) + "\n")


def record(name: str, trials: Path = TRIALS) -> Path:
    """Return the folder of a record: a trial, or another one in experiments/results."""
    found = next((path for path in (trials / name, RESULTS / name) if (path / "experiment.json").is_file()), None)
    if found is None:
        msg = f"no record is named {name}. There are: {', '.join(_names(trials)) or 'no trials yet'}"
        raise SystemExit(msg)
    return found


def _names(trials: Path) -> list[str]:
    return sorted(path.parent.name for path in trials.glob("*/trial.json"))


def _check_same_images(run: Path, baseline: Path, folds: list[str]) -> None:
    for fold in folds:
        known = baseline / fold / "scores.csv"
        if known.is_file() and set(_scores(known)["image_id"]) != set(_scores(run / fold / "scores.csv")["image_id"]):
            msg = f"{run.name}/{fold} scored other images than {baseline.name}. Train on the same data and folds"
            raise SystemExit(msg)


def _scores(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=_IDS)


def compare(name: str, trials: Path = TRIALS) -> Compared:
    """Compare a stored trial with its baseline."""
    folder = record(name, trials)
    stored = json.loads((folder / "trial.json").read_text())
    both = folder, record(stored["baseline"], trials)
    folds = tuple(fold for fold in FOLDS if all((path / fold / "scores.csv").is_file() for path in both))
    truth = pd.read_csv(RESULTS / "default" / "slices.csv", dtype=_IDS)
    settings = [json.loads((path / "experiment.json").read_text()) for path in both]
    extents = [one["reading"]["extent_mm"] for one in settings]
    known = truth.groupby("patient_id")[_NAMES].max().sum()
    return Compared(
        name=name,
        baseline=stored["baseline"],
        note=stored["note"],
        folds=folds,
        seed=settings[0]["run"]["seed"],
        minutes=_minutes(folder, folds),
        changes=changes(*settings),
        revision=json.loads((folder / "versions.json").read_text()).get("revision"),
        levels=_levels(
            [_table(path, folds, truth) for path in both], [_studies(path, folds) for path in both], extents
        ),
        rare=tuple(label.value for label in SUBTYPES if known[label.value] < ESTABLISHED_PATIENTS),
    )


def _levels(
    tables: list[pd.DataFrame], own: list[pd.DataFrame | None], extents_mm: list[float]
) -> dict[str, PairedScores]:
    """Compare two tables of the same slices at each level; ``own`` are study scores of sequence networks."""
    slices = tables[0][_NAMES].to_numpy(dtype=np.float64)
    owners = tables[0]["patient_id"].tolist(), tables[0]["fold"].tolist()
    of_patients = tables[0].groupby("patient_id")[[*_NAMES, "fold"]].max()
    patients = of_patients[_NAMES].to_numpy(dtype=np.float64)
    smooth, raw = ([smoothed_by_patient(table, width) for table in tables] for width in (WIDTH_MM, None))
    ruled = [by_patient(table, one, extent) for table, one, extent in zip(tables, raw, extents_mm, strict=True)]
    studies = [
        one if found is None else found.loc[of_patients.index, _LOGITS].to_numpy(dtype=np.float64)
        for one, found in zip(ruled, own, strict=True)
    ]
    found = (
        paired_bootstrap(*smooth, slices, *owners, rounds=ROUNDS),
        paired_bootstrap(*raw, slices, *owners, rounds=ROUNDS),
        paired_bootstrap(*studies, patients, list(of_patients.index), of_patients["fold"].tolist(), rounds=ROUNDS),
    )
    return dict(zip(LEVELS, found, strict=True))


def _table(folder: Path, folds: tuple[str, ...], truth: pd.DataFrame) -> pd.DataFrame:
    """Return one row a slice: patient, fold, raw scores and labels; slices of a patient from feet to head."""
    read = [_scores(folder / fold / "scores.csv").assign(fold=fold) for fold in folds]
    chosen = pd.concat(read)[["image_id", "fold", *_LOGITS]]
    joined = chosen.merge(truth, on="image_id", validate="one_to_one")
    return joined.sort_values(["patient_id", "image_id"], ignore_index=True)


def _studies(folder: Path, folds: tuple[str, ...]) -> pd.DataFrame | None:
    """Return the study scores that a sequence network wrote, by patient; None without one."""
    paths = [folder / fold / "studies.csv" for fold in folds]
    return pd.concat([_scores(path) for path in paths]).set_index("patient_id") if paths[0].is_file() else None


def _minutes(folder: Path, folds: tuple[str, ...]) -> float | None:
    """Return the mean time of training, in minutes a fold; None if a fold does not state it."""
    parts = [folder / fold / "part.json" for fold in folds]
    if not all(part.is_file() for part in parts):
        return None
    return float(np.mean([json.loads(part.read_text())["seconds"] for part in parts])) / 60


def changes(trial: dict[str, Any], baseline: dict[str, Any]) -> dict[str, str]:
    """Return the settings that differ from the baseline's; settings that a record lacks have today's defaults."""
    ours, theirs = _settled(trial), _settled(baseline)
    absent = object()  # no setting: a table that is switched off is null, and has no settings
    shown = [name for name in (*ours, *(name for name in theirs if name not in ours)) if not _replaced(name, ours)]
    names = [name for name in shown if name not in _ASIDE and ours.get(name, absent) != theirs.get(name, absent)]
    return {name: json.dumps(ours.get(name)) for name in names}


def _replaced(name: str, ours: dict[str, Any]) -> bool:
    """Whether the trial has no table for this setting of the baseline, or has a table where the baseline has none."""
    parts = name.split(".")
    above = (".".join(parts[:count]) for count in range(1, len(parts)))
    return name not in ours and (any(one in ours for one in above) or any(one.startswith(f"{name}.") for one in ours))


def _settled(record: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(ConfigError):  # of a revision with other settings
        record = parse_experiment(record, where="experiment.json").to_json()
    return _flat(json.loads(json.dumps(record)))


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def as_json(one: Compared) -> dict[str, Any]:
    """Return all figures of a trial."""

    def of(scores: PairedScores) -> dict[str, Any]:
        named = {**{label.value: scores.labels[label] for label in LABELS}, "types": scores.types}
        return {name: {metric: _figures(found) for metric, found in both.items()} for name, both in named.items()}

    minutes = None if one.minutes is None else round(one.minutes, 1)
    return {
        "name": one.name,
        "verdict": one.verdict,
        "baseline": one.baseline,
        "note": one.note,
        "changes": one.changes,
        "seed": one.seed,
        "folds": list(one.folds),
        "minutes_a_fold": minutes,
        "revision": one.revision,
        "levels": {level: of(scores) for level, scores in one.levels.items()},
    }


def _figures(found: PairedDifference | None) -> dict[str, float] | None:
    if found is None or found.low is None or found.high is None:
        return None
    figures = {"trial": found.first, "baseline": found.second, "low": found.low, "high": found.high}
    return {name: round(value, 4) for name, value in figures.items()}


def as_markdown(documents: list[dict[str, Any]]) -> str:
    """Return the table of all trials."""
    columns = ["trial", "against", "changed", "seed", "minutes a fold", "`any` by slice", "raw", "`any` by patient"]
    columns += ["types by slice", *(f"AP {label.value}" for label in SUBTYPES), "verdict"]
    lines = [f"{_HEADING}\n", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for one in documents:
        smooth, raw, patient = (one["levels"][level] for level in LEVELS)
        changed = ", ".join(f"{name} {value}" for name, value in one["changes"].items())
        cells = [
            one["name"],
            one["baseline"],
            "; ".join(filter(None, [changed, one["note"]])) or "nothing",
            str(one["seed"]),
            "-" if one["minutes_a_fold"] is None else f"{one['minutes_a_fold']:g}",
            *(_cell(level["any"]["auroc"]) for level in (smooth, raw, patient)),
            _cell(smooth["types"]["auroc"]),
            *(_pair(smooth[label.value]["average_precision"]) for label in SUBTYPES),
            one["verdict"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _pair(figures: dict[str, float] | None) -> str:
    return "-" if figures is None else f"{figures['baseline']:.3f}, {figures['trial']:.3f}"


def _cell(figures: dict[str, float] | None) -> str:
    if figures is None:
        return "-"
    change = figures["trial"] - figures["baseline"]
    return f"{_pair(figures)}: {change:+.3f} ({figures['low']:+.3f} to {figures['high']:+.3f})"


def write_table(trials: Path = TRIALS) -> str:
    """Write table.json and table.md from the stored records; return the Markdown."""
    documents = [as_json(compare(name, trials)) for name in _names(trials)]
    text = as_markdown(documents)
    (trials / "table.json").write_text(json.dumps(documents, indent=1) + "\n")
    (trials / "table.md").write_text(text)
    return text


def main() -> None:
    """Add a trial or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add")
    adding.add_argument("run", type=Path, help="folder of the run, or the record of one")
    adding.add_argument("--name", help="of the trial; the run's folder by default")
    adding.add_argument("--baseline", default="default")
    adding.add_argument("--note", default="", help="what the settings do not say, such as a change of the code")
    commands.add_parser("table")
    chosen = parser.parse_args()
    if chosen.command == "add":
        run = chosen.run.resolve()
        add(run, chosen.name or run.name, baseline=chosen.baseline, note=chosen.note)
    Console().print(write_table(), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
