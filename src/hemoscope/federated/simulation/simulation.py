"""A federation on one machine: Flower's simulation with every site's client on a Ray actor, one process a part.

Flower and Ray log much, hold the main thread and end slowly when interrupted. So each part runs in a process of its
own (``simulated_part``) whose output goes to ``RUN/simulation.log`` and which reports through a pipe, one line of JSON
a message; when this process ends, so does that one, and with it all of Ray's.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.deployment.processes import flower_environment
from hemoscope.federated.server.checkpoints import ROUND_LOG
from hemoscope.federated.settings.federation import Federation
from hemoscope.federated.settings.site_policy import part_folder
from hemoscope.federated.simulation.simulated_sites import (
    SITES,
    Partitioning,
    chosen_parts,
    gather_scores,
    lay_out_sites,
    parts_of_sites,
    score_file,
)
from hemoscope.processors import available_processors
from hemoscope.progress import StageProgress, no_stage_progress
from hemoscope.training.data_module import CROPS

ReportRound = Callable[[str, dict[str, Any]], None]
Poison = Literal["flip", "scale"]

LOG, DONE = "simulation.log", "part.json"
_MODULE = "hemoscope.federated.simulation.simulation_process"
_SHUTDOWN_TIMEOUT = 30.0  # seconds for a traceback, and for Ray to clean up


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How a simulation uses this machine.

    Attributes:
        actors: sites that train at the same time; None: one a processor.
        verbose: whether Flower and Ray log on this process's stderr instead of into the log.
    """

    actors: int | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        """Reject fewer than one actor."""
        if self.actors is not None and self.actors < 1:
            msg = f"actors must be at least 1, got {self.actors}"
            raise ConfigError(msg)

    def share(self, sites: int) -> tuple[int, int]:
        """Actors, no more than sites, and threads of PyTorch for each of them."""
        cores = available_processors()
        actors = min(self.actors or cores, sites)
        return actors, max(1, cores // actors)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """One part to simulate, as it goes to its process: JSON on stdin.

    Attributes:
        federation: as ``Federation.to_json`` has it, with the whole path of initial weights.
        part: name of the part.
        run: folder of the run.
        sites: how many.
        actors: that Ray may run at once.
        resume: whether to go on from the last round.
        poison: what is wrong with a site, by its number in words.
        pipe: file descriptor of the reports.
        folder: for Ray's passing files; short, for sockets lie in it.
    """

    federation: dict[str, Any]
    part: str
    run: str
    sites: int
    actors: int
    resume: bool
    poison: dict[str, Poison] = field(default_factory=dict)
    pipe: int
    folder: str


def simulate(  # noqa: PLR0913  (what a simulation is made of)
    federation: Federation,
    cache: Cache,
    run: Path,
    *,
    partitioning: Partitioning,
    only: Sequence[str] = (),
    resume: bool = False,
    machine: Machine | None = None,
    poison: Mapping[int, Poison] | None = None,
    show: StageProgress = no_stage_progress,
    report_round: ReportRound = lambda _part, _round: None,
) -> tuple[str, ...]:
    """Partition the patients among sites, train every part (or those named) over them, and gather their scores.

    Args:
        federation: what to do.
        cache: all patients.
        run: folder of the run.
        partitioning: which site has whom.
        only: names of parts; none means all.
        resume: skip parts that are done, and go on with one that stopped from its last round.
        machine: how much of it to use.
        poison: a site that works against the others, by number, to see what becomes of it.
        show: called with the stage, how much of it is done, and how much there is.
        report_round: called with the part's name and each round's record when it is over.

    Returns:
        Names of the parts that are done.

    Raises:
        FederationError: the folder holds other sites, a part exists and ``resume`` is not set, or a part failed.
        ConfigError: no such poison, fewer sites than a round needs, or patients that cannot be partitioned so.
    """
    machine = machine or Machine()
    _check_poison(federation, poison or {}, partitioning.sites)
    federation.check_sites(partitioning.sites)
    actors, threads = machine.share(partitioning.sites)
    sites = lay_out_sites(cache, run, partitioning, threads=threads)
    parts = parts_of_sites(federation, sites)
    chosen = chosen_parts(parts, only)
    _check_unbegun(run, chosen, resume=resume)
    for name in chosen:
        if not (run / name / DONE).is_file():
            task = {"part": name, "run": str(run.absolute()), "sites": len(sites), "actors": actors, "resume": resume}
            named = {f"site-{number}": what for number, what in (poison or {}).items()}
            record = federation.to_local_json()
            _run_part({**task, "federation": record, "poison": named}, run, threads, machine, show, report_round)
        if not (run / name / score_file(name)).is_file():
            gather_scores(federation, run, sites, parts[name])
        for site in sites:
            shutil.rmtree(part_folder(site, federation, name) / CROPS, ignore_errors=True)
    return chosen


def _run_part(
    task: dict[str, Any], run: Path, threads: int, machine: Machine, show: StageProgress, report_round: ReportRound
) -> None:
    """Run one part in its process until it is done. Raises FederationError where it is not."""
    progress = _Reports(run / task["part"], task["part"], show, report_round)
    with tempfile.TemporaryDirectory(prefix="hs", ignore_cleanup_errors=True) as folder:
        environment = flower_environment(Path(folder) / "flwr") | _ray_environment(threads)
        with _log(run, verbose=machine.verbose) as log, _child(task, folder, environment, log) as reports:
            for line in reports:
                progress.take(json.loads(line))
    progress.finish()


def _ray_environment(threads: int) -> dict[str, str]:
    """Ray runs what it is sent, and by itself listens to every network: here to this machine alone, and by a token."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name of the switch; off, all its servers are on loopback
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Ray gives each actor a processor by its own count; the threads are what PyTorch makes of them.
        "OMP_NUM_THREADS": str(threads),
    }


