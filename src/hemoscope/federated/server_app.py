"""The server's side: rounds until the last, each on disk before the next begins; then scores, weights and a record.

The folder of a run: ``federation.json``, ``experiment.json`` and ``versions.json``; and for each part ``rounds.jsonl``
(one line a round), ``rounds/`` (the last two, to go on from), ``histograms.json`` (what sites told of their scores),
``weights.safetensors`` (the whole network) and, last of all, ``part.json``.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.checkpoints import (
    ROUND_LOG,
    RoundReport,
    RoundState,
    append_round_log,
    latest_round,
    numbered,
    save_round,
)
from hemoscope.federated.federation import Federation, parse_federation
from hemoscope.federated.names import SAFE_NAME
from hemoscope.federated.privacy import BudgetSpentError
from hemoscope.federated.server_rounds import Course, play_round
from hemoscope.federated.server_scores import (
    HISTOGRAMS,
    SiteScores,
    ask_scores,
    below_chance,
    pooled_auroc,
    write_histograms,
)
from hemoscope.federated.strategies import make_strategy
from hemoscope.federated.weights import Exchange, exchange, initial_network, put, take
from hemoscope.models.checkpoint import save_weights
from hemoscope.models.network import HemorrhageNetwork
from hemoscope.training.parts import FINAL
from hemoscope.training.run_folder import versions, write_json

Show = Callable[[str, int, int], None]

FEDERATION, EXPERIMENT, VERSIONS = "federation.json", "experiment.json", "versions.json"
WEIGHTS, RECORD = "weights.safetensors", "part.json"
_LOOK = 1.0  # seconds between two looks at who is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One part of a federation, for the server.

    Attributes:
        federation: the settings.
        part: name of the part, such as ``fold-0``, ``final`` or ``split``.
        output: folder of the run.
        sites: that are expected; training begins when so many are connected.
        resume: go on after the last round on disk.
        numbers: asks the grid for the sites' numbers by node id; None numbers them as they are first seen.
        patience: seconds to wait for all of them; then ``min_sites`` will do.
        show: told the stage, how much of it is done, and how much there is.
    """

    federation: Federation
    part: str
    output: Path
    sites: int
    resume: bool = False
    numbers: Callable[[Grid], dict[str, int]] | None = None
    patience: float = 120.0
    show: Show = lambda _stage, _done, _total: None

    def __post_init__(self) -> None:
        """Refuse a name that is no folder's, and fewer sites than a round needs. Raises ConfigError."""
        if not SAFE_NAME.fullmatch(self.part):
            msg = f"part {self.part!r} has an unsafe name. Parts are named like fold-0, final or split"
            raise ConfigError(msg)
        least = _least(self.federation)
        if self.sites < least:
            msg = f"{self.sites} sites are expected, but a round needs {least}. Add sites, or lower min_sites or shares"
            raise ConfigError(msg)

    @property
    def folder(self) -> Path:
        """Of the part."""
        return self.output / self.part


