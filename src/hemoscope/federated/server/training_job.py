"""What the server is to do for one part, and the records of it in the folder of the run."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.exchange.weights import Exchange, put
from hemoscope.federated.server.checkpoints import ROUND_LOG, RoundReport, RoundState, append_round_log, last_report
from hemoscope.federated.server.privacy import open_accountant, spent_epsilon
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.settings.names import SAFE_NAME
from hemoscope.progress import StageProgress, no_stage_progress
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_folder import versions, write_json

FEDERATION, EXPERIMENT, VERSIONS = "federation.json", "experiment.json", "versions.json"
WEIGHTS, RECORD = "weights.safetensors", "part.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One part of a federation, for the server.

    Attributes:
        federation: the settings.
        part: name of the part, such as ``fold-0``, ``final`` or ``split``.
        output: folder of the run.
        sites: that are expected; training begins when so many are connected.
        resume: go on after the last round on disk.
        numbers: asks the grid for the sites' numbers by node id; None numbers them as they are first seen.
        timeout: seconds to wait for all of them; then ``min_sites`` will do.
        show: called with the stage, how much of it is done, and how much there is.
    """

    federation: Federation
    part: str
    output: Path
    sites: int
    resume: bool = False
    numbers: Callable[[Grid], dict[str, int]] | None = None
    timeout: float = 120.0
    show: StageProgress = no_stage_progress

    def __post_init__(self) -> None:
        """Refuse a name that is no folder's, and fewer sites than a round needs. Raises ConfigError."""
        if not SAFE_NAME.fullmatch(self.part):
            msg = f"part {self.part!r} has an unsafe name. Parts are named like fold-0, final or split"
            raise ConfigError(msg)
        self.federation.check_sites(self.sites)

    @property
    def folder(self) -> Path:
        """Of the part."""
        return self.output / self.part


def open_job(job: TrainingJob) -> None:
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


def write_network(job: TrainingJob, network: HemorrhageNetwork, names: Exchange, state: RoundState) -> None:
    """Write the whole network, with the weights of a round put into it."""
    put(network, state.trained, names.trained)
    put(network, state.statistics, names.statistics)
    put(network, state.fixed, names.fixed)
    save_weights(network, job.folder / WEIGHTS)


def write_record(
    job: TrainingJob, state: RoundState, network: HemorrhageNetwork, *, ended: str, seconds: float
) -> None:
    """Write how the part was trained, as a card says it, and thereby that it is done."""
    lines = [json.loads(line) for line in (job.folder / ROUND_LOG).read_text().splitlines()]
    rounds = [line for line in lines if "used" in line]
    completed = [line for line in rounds if not line["void"]]
    federation = job.federation
    record = {
        "part": job.part,
        "federation": federation.name,
        "sites": len({site for line in completed for site in line["used"]}),
        "rounds": state.number,
        "local_epochs": federation.local_epochs,
        "strategy": federation.strategy.name,
        "batch_norm": federation.batch_norm,
        "weighting": federation.weighting,
        "secure_aggregation": federation.secure_aggregation.enabled,
        "epsilon": _epsilon(federation, state),
        "delta": federation.privacy.delta if federation.privacy.enabled else None,
        "used": sum(len(line["used"]) for line in completed),
        "lost": sum(len(line["lost"]) for line in rounds),
        "refused": sum(len(line["refused"]) for line in rounds),
        "void": sum(line["void"] for line in rounds),
        "ended": ended,
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_parameters": sum(array.size for array in state.trained.values()),
        "seconds": round(sum(line["seconds"] for line in rounds), 1),
        "seconds_of_this_run": round(seconds, 1),
    }
    write_json(job.folder / RECORD, record)


def _epsilon(federation: Federation, state: RoundState) -> float | None:
    """Spent so far, by the accountant that a round left."""
    if state.accountant is None:
        return None
    return spent_epsilon(open_accountant(federation, sites=len(state.sites), state=state.accountant))


def log_round(job: TrainingJob, report: RoundReport, reported: Mapping[str, Any] | None = None) -> None:
    """A line of the log: what happened in the round and, where sites scored, what they reported."""
    append_round_log(job.folder, {**report.to_json(), **({"scores": dict(reported)} if reported else {})})


def repair_log(job: TrainingJob, state: RoundState) -> None:
    """A line for the last round on disk, where the server was stopped before it wrote one."""
    path = job.folder / ROUND_LOG
    lines = path.read_text().splitlines() if path.is_file() else []
    completed = [line for line in map(json.loads, lines) if not line.get("void")]
    if state.number and not any(line["number"] == state.number for line in completed):
        report = last_report(job.folder) or RoundReport(number=state.number).to_json()
        append_round_log(job.folder, {**report, "reason": "the server was stopped after it"})
