"""The folder of a run: what stands in it before the first step, and how it is found again.

``experiment.json`` (the resolved record), ``versions.json`` (packages, and the revision of the source where it is a
checkout), ``dataset.json`` and ``slices.csv`` (what the run learned from, with the labels: no pixels), ``split.json``
(for runs on one split), and a folder for each part.
"""

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from hemoscope import __file__ as package_file
from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, TrainingError
from hemoscope.inference.card import SplitRecord, parse_dataclass, to_plain
from hemoscope.labels import LABELS
from hemoscope.training.data_splits import DataSplit, split_images, split_record
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.version import __version__

_PACKAGES = ("torch", "timm", "lightning", "numpy", "scipy", "pillow")
_RECORD, _SPLIT = "experiment.json", "split.json"
_VERSIONS, _DATASET, _SLICES = "versions.json", "dataset.json", "slices.csv"
_LOGS = "tensorboard"


def open_run(experiment: Experiment, cache: Cache, output: Path, split: DataSplit, *, resume: bool) -> Path:
    """Make the folder of a part, and the records of its run.

    Raises:
        TrainingError: the folder holds another run, or this part of it and ``resume`` is not set.
    """
    _check_same_run(experiment, output)
    folder = output / split.name
    if folder.exists() and not resume:
        msg = f"{output.name}/{split.name} exists already. Go on with --resume, or choose a new --output"
        raise TrainingError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(output / _RECORD, experiment.to_json())
    write_json(output / _VERSIONS, versions())
    write_json(output / _DATASET, to_plain(cache.dataset))
    columns = ["image_id", "patient_id", *(label.value for label in LABELS)]
    cache.manifest[columns].to_csv(output / _SLICES, index=False)
    _write_split(experiment, cache, output)
    return folder


def discard_unstarted(output: Path, split: DataSplit) -> None:
    """Take back what ``open_run`` made of a part that failed before it learned anything.

    So the next try may have other settings in the same folder. Other parts, and what was learned, stay.
    """
    folder = output / split.name
    if any(path.is_file() and path.parent.name != _LOGS for path in folder.rglob("*")):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if not any(path.is_dir() for path in output.iterdir()):
        for name in (_RECORD, _VERSIONS, _DATASET, _SLICES, _SPLIT):
            (output / name).unlink(missing_ok=True)


def read_split(run: Path) -> SplitRecord | None:
    """How the images of a run were split; None for a run on folds. Raises TrainingError where the record is damaged."""
    path = run / _SPLIT
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        record = {item.name: stored[item.name] for item in fields(SplitRecord)}
        return parse_dataclass(SplitRecord, record, where=path.name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{run.name}/{path.name} does not say how the images were split ({type(error).__name__}). Train again"
        raise TrainingError(msg) from error


def versions() -> dict[str, Any]:
    """Versions of what computes, and the source's revision; ``dirty`` where it was changed since."""
    return {
        "hemoscope": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
        **source_revision(Path(package_file).parent),
    }


def source_revision(package: Path) -> dict[str, Any]:
    """``revision`` and ``dirty`` of the git checkout that a package runs from; nothing where it was installed."""
    tracked = _git(package, "ls-files", "__init__.py")
    revision = _git(package, "rev-parse", "HEAD")
    if not tracked or not revision:
        return {}
    return {"revision": revision, "dirty": bool(_git(package, "status", "--porcelain", "--", "."))}


def write_json(path: Path, record: Any) -> None:
    """Write a record so that it appears whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # parts of one run may be trained side by side
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)


def _check_same_run(experiment: Experiment, output: Path) -> None:
    path = output / _RECORD
    if not path.is_file():
        return
    try:
        same = parse_experiment(json.loads(path.read_text()), where=path.name).same_training(experiment)
    except (ConfigError, ValueError):  # of a version that knew other settings, or no record
        same = False
    if not same:
        msg = f"{output.name} holds a run of another experiment. Choose a new --output, or take the changes back"
        raise TrainingError(msg)


def _write_split(experiment: Experiment, cache: Cache, output: Path) -> None:
    record = split_record(experiment, cache)
    if record is None:
        return
    split = split_images(experiment, cache)
    images = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    write_json(output / _SPLIT, {**asdict(record), "images": images, "warning": split.warning})


def _git(folder: Path, *words: str) -> str:
    """What git says; nothing where there is no git, or no checkout."""
    try:
        done = subprocess.run(  # noqa: S603  (fixed words)
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
