"""The run folder: the records that are written before the first step, and reading them back.

``experiment.json`` (the resolved record), ``versions.json`` (package versions, and the source revision in a checkout),
``dataset.json`` and ``slices.csv`` (the training data: ids and labels, no pixels), ``split.json`` (for runs on one
split), and a folder for each split.
"""

import json
import platform
import shutil
import subprocess
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, TrainingError
from hemoscope.files import atomic_path, write_text
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
    """Create the folder of a split, and write the records of its run.

    Raises:
        TrainingError: the folder holds another run, or this split already and ``resume`` is not set.
    """
    _check_same_run(experiment, output)
    folder = output / split.name
    if folder.exists() and not resume:
        msg = f"{output.name}/{split.name} exists already. Continue with --resume, or choose a new --output"
        raise TrainingError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(output / _RECORD, experiment.to_json())
    write_json(output / _VERSIONS, versions())
    write_json(output / _DATASET, to_plain(cache.dataset))
    columns = ["image_id", "patient_id", *(label.value for label in LABELS)]
    with atomic_path(output / _SLICES) as draft:
        cache.manifest[columns].to_csv(draft, index=False)
    _write_split(experiment, cache, output)
    return folder


def discard_unstarted(output: Path, split: DataSplit) -> None:
    """Remove what ``open_run`` created for a split that failed before training started.

    The next attempt may then use other settings in the same folder. Other splits and trained weights are kept.
    """
    folder = output / split.name
    if any(path.is_file() and path.parent.name != _LOGS for path in folder.rglob("*")):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if not any(path.is_dir() for path in output.iterdir()):
        for name in (_RECORD, _VERSIONS, _DATASET, _SLICES, _SPLIT):
            (output / name).unlink(missing_ok=True)


def read_split(run: Path) -> SplitRecord | None:
    """Read how the images of a run were split; None for folds. Raises TrainingError if the record is damaged."""
    path = run / _SPLIT
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        record = {item.name: stored[item.name] for item in fields(SplitRecord)}
        return parse_dataclass(SplitRecord, record, where=path.name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{run.name}/{path.name} does not describe the split ({type(error).__name__}). Train again"
        raise TrainingError(msg) from error


def versions() -> dict[str, Any]:
    """Return package versions and the source revision; ``dirty`` if the checkout has changes."""
    return {
        "hemoscope": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
        **source_revision(Path(__file__).parents[1]),
    }


def source_revision(package: Path) -> dict[str, Any]:
    """Return ``revision`` and ``dirty`` of the git checkout that a package runs from; empty if it was installed."""
    tracked = _git(package, "ls-files", "__init__.py")
    revision = _git(package, "rev-parse", "HEAD")
    if not tracked or not revision:
        return {}
    return {"revision": revision, "dirty": bool(_git(package, "status", "--porcelain", "--", "."))}


def write_json(path: Path, record: Any) -> None:
    """Write a record atomically."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def _check_same_run(experiment: Experiment, output: Path) -> None:
    path = output / _RECORD
    if not path.is_file():
        return
    try:
        same = parse_experiment(json.loads(path.read_text()), where=path.name).same_training(experiment)
    except (ConfigError, ValueError):  # written by a version with other settings, or damaged
        same = False
    if not same:
        msg = f"{output.name} holds a run of another experiment. Choose a new --output, or undo the changes"
        raise TrainingError(msg)


def _write_split(experiment: Experiment, cache: Cache, output: Path) -> None:
    record = split_record(experiment, cache)
    if record is None:
        return
    split = split_images(experiment, cache)
    images = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    write_json(output / _SPLIT, {**asdict(record), "images": images, "warning": split.warning})


def _git(folder: Path, *words: str) -> str:
    """Return git's output; empty if there is no git or no checkout."""
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