@contextmanager
def _child(task: dict[str, Any], folder: str, environment: dict[str, str], log: int) -> Iterator[Iterator[str]]:
    """Start the process of a part and yield the lines it reports; it is ended when the block is left."""
    ours, theirs = os.pipe()
    whole = PartTask(**task, pipe=theirs, folder=folder)
    with open(ours, encoding="utf-8") as reports:  # noqa: PTH123  a descriptor
        process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(theirs,),
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            text=True,
        )
        os.close(theirs)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(whole)))
            process.stdin.close()
            yield iter(reports)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SHUTDOWN_TIMEOUT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # Ray's agents outlive the rest for a minute otherwise
            process.wait()


class _Reports:
    """What a part's process reported so far."""

    def __init__(self, folder: Path, part: str, show: StageProgress, report_round: ReportRound) -> None:
        """Begin after the rounds that are done already."""
        self.folder, self.part, self.show, self.report_round = folder, part, show, report_round
        self.outcome: dict[str, Any] | None = None
        self._reported = len(self._rounds())

    def take(self, message: dict[str, Any]) -> None:
        """A stage, or the outcome."""
        if "stage" in message:
            self.show(message["stage"], message["done"], message["total"])
        else:
            self.outcome = message
        self._report_rounds()

    def finish(self) -> None:
        """Raise FederationError unless the part is done; ConfigError where a setting was wrong."""
        self._report_rounds()
        if self.outcome is None:
            msg = f"{self.part}: the simulation's process ended without a word, out of memory perhaps. See {LOG}"
            raise FederationError(f"{msg}, and go on with --resume")
        if reason := self.outcome.get("failed"):
            kind = ConfigError if self.outcome["kind"] == ConfigError.__name__ else FederationError
            raise kind(f"{self.part}: {reason}")

    def _report_rounds(self) -> None:
        rounds = self._rounds()
        for line in rounds[self._reported :]:
            self.report_round(self.part, json.loads(line))
        self._reported = len(rounds)

    def _rounds(self) -> list[str]:
        path = self.folder / ROUND_LOG
        if not path.is_file():
            return []
        return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def _log(run: Path, *, verbose: bool) -> Iterator[int]:
    """Where Flower and Ray log to."""
    if verbose:
        yield sys.stderr.fileno()
        return
    with (run / LOG).open("a") as log:
        yield log.fileno()


def _check_unbegun(run: Path, parts: Sequence[str], *, resume: bool) -> None:
    begun = [name for name in parts if (run / name).exists()]
    if begun and not resume:
        msg = f"{run.name}/{begun[0]} exists already. Go on with --resume, or choose a new --output"
        raise FederationError(msg)


def _check_poison(federation: Federation, poison: Mapping[int, Poison], sites: int) -> None:
    unknown = sorted(set(poison) - set(range(1, sites + 1)))
    if unknown:
        msg = f"{SITES}: there is no site-{unknown[0]} to poison. Choose site-1 to site-{sites}"
        raise ConfigError(msg)
    if "scale" in poison.values() and federation.secure_aggregation.enabled:
        msg = "a scaled update cannot be shown under secure aggregation, which hides it. Leave one of both out"
        raise ConfigError(msg)
