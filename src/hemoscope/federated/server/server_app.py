"""The server's side: rounds until the last, each on disk before the next begins; then scores, weights and a record.

The folder of a run: ``federation.json``, ``experiment.json`` and ``versions.json``; and for each part ``rounds.jsonl``
(one line a round), ``rounds/`` (the last two, to go on from), ``histograms.json`` (the sites' scores),
``weights.safetensors`` (the whole network) and, last of all, ``part.json``.
"""

import json
import time
from dataclasses import replace
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hemoscope.errors import FederationError
from hemoscope.evaluation.flow import counted
from hemoscope.federated.exchange.weights import exchange, initial_network, take
from hemoscope.federated.server.checkpoints import (
    RoundReport,
    RoundState,
    append_round_log,
    latest_round,
    numbered,
    save_round,
)
from hemoscope.federated.server.privacy import BudgetSpentError
from hemoscope.federated.server.server_rounds import RunContext, run_round
from hemoscope.federated.server.server_scores import (
    HISTOGRAMS,
    SiteScores,
    ask_scores,
    below_chance,
    pooled_auroc,
    write_histograms,
)
from hemoscope.federated.server.strategies import make_strategy
from hemoscope.federated.server.training_job import (
    RECORD,
    TrainingJob,
    log_round,
    open_job,
    repair_log,
    write_network,
    write_record,
)
from hemoscope.federated.settings.names import WAITING_FOR_SITES
from hemoscope.training.data_splits import FINAL

__all__ = ["TrainingJob", "make_server_app", "run_part", "wait_for_sites"]

_LOOK = 1.0  # seconds between two looks at who is there


def make_server_app(job: TrainingJob) -> ServerApp:
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


def run_part(job: TrainingJob, grid: Grid, context: Context) -> None:
    """Train one part over the sites of a grid; see ``make_server_app`` for what is raised."""
    federation = job.federation
    open_job(job)
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
    run = RunContext(
        federation=federation,
        text=json.dumps(federation.to_json()),
        part=job.part,
        strategy=make_strategy(federation, names, sites=job.sites),
    )
    repair_log(job, state)
    wait_for_sites(job, grid)
    if job.numbers is not None:
        state = replace(state, sites=job.numbers(grid))
    state, scores, ended = _play(job, run, state, grid, context)
    if not scores and _scores_sites(job):
        scores = _final_scores(job, run, state, grid)
    if scores:
        write_histograms(job.folder / HISTOGRAMS, [scores[site] for site in sorted(scores)])
    write_network(job, network, names, state)
    write_record(job, state, network, ended=ended, seconds=time.monotonic() - started)


def wait_for_sites(job: TrainingJob, grid: Grid) -> None:
    """Return when all sites that are expected are connected; after the timeout, when a round can run.

    Raises:
        FederationError: too few came.
    """
    here, least = _wait_until(job, grid, job.sites), job.federation.least_sites
    if here < least:
        msg = f"{here} of {job.sites} sites came in {job.timeout:g} s, and {least} are needed. Start the others"
        raise FederationError(msg)


def _wait_until(job: TrainingJob, grid: Grid, sites: int) -> int:
    """How many sites are connected when there are so many, or the timeout is over."""
    end = time.monotonic() + job.timeout
    while (here := len(list(grid.get_node_ids()))) < sites and time.monotonic() < end:
        job.show(WAITING_FOR_SITES, here, job.sites)
        time.sleep(min(_LOOK, max(0.0, end - time.monotonic())))
    return here


def _play(
    job: TrainingJob, run: RunContext, state: RoundState, grid: Grid, context: Context
) -> tuple[RoundState, dict[int, SiteScores], str]:
    """All rounds that are left; the scores after the last, where it was scored; and why it ended early, if it did."""
    federation, scores = run.federation, dict[int, SiteScores]()
    while state.number < federation.rounds:
        try:
            state, report = _until_not_void(job, run, state, grid, context)
        except BudgetSpentError as error:
            if not state.number:  # not even one round
                raise
            return state, {}, str(error)
        save_round(job.folder, state, report)
        last = state.number == federation.rounds
        every = federation.histograms.every
        scores, reported = dict[int, SiteScores](), dict[str, Any]()
        if _scores_sites(job) and (last or (every and state.number % every == 0)):
            job.show(f"{job.part}: scores after round", state.number, federation.rounds)
            scores, reported = _scored(run, state, grid, final=last)
            report = report.with_suspicion(below_chance(scores))
        log_round(job, report, reported)
    job.show(f"{job.part}: round", state.number, federation.rounds)
    return state, scores, ""


def _until_not_void(
    job: TrainingJob, run: RunContext, state: RoundState, grid: Grid, context: Context
) -> tuple[RoundState, RoundReport]:
    """The next round that counts. Raises FederationError where it was void as often as it may be."""
    for _ in range(run.federation.retries + 1):
        job.show(f"{job.part}: round", state.number, run.federation.rounds)
        state, report = run_round(run, state, grid, context)
        if not report.void:
            return state, report
        log_round(job, report)
        _wait_until(job, grid, job.federation.least_sites)
    reasons = [f"site {site}: {reason}" for site, reason in sorted(report.refused.items())]
    times = counted(run.federation.retries + 1, "times")
    tried = f"round {report.number} was void {times}, at last because {report.reason}"
    gone = f"{len(report.lost)} of {len(report.asked)} sites lost"
    msg = f"{tried} ({'; '.join((gone, *reasons))}). Go on later with --resume"
    raise FederationError(msg)


def _final_scores(job: TrainingJob, run: RunContext, state: RoundState, grid: Grid) -> dict[int, SiteScores]:
    """Scores of weights whose rounds are all done: the server was stopped, or the budget ended them."""
    scores, reported = _scored(run, state, grid, final=True)
    append_round_log(job.folder, {"number": state.number, "scores": reported})
    return scores


def _scored(
    run: RunContext, state: RoundState, grid: Grid, *, final: bool
) -> tuple[dict[int, SiteScores], dict[str, Any]]:
    """Scores by site, and what the log says of them."""
    nodes = sorted(grid.get_node_ids())
    sites = numbered(state.sites, nodes)
    request = run.request(state, number=max(state.number, 1), sites=len(nodes), final=final)
    scores, refused = ask_scores(grid, nodes, request, timeout=run.federation.round_timeout)
    reported: dict[str, Any] = {"auroc": pooled_auroc(list(scores.values())), "sites": len(scores)}
    if refused:
        reported["refused"] = {str(sites[str(node)]): reason for node, reason in refused.items()}
    return {sites[str(node)]: found for node, found in scores.items()}, reported


def _scores_sites(job: TrainingJob) -> bool:
    """Whether sites have scores to report for this part: of a final network, those of its folds together, if any."""
    run, reported = job.federation.experiment.run, job.federation.histograms.folds
    return job.part != FINAL or (bool(run.folds) and reported == "together")
