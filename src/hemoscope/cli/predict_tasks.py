"""The studies of ``hemoscope predict`` as tasks: in this process one after the other, or on worker processes.

A task is a plain value: its studies' headers, where their files are, and the options. Studies that share a UID are one
task, and so are all NIfTI files, because their files in the output folder are named in order.
"""

import argparse
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.predict_study import StudyDone, finish_study
from hemoscope.errors import BundleError
from hemoscope.progress import StageProgress, no_stage_progress

if TYPE_CHECKING:
    from hemoscope.cli.predict_progress import RunProgress
    from hemoscope.dicom.archive import Archive
    from hemoscope.inference.bundle import ModelBundle
    from hemoscope.inference.precision import Precision
    from hemoscope.inference.predictor import Predictor, StudyOutcome

# A Dask worker may have several threads; a predictor belongs to one at a time.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTask:
    """Studies to read one after the other.

    Attributes:
        places: of the studies and volumes in the run, in their order.
        archive: with these DICOM studies.
        volumes: NIfTI files.
        named: by UID, how many studies of the output folder have its name already.
    """

    places: tuple[int, ...]
    archive: "Archive"
    volumes: tuple[Path, ...] = ()
    named: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _WorkerTask:
    """A task with what its process must know; ``sha256`` is of the bundle."""

    task: StudyTask
    arguments: argparse.Namespace
    sha256: str


def study_tasks(arguments: argparse.Namespace, run: "RunProgress") -> Iterator[StudyTask]:
    """Yield the pending studies of a run as tasks.

    Raises:
        SeriesError: no study holds the series that was asked for.
    """
    from hemoscope.inference.predictor import studies_with

    studies = studies_with(run.archive, arguments.series) if run.archive.studies else ()
    named = Counter(record.study.findings.study_instance_uid for record in run.finished.values())
    places = iter(run.pending)
    for uid, group in groupby(studies, attrgetter("study_instance_uid")):
        found = tuple(group)
        archive = replace(run.archive, studies=found)
        yield StudyTask(places=_next(places, len(found)), archive=archive, named={uid: named[uid]})
    if run.volumes:
        archive = replace(run.archive, studies=())
        yield StudyTask(places=_next(places, len(run.volumes)), archive=archive, volumes=run.volumes, named=named)


def _next(places: Iterator[int], count: int) -> tuple[int, ...]:
    return tuple(next(places) for _ in range(count))


def are_apart(arguments: argparse.Namespace) -> bool:
    """Whether studies are read in other processes than this one."""
    return arguments.dask is not None or (arguments.workers or 1) > 1


def run_tasks(
    tasks: Iterator[StudyTask],
    arguments: argparse.Namespace,
    bundle: "ModelBundle",
    predictor: "Predictor | None",
    show: StageProgress,
) -> Iterator[StudyDone]:
    """Read studies and write their files; yield each when it is done, in any order if there are workers.

    Args:
        tasks: the studies.
        arguments: the options.
        bundle: the model.
        predictor: with the model, to read here; None: workers read, each with its own.
        show: the progress of a study that is read here.

    Raises:
        ConfigError: no Dask scheduler answers at the address, or both workers and an address are given.
        MissingExtraError: Dask is not installed.
        DataError: a worker ended repeatedly on one study.
    """
    if predictor is not None:
        for task in tasks:
            yield from _read(task, predictor, arguments, show)
        return
    from hemoscope.data.processes import processes

    options = _for_workers(arguments)
    apart = (
        _WorkerTask(task=replace(task, archive=task.archive.part()), arguments=options, sha256=bundle.sha256)
        for task in tasks
    )
    with processes(workers=arguments.workers, address=arguments.dask) as run:
        for found in run(_read_in_worker, apart):
            yield from found


def _for_workers(arguments: argparse.Namespace) -> argparse.Namespace:
    """Return the options with paths that hold in any folder; local workers share the processors."""
    from hemoscope.inference.engine import available_threads

    paths = {name: None if (path := getattr(arguments, name)) is None else path.absolute() for name in _PATHS}
    threads = arguments.threads
    if threads is None and arguments.dask is None:
        threads = available_threads(arguments.workers)
    needed = ("series", "identify", "heatmaps", "pdf", "device", "precision")
    return argparse.Namespace(**{name: getattr(arguments, name) for name in needed}, **paths, threads=threads)


_PATHS = ("model", "output", "dicom")


def _read_in_worker(given: _WorkerTask) -> Sequence[StudyDone]:
    """Read the studies of a task in a worker, which keeps its predictor for the next one."""
    with _one_at_a_time:
        chosen = given.arguments
        predictor = _predictor(chosen.model, given.sha256, chosen.threads, chosen.device, chosen.precision)
        return list(_read(given.task, predictor, given.arguments, no_stage_progress))


@lru_cache(maxsize=1)
def _predictor(
    model: Path | None, sha256: str, threads: int | None, device: str, precision: "Precision"
) -> "Predictor":
    from hemoscope.inference.bundle import load_bundle
    from hemoscope.inference.engine import engine_on
    from hemoscope.inference.predictor import Predictor

    bundle = load_bundle(model)
    if bundle.sha256 != sha256:
        msg = "a worker has another model than this process. Install the same version, or give the same --model"
        raise BundleError(msg)
    return Predictor(bundle, engine=engine_on(device, bundle, threads=threads, precision=precision))


def _read(
    task: StudyTask, predictor: "Predictor", arguments: argparse.Namespace, show: StageProgress
) -> Iterator[StudyDone]:
    names = Counter(task.named)
    for place, outcome in zip(task.places, _outcomes(task, predictor, arguments, show), strict=True):
        yield finish_study(outcome, place, task.archive, predictor, arguments, names, show)


def _outcomes(
    task: StudyTask, predictor: "Predictor", arguments: argparse.Namespace, show: StageProgress
) -> "Iterator[StudyOutcome]":
    """Read the DICOM studies, then the NIfTI files."""
    from hemoscope.inference.inputs import nifti_studies

    maps = arguments.output is not None or arguments.dicom is not None
    if task.archive.studies:
        yield from predictor.studies(task.archive, series_instance_uid=arguments.series, maps=maps, progress=show)
    yield from nifti_studies(predictor, task.volumes, maps=maps, progress=show)