def make_server_app(job: Job) -> ServerApp:
    """The server app that trains one part.

    Running it raises:
        FederationError: the folder holds another federation, or this part of it and ``resume`` is not set; too few
            sites came; or a round was void as often as it may be.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        """Train the part."""
        run_part(job, grid, context)

    return app


def run_part(job: Job, grid: Grid, context: Context) -> None:
    """Train one part over the sites of a grid; see ``make_server_app`` for what is raised."""
    federation = job.federation
    _open(job)
    if (job.folder / RECORD).is_file():
        return
    started = time.monotonic()
    network = initial_network(federation.experiment, federation.experiment.run.seed)
    names = exchange(network, federation.batch_norm)
    state = latest_round(job.folder) or RoundState(
        trained=take(network, names.trained),
        statistics=take(network, names.statistics),
        fixed=take(network, names.fixed),
    )
    course = Course(
        federation=federation,
        text=json.dumps(federation.to_json()),
        part=job.part,
        strategy=make_strategy(federation, names),
    )
    _mend_log(job, state)
    wait_for_sites(job, grid)
    if job.numbers is not None:
        state = replace(state, sites=job.numbers(grid))
    state, scores, ended = _play(job, course, state, grid, context)
    if not scores and _scores_sites(job):
        scores = _final_scores(job, course, state, grid)
    if scores:
        write_histograms(job.folder / HISTOGRAMS, [scores[site] for site in sorted(scores)])
    _write_network(job, network, names, state)
    record = _record(job, state, network, ended=ended, seconds=time.monotonic() - started)
    write_json(job.folder / RECORD, record)


def wait_for_sites(job: Job, grid: Grid) -> None:
    """Return when all sites that are expected are connected; after the patience, when a round can be played.

    Raises:
        FederationError: too few came.
    """
    here, least = _wait_until(job, grid, job.sites), _least(job.federation)
    if here < least:
        msg = f"{here} of {job.sites} sites came in {job.patience:g} s, and {least} are needed. Start the others"
        raise FederationError(msg)


def _wait_until(job: Job, grid: Grid, sites: int) -> int:
    """How many sites are connected when there are so many, or the patience is at its end."""
    end = time.monotonic() + job.patience
    while (here := len(list(grid.get_node_ids()))) < sites and time.monotonic() < end:
        job.show("waiting for sites", here, job.sites)
        time.sleep(min(_LOOK, max(0.0, end - time.monotonic())))
    return here


def _least(federation: Federation) -> int:
    """Sites that a round needs."""
    secure = federation.secure_aggregation
    return max(federation.min_sites, secure.shares if secure.enabled else 1)


def _play(
    job: Job, course: Course, state: RoundState, grid: Grid, context: Context
) -> tuple[RoundState, dict[int, SiteScores], str]:
    """All rounds that are left; the scores after the last, where it was scored; and why it ended early, if it did."""
    federation, scores = course.federation, dict[int, SiteScores]()
    while state.number < federation.rounds:
        job.show(f"{job.part}: round", state.number, federation.rounds)
        try:
            state, report = _until_not_void(job, course, state, grid, context)
        except BudgetSpentError as error:
            return state, {}, str(error)
        save_round(job.folder, state)
        last = state.number == federation.rounds
        every = federation.histograms.every
        scores, told = dict[int, SiteScores](), dict[str, Any]()
        if _scores_sites(job) and (last or (every and state.number % every == 0)):
            scores, told = _scored(course, state, grid, final=last)
            report = report.with_suspicion(below_chance(scores))
        append_round_log(job.folder, _line(report, told))
    job.show(f"{job.part}: round", state.number, federation.rounds)
    return state, scores, ""


def _until_not_void(
    job: Job, course: Course, state: RoundState, grid: Grid, context: Context
) -> tuple[RoundState, RoundReport]:
    """The next round that counts. Raises FederationError where it was void as often as it may be."""
    for _ in range(course.federation.retries + 1):
        state, report = play_round(course, state, grid, context)
        if not report.void:
            return state, report
        append_round_log(job.folder, _line(report, {}))
        _wait_until(job, grid, _least(job.federation))
    reasons = [f"site {site}: {reason}" for site, reason in sorted(report.refused.items())]
    tried = f"round {report.number} was void {course.federation.retries + 1} times, at last because {report.reason}"
    gone = f"{len(report.lost)} of {len(report.asked)} sites lost"
    msg = f"{tried} ({'; '.join((gone, *reasons))}). Go on later with --resume"
    raise FederationError(msg)


def _final_scores(job: Job, course: Course, state: RoundState, grid: Grid) -> dict[int, SiteScores]:
    """Scores of weights whose rounds were all played before: the server was stopped, or the budget ended them."""
    scores, told = _scored(course, state, grid, final=True)
    append_round_log(job.folder, {"number": state.number, "scores": told})
    return scores


def _scored(
    course: Course, state: RoundState, grid: Grid, *, final: bool
) -> tuple[dict[int, SiteScores], dict[str, Any]]:
    """Scores by site, and what the log says of them."""
    nodes = sorted(grid.get_node_ids())
    sites = numbered(state.sites, nodes)
    request = course.request(state, number=max(state.number, 1), sites=len(nodes), final=final)
    scores, refused = ask_scores(grid, nodes, request, timeout=course.federation.round_timeout)
    told: dict[str, Any] = {"auroc": pooled_auroc(list(scores.values())), "sites": len(scores)}
    if refused:
        told["refused"] = {str(sites[str(node)]): reason for node, reason in refused.items()}
    return {sites[str(node)]: found for node, found in scores.items()}, told


def _mend_log(job: Job, state: RoundState) -> None:
    """A line for the last round on disk, where the server was stopped before it wrote one."""
    path = job.folder / ROUND_LOG
    lines = path.read_text().splitlines() if path.is_file() else []
    played = [line for line in map(json.loads, lines) if not line.get("void")]
    if state.number and not any(line["number"] == state.number for line in played):
        sites = tuple(sorted(state.sites.values()))
        report = RoundReport(number=state.number, asked=sites, used=sites, reason="the server was stopped after it")
        append_round_log(job.folder, _line(report, {}))


def _scores_sites(job: Job) -> bool:
    """Whether sites hold anything out in this part: the final network of a run on folds learns from everybody."""
    return job.part != FINAL


def _line(report: RoundReport, told: dict[str, Any]) -> dict[str, Any]:
    return {**report.to_json(), **({"scores": told} if told else {})}


def _open(job: Job) -> None:
    """Make the folder and its records. Raises FederationError where it holds something else."""
    path = job.output / FEDERATION
    if path.is_file() and not _same(path, job.federation):
        msg = f"{job.output.name} holds a run of another federation. Choose a new --output, or take the changes back"
        raise FederationError(msg)
    if job.folder.exists() and not job.resume:
        msg = f"{job.output.name}/{job.part} exists already. Go on with --resume, or choose a new --output"
        raise FederationError(msg)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(path, job.federation.to_json())
    write_json(job.output / EXPERIMENT, job.federation.experiment.to_json())
    write_json(job.output / VERSIONS, versions())


def _same(path: Path, federation: Federation) -> bool:
    try:
        return parse_federation(json.loads(path.read_text())).to_json() == federation.to_json()
    except (ConfigError, ValueError):  # of a version that knew other settings, or no record
        return False


def _write_network(job: Job, network: HemorrhageNetwork, names: Exchange, state: RoundState) -> None:
    put(network, state.trained, names.trained)
    put(network, state.statistics, names.statistics)
    put(network, state.fixed, names.fixed)
    save_weights(network, job.folder / WEIGHTS)


def _record(job: Job, state: RoundState, network: HemorrhageNetwork, *, ended: str, seconds: float) -> dict[str, Any]:
    """How the part was trained, as a card says it."""
    lines = [json.loads(line) for line in (job.folder / ROUND_LOG).read_text().splitlines()]
    rounds = [line for line in lines if "used" in line]
    played = [line for line in rounds if not line["void"]]
    federation = job.federation
    epsilons = [line["epsilon"] for line in played if line["epsilon"] is not None]
    return {
        "part": job.part,
        "federation": federation.name,
        "sites": len({site for line in played for site in line["used"]}),
        "rounds": state.number,
        "local_epochs": federation.local_epochs,
        "strategy": federation.strategy.name,
        "batch_norm": federation.batch_norm,
        "weighting": federation.weighting,
        "secure_aggregation": federation.secure_aggregation.enabled,
        "epsilon": epsilons[-1] if epsilons else None,
        "delta": federation.privacy.delta if federation.privacy.enabled else None,
        "used": sum(len(line["used"]) for line in played),
        "lost": sum(len(line["lost"]) for line in rounds),
        "refused": sum(len(line["refused"]) for line in rounds),
        "void": sum(line["void"] for line in rounds),
        "ended": ended,
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_parameters": sum(array.size for array in state.trained.values()),
        "seconds": round(sum(line["seconds"] for line in rounds), 1),
        "seconds_of_this_run": round(seconds, 1),
    }
