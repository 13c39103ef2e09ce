"""Federated beside pooled and beside each site alone, and beside other federations over the same sites.

Every arm scored the same held-out patients of all sites, each by a network that never saw them. Their AUROC and the
differences between arms have intervals in closed form by patient (:mod:`hemoscope.evaluation.paired`), at the level of
slices and of studies, over all patients and over each site's own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, FederationError
from hemoscope.evaluation.intervals import CONFIDENCE, FEWEST_PATIENTS
from hemoscope.evaluation.paired import PairedAuroc, paired_auroc
from hemoscope.federated.server.checkpoints import ROUND_LOG
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.settings.site import Site
from hemoscope.federated.simulation.arm_scores import LEVELS, ArmScores, read_arms
from hemoscope.federated.simulation.arms import ALONE, POOLED, RECORD, ArmTask, arm_folder, learners_of, train_arms
from hemoscope.federated.simulation.simulated_sites import (
    COUNTS,
    chosen_parts,
    parts_of_sites,
    score_file,
    simulated_sites,
)
from hemoscope.federated.simulation.simulation import DONE
from hemoscope.inference.calibration import StudyRule
from hemoscope.labels import LABELS
from hemoscope.progress import StageProgress, no_stage_progress
from hemoscope.training.run_config import NAMED_INITS

FEDERATED, SETTINGS, REPORT = "federated", "federation.json", "report.json"
# Fixed before anything was trained: how far federated training may stand below pooled training.
MARGIN = 0.02
MEAN_OF_ALONE = f"mean of {ALONE}"
Weights = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How the other arms are trained.

    Attributes:
        kinds: ``pooled``, ``alone``, both or neither.
        init: the file of initial weights, where the federation began with one.
        workers: trainings side by side, and ``threads`` of PyTorch for each.
        threads: see ``workers``.
    """

    kinds: tuple[str, ...] = (POOLED, ALONE)
    init: str | None = None
    workers: int = 1
    threads: int = 1


def compare(
    run: Path,
    cache: Cache,
    output: Path,
    *,
    budget: Budget,
    others: Mapping[str, Path] | None = None,
    only: Sequence[str] = (),
    show: StageProgress = no_stage_progress,
) -> dict[str, Any]:
    """Train the arms that are not trained yet, measure all of them, and return the report as plain values.

    Args:
        run: of the simulated federation.
        cache: that it was simulated on.
        output: folder of the comparison; ``arms/ARM/PART`` in it are the other arms' trainings.
        budget: which arms, and how they are trained.
        others: more federated runs over the same sites, by the name they get in the report.
        only: parts; none means all that the run has scored.
        show: called with the stage, how much of it is done, and how much there is.

    Raises:
        FederationError: the run is not finished, another run has other sites or folds, or a name stands twice.
        ConfigError: no such arm, or the initial weights are not available.
    """
    federation, sites = read_run(run, init=budget.init), simulated_sites(run)
    parts = _scored_parts(federation, run, sites, only)
    learners = learners_of(budget.kinds, len(sites))
    runs = {FEDERATED: run, **(others or {})}
    _check_others(run, others or {}, learners)
    tasks = _tasks(federation, cache, run, output, parts, learners, threads=budget.threads)
    train_arms(tasks, workers=budget.workers, show=show)
    folders = {**runs, **{arm: arm_folder(output, arm) for arm in learners}}
    rule = StudyRule(extent_mm=federation.experiment.reading.extent_mm)
    levels = read_arms(folders, parts, cache.manifest, rule)
    return {
        "parts": list(parts),
        "intervals": {
            "method": "DeLong, Obuchowski, Student's t",
            "unit": "patient",
            "confidence": CONFIDENCE,
            "fewest_patients_of_differences": FEWEST_PATIENTS,
        },
        "margin": MARGIN,
        "budget": {"rounds": federation.rounds, "local_epochs": federation.local_epochs, "epochs": federation.epochs},
        "arms": {arm: _facts(arm, folder, parts) for arm, folder in folders.items()},
        "levels": {level: measure(levels[level], tuple(runs)) for level in LEVELS},
        "sites": [_of_site(site, levels) for site in sites],
        "curves": {arm: {part: _curve(folder / part) for part in parts} for arm, folder in runs.items()},
    }


def _tasks(
    federation: Federation,
    cache: Cache,
    run: Path,
    output: Path,
    parts: Sequence[str],
    learners: Mapping[str, tuple[int, ...]],
    *,
    threads: int,
) -> list[ArmTask]:
    """Every arm's training of every part."""
    return [
        ArmTask(
            arm=arm,
            part=part,
            learners=numbers,
            federation=federation.to_local_json(),
            data=cache.folder.absolute(),
            run=run.absolute(),
            output=output.absolute(),
            threads=threads,
        )
        for part in parts
        for arm, numbers in learners.items()
    ]


def read_run(run: Path, *, init: str | None = None) -> Federation:
    """The federation that a run records.

    Args:
        run: its folder.
        init: the file of initial weights: a record names it without its folder.

    Raises:
        FederationError: no run.
        ConfigError: it began with a file that is not given, or the record is damaged.
    """
    path = run / SETTINGS
    if not path.is_file():
        msg = f"{run.name} holds no {SETTINGS}. Give a folder that hemoscope federated simulate wrote"
        raise FederationError(msg)
    record = json.loads(path.read_text())
    begun = record["experiment"]["run"]["init"]
    if init is not None:
        record["experiment"]["run"]["init"] = init
    elif begun not in NAMED_INITS:
        msg = f"{run.name} began with the weights {begun}. Say where they are: --init PATH"
        raise ConfigError(msg)
    return parse_federation(record, where=path.name)


