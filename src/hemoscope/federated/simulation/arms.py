"""What a federation is measured against: the same training on all sites' patients together, and at each site alone.

``pooled`` learns from all sites' training images of a part, ``alone-2`` from those of site 2; either for as many epochs
as the federation has in all its rounds, by the code of a site's round (one round of them all), from the same initial
weights. Every arm scores what all sites held out of that part, and nobody learned from.
"""

import multiprocessing
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from hemoscope.data.cache import open_cache
from hemoscope.errors import ConfigError
from hemoscope.federated.exchange.weights import initial_network
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.simulation.simulated_sites import parts_of_sites, score_file, simulated_sites
from hemoscope.federated.site.local_round import RoundPlace, score_part, train_round
from hemoscope.progress import StageProgress, no_stage_progress
from hemoscope.training.data_module import CROPS
from hemoscope.training.data_splits import DataSplit
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.run_folder import write_json

Kind = Literal["pooled", "alone"]
POOLED, ALONE = "pooled", "alone"
RECORD, WEIGHTS = "arm.json", "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTask:
    """One training of an arm, as it goes to a process: plain values.

    Attributes:
        arm: its name.
        part: of the experiment.
        learners: numbers of the sites that it learns from.
        federation: as ``Federation.to_json`` has it, with the whole path of initial weights.
        data: folder of the cache.
        run: of the federation, with its sites.
        output: folder of the comparison.
        threads: of PyTorch.
    """

    arm: str
    part: str
    learners: tuple[int, ...]
    federation: dict[str, Any]
    data: Path
    run: Path
    output: Path
    threads: int

    @property
    def folder(self) -> Path:
        """Where this training's scores go."""
        return arm_folder(self.output, self.arm) / self.part


def arm_folder(output: Path, arm: str) -> Path:
    """The folder of an arm within a comparison."""
    return output / "arms" / arm


def learners_of(kinds: Sequence[str], sites: int) -> dict[str, tuple[int, ...]]:
    """Arms by name, and the sites that each learns from. Raises ConfigError for an unknown kind."""
    unknown = sorted(set(kinds) - set(get_args(Kind)))
    if unknown:
        msg = f"no such arm: {', '.join(unknown)}. There are {' and '.join(get_args(Kind))}"
        raise ConfigError(msg)
    numbers = tuple(range(1, sites + 1))
    pooled = {POOLED: numbers} if POOLED in kinds else {}
    return pooled | ({f"{ALONE}-{number}": (number,) for number in numbers} if ALONE in kinds else {})


def train_arms(tasks: Sequence[ArmTask], *, workers: int = 1, show: StageProgress = no_stage_progress) -> None:
    """Train what is not trained yet, several at a time; the longest first, so that none is left over at the end.

    Args:
        tasks: all of them.
        workers: trainings side by side; 1 trains in this process.
        show: told how many are done.
    """
    waiting = sorted((task for task in tasks if not is_done(task)), key=lambda task: -len(task.learners))
    done = len(tasks) - len(waiting)
    show("comparison: trainings", done, len(tasks))
    if workers == 1:
        for task in waiting:
            train_arm(task, show)
        return
    # Fresh processes: a fork would take the locks of this one's threads along.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for count, finished in enumerate(as_completed([pool.submit(train_arm, task) for task in waiting]), start=1):
                finished.result()
                show("comparison: trainings", done + count, len(tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def is_done(task: ArmTask) -> bool:
    """Whether an arm has scored this part."""
    return (task.folder / score_file(task.part)).is_file()


def train_arm(task: ArmTask, show: StageProgress = no_stage_progress) -> None:
    """Train and score one arm's part. Raises what ``train_round`` and ``score_part`` raise."""
    torch.set_num_threads(task.threads)
    federation, folder = parse_federation(task.federation), task.folder
    cache, part = open_cache(task.data), _part(federation, task)
    folder.mkdir(parents=True, exist_ok=True)
    experiment = federation.experiment
    network = initial_network(experiment, experiment.run.seed)
    result = train_round(
        network,
        experiment,
        cache,
        part,
        folder,
        RoundPlace(number=1, rounds=1, epochs=federation.epochs),
        batch_norm="fixed" if federation.batch_norm == "fixed" else "shared",
        show=partial(_as_arm, show, task.arm),
    )
    shutil.rmtree(folder / CROPS, ignore_errors=True)
    save_weights(network, folder / WEIGHTS)
    write_json(folder / RECORD, {"arm": task.arm, "epochs": federation.epochs, **asdict(result)})
    score_part(network, experiment, cache, part.test, folder / score_file(part.name))


def _part(federation: Federation, task: ArmTask) -> DataSplit:
    """What the learners learn from and all sites hold out, each by its own folds."""
    own = parts_of_sites(federation, simulated_sites(task.run))[task.part]
    learn = tuple(image for number in task.learners for image in own[number - 1].train)
    return DataSplit(name=task.part, train=learn, test=tuple(image for part in own for image in part.test))


def _as_arm(show: StageProgress, arm: str, stage: str, done: int, total: int) -> None:
    show(f"{arm} {stage}", done, total)