def measure(scores: ArmScores, federated: Sequence[str]) -> dict[str, Any]:
    """AUROC of every arm and the differences that the report is about, by label.

    Args:
        scores: of one level.
        federated: names of the federated arms among them.
    """
    wanted = differences(tuple(scores.logits), federated)
    return {label.value: _of_label(scores, k, wanted) for k, label in enumerate(LABELS)}


def differences(arms: Sequence[str], federated: Sequence[str]) -> dict[str, Weights]:
    """What is taken from what, by its name in the report: each federated arm less each other, and less their mean."""
    alone = _alone(arms)
    found: dict[str, Weights] = {}
    for name in federated:
        if POOLED in arms:
            found[f"{name} - {POOLED}"] = {name: 1.0, POOLED: -1.0}
        if alone:
            found[f"{name} - {MEAN_OF_ALONE}"] = {name: 1.0} | dict.fromkeys(alone, -1.0 / len(alone))
        found |= {f"{name} - {arm}": {name: 1.0, arm: -1.0} for arm in alone}
        if name != FEDERATED and FEDERATED in federated:
            found[f"{name} - {FEDERATED}"] = {name: 1.0, FEDERATED: -1.0}
    return found


def _alone(arms: Sequence[str]) -> list[str]:
    return [arm for arm in arms if arm.startswith(f"{ALONE}-")]


def _of_label(scores: ArmScores, column: int, wanted: Mapping[str, Weights]) -> dict[str, Any]:
    truth = scores.truth[:, column]
    paired = paired_auroc({arm: logits[:, column] for arm, logits in scores.logits.items()}, truth, scores.patients)
    single: dict[str, Weights] = {arm: {arm: 1.0} for arm in scores.logits}
    if alone := _alone(tuple(scores.logits)):
        single[MEAN_OF_ALONE] = dict.fromkeys(alone, 1.0 / len(alone))
    positive = {patient for patient, known in zip(scores.patients, truth, strict=True) if known == 1}
    return {
        "rows": int(np.isfinite(truth).sum()),
        "positive_rows": int((truth == 1).sum()),
        "patients": len(set(scores.patients)),
        "positive_patients": len(positive),
        "arms": _intervals(paired, single),
        "differences": _intervals(paired, wanted),
    }


def _intervals(paired: PairedAuroc, wanted: Mapping[str, Weights]) -> dict[str, dict[str, float | None] | None]:
    return {name: _plain(paired, weights) for name, weights in wanted.items()}


def _plain(paired: PairedAuroc, weights: Weights) -> dict[str, float | None] | None:
    """A value with its interval: None where it is not defined, ``low`` and ``high`` None where it has no interval."""
    value, found = paired.value(weights), paired.interval(weights)
    if not np.isfinite(value):
        return None
    ends = (None, None) if found is None else (round(found.low, 6), round(found.high, 6))
    return {"value": round(value, 6), "low": ends[0], "high": ends[1]}


def _of_site(site: Site, levels: Mapping[str, ArmScores]) -> dict[str, Any]:
    """Every arm on one site's own patients."""
    patients = frozenset(site.cache().manifest["patient_id"].astype(str))
    own = {level: scores.of(patients) for level, scores in levels.items()}
    return {"site": site.name, "levels": {level: measure(scores, ()) for level, scores in own.items()}}


def _scored_parts(federation: Federation, run: Path, sites: Sequence[Site], only: Sequence[str]) -> tuple[str, ...]:
    """Parts that held something out and are done."""
    own = parts_of_sites(federation, sites)
    held_out = [name for name in chosen_parts(own, only) if any(part.test for part in own[name])]
    done = tuple(name for name in held_out if (run / name / score_file(name)).is_file())
    if not done or (only and len(done) < len(held_out)):
        msg = (
            f"{run.name} has scores of {', '.join(done) or 'no part'}. Finish it: hemoscope federated simulate --resume"
        )
        raise FederationError(msg)
    return done


def _check_others(run: Path, others: Mapping[str, Path], learners: Mapping[str, object]) -> None:
    taken = sorted(set(others) & {FEDERATED, *learners})
    if taken:
        msg = f"the name {taken[0]} is an arm's already. Give another: --with NAME=RUN"
        raise FederationError(msg)
    for name, other in others.items():
        if not (other / COUNTS).is_file() or _patients_of_sites(other) != _patients_of_sites(run):
            msg = f"{name}: {other.name} was not simulated over the same sites as {run.name}. Simulate it over them"
            raise FederationError(msg)


def _patients_of_sites(run: Path) -> list[str]:
    return [(site.patients or Path()).read_text() for site in simulated_sites(run)]


def _facts(arm: str, folder: Path, parts: Sequence[str]) -> dict[str, Any]:
    """What is known of an arm's training: its time, and where it was private its epsilon."""
    records = [json.loads(path.read_text()) for part in parts for path in _records(folder / part)]
    epsilons = [record["epsilon"] for record in records if record.get("epsilon") is not None]
    seconds = [record["seconds"] for record in records if "seconds" in record]
    settings = {} if not (folder / SETTINGS).is_file() else _settings(folder)
    return {
        "name": arm,
        **settings,
        "epsilon": max(epsilons, default=None),
        "seconds": round(sum(seconds), 1) if seconds else None,
    }


def _records(folder: Path) -> list[Path]:
    return [path for path in (folder / DONE, folder / RECORD) if path.is_file()]


def _settings(run: Path) -> dict[str, Any]:
    record = json.loads((run / SETTINGS).read_text())
    return {name: record[name] for name in ("name", "strategy", "batch_norm", "weighting", "privacy")}


def _curve(folder: Path) -> list[dict[str, Any]]:
    """Each round's record."""
    path = folder / ROUND_LOG
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
