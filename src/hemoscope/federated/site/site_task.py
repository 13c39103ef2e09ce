"""What a site does for one request: the code of local training and scoring, on its own data and the server's weights.

All of it happens in the site's own folder, ``WORK/FEDERATION/PART``: the same for every round, and for a server that
was stopped and goes on.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hemoscope.data.cache import Cache
from hemoscope.errors import FederationError
from hemoscope.federated.exchange.histograms import CellCounts, count_cells, score_histograms
from hemoscope.federated.exchange.messages import (
    SLICES,
    STUDIES,
    VALIDATION_SLICES,
    VALIDATION_STUDIES,
    Arrays,
    Request,
    TrainReply,
)
from hemoscope.federated.exchange.secure_vector import secure_vector
from hemoscope.federated.exchange.update_checks import clipped
from hemoscope.federated.exchange.weights import Exchange, exchange, put, take
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.settings.site import Site
from hemoscope.federated.settings.site_policy import (
    PolicyRefusalError,
    cell_size,
    check_masked,
    check_request,
    part_folder,
)
from hemoscope.federated.site.local_batch_norm import LOCAL, load_batch_norm, save_batch_norm
from hemoscope.federated.site.local_round import RoundPlace, RoundResult, score_part, scored, train_round
from hemoscope.federated.site.secure_site import Contribution
from hemoscope.files import write_bytes
from hemoscope.training.data_splits import FINAL, SPLIT, DataSplit, make_data_splits
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_folder import write_json

_NORM, _BEFORE = "local.json", "before"
EVALUATIONS, _OLD_EVALUATIONS = "evaluations.json", "told.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTask:
    """A request that this site's policy let through, with what it is done with."""

    site: Site
    federation: Federation
    request: Request
    cache: Cache
    part: DataSplit
    folder: Path


def validate_request(site: Site, request: Request) -> SiteTask:
    """Check a request against the site's policy, and find the part among the site's own.

    Raises:
        PolicyRefusalError: the policy does not allow it.
        ConfigError: the federation's settings are none.
        FederationError: there is no such part.
        DataError: the site's data are absent, or too small for the part.
    """
    federation = parse_federation(request.federation)
    check_request(site.policy, federation, sites=request.sites)
    if request.rounds != federation.rounds:
        msg = f"the message is for {request.rounds} rounds, its federation of {federation.rounds}. Start it anew"
        raise FederationError(msg)
    folder = part_folder(site, federation, request.part)
    if site.threads is not None:
        torch.set_num_threads(site.threads)
    cache = site.cache()
    part = _part(federation.experiment, cache, request.part)
    return SiteTask(site=site, federation=federation, request=request, cache=cache, part=part, folder=folder)


def train_reply(task: SiteTask) -> TrainReply:
    """Train one round and answer in the clear. Raises PolicyRefusalError where masks were promised."""
    check_masked(task.federation, masked=False)
    network, result = _trained(task)
    names = exchange(network, task.federation.batch_norm)
    return TrainReply(
        trained=_shortened(task, take(network, names.trained)),
        statistics=take(network, names.statistics),
        weight=_weight(task, result),
        loss=_loss(task, result),
    )


def contribution(task: SiteTask) -> Contribution:
    """Train one round and answer with what is masked. Raises PolicyRefusalError where no masks were promised."""
    check_masked(task.federation, masked=True)
    network, result = _trained(task)
    names = exchange(network, task.federation.batch_norm)
    vector = secure_vector(
        _shortened(task, take(network, names.trained)),
        task.request.trained,
        take(network, names.statistics),
        task.request.statistics,
        clipping_range=_clipping_range(task.federation),
    )
    loss = _loss(task, result)
    weight = min(_weight(task, result), float(task.federation.limits.max_weight))
    return Contribution(vector=vector, weight=weight, metrics={} if loss is None else {"loss": loss})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReply:
    """Histograms as JSON by what they are of; ``cells`` is for the site alone and does not leave it."""

    texts: dict[str, str]
    cells: CellCounts


def score_reply(task: SiteTask) -> ScoreReply:
    """Score what the part holds out, keep the rows here, and answer with histograms, so often and no more.

    Raises:
        PolicyRefusalError: scores of this part left as often as the site's policy lets them.
    """
    reply = _score_reply(task)
    if reply.texts:
        spend_evaluation(task.folder, most=task.site.policy.max_evaluations)
    return reply


def spend_evaluation(folder: Path, *, most: int) -> None:
    """Record one more evaluation of a part, before its histograms leave.

    Histograms of the same patients under many weights give single scores away, so a site limits their number.

    Args:
        folder: of the part at this site.
        most: the evaluation budget.

    Raises:
        PolicyRefusalError: the budget is spent.
        FederationError: the record is damaged; starting at 0 would let damage extend the budget.
    """
    path, old = folder / EVALUATIONS, folder / _OLD_EVALUATIONS
    found = path if path.exists() else old
    times = _evaluations(found) if found.exists() else 0
    if times >= most:
        msg = f"This site reports its scores at most {most} times a part."
        raise PolicyRefusalError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"times": times + 1})


def _evaluations(path: Path) -> int:
    try:
        return int(json.loads(path.read_text())["times"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path.name} does not count evaluations ({type(error).__name__}). Correct it from audit.jsonl"
        raise FederationError(msg) from error


def _score_reply(task: SiteTask) -> ScoreReply:
    """Histograms by what they are of, and their cells.

    Of folds, the held-out patients: of each fold, or of all together when the final network is done; of a split, the
    test part and, after the last round, the validation part.
    """
    network = None
    found = ScoreReply(texts={}, cells=CellCounts(0, 0))
    together = task.federation.histograms.folds == "together"
    if task.part.name == FINAL:
        return _of_all_folds(task) if together else found
    for images, file, slices, studies in _held_out(task):
        network = network or _scoring_network(task)
        path = task.folder / file
        score_part(network, task.federation.experiment, task.cache, images, path)
        if task.part.name == SPLIT or not together:
            more = _histograms(task, path.parent, [path.name], slices, studies)
            found = ScoreReply(texts=found.texts | more.texts, cells=found.cells + more.cells)
    return found


def _of_all_folds(task: SiteTask) -> ScoreReply:
    """Every patient of this site as the fold that never saw it scored it; nothing where a fold was not scored here."""
    folds = [f"fold-{fold}/scores.csv" for fold in range(task.federation.experiment.run.folds)]
    if not folds or not all((task.folder.parent / name).is_file() for name in folds):
        return ScoreReply(texts={}, cells=CellCounts(0, 0))
    return _histograms(task, task.folder.parent, folds, SLICES, STUDIES)


def _histograms(task: SiteTask, folder: Path, names: Sequence[str], slices: str, studies: str) -> ScoreReply:
    found = scored(folder, names, task.federation.experiment, task.cache)
    cell = cell_size(task.site.policy, task.federation)
    of_slices = score_histograms(found.slices, level="slice", least_cell=cell)
    of_studies = score_histograms(found.studies, level="patient", least_cell=cell)
    return ScoreReply(
        texts={slices: of_slices.to_json(), studies: of_studies.to_json()},
        cells=count_cells(found.slices, of_slices) + count_cells(found.studies, of_studies),
    )


def _held_out(task: SiteTask) -> Iterator[tuple[tuple[str, ...], str, str, str]]:
    """Images that are scored, the file for their scores, and what their histograms are called."""
    name = "scores-test.csv" if task.part.name == SPLIT else "scores.csv"
    if task.part.test:
        yield task.part.test, name, SLICES, STUDIES
    if task.part.validation and task.request.final:
        yield task.part.validation, "scores-validation.csv", VALIDATION_SLICES, VALIDATION_STUDIES


def _part(experiment: Experiment, cache: Cache, name: str) -> DataSplit:
    """The part by name, cut from this site's patients."""
    parts = make_data_splits(experiment, cache)
    found = [part for part in parts if part.name == name]
    if not found:
        msg = f"the experiment has no such part. It has {', '.join(part.name for part in parts)}"
        raise FederationError(msg)
    return found[0]


def _network(task: SiteTask) -> HemorrhageNetwork:
    """The network with the server's weights."""
    experiment = task.federation.experiment
    learned = experiment.preprocessing
    network = HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size)
    names: Exchange = exchange(network, task.federation.batch_norm)
    put(network, task.request.trained, names.trained)
    put(network, task.request.statistics, names.statistics)
    put(network, task.request.fixed, names.fixed)
    return network


def _trained(task: SiteTask) -> tuple[HemorrhageNetwork, RoundResult]:
    federation, request = task.federation, task.request
    network = _network(task)
    local = federation.batch_norm == "local"
    if local and (own := _norm_before(task)) is not None:
        load_batch_norm(network, own)
    task.folder.mkdir(parents=True, exist_ok=True)
    result = train_round(
        network,
        federation.experiment,
        task.cache,
        task.part,
        task.folder,
        RoundPlace(number=request.number, rounds=request.rounds, epochs=federation.local_epochs),
        proximal=federation.strategy.proximal if federation.strategy.name == "fedprox" else 0.0,
        batch_norm=federation.batch_norm,
    )
    if local:
        _keep_norm(task, network)
    return network, result


def _scoring_network(task: SiteTask) -> HemorrhageNetwork:
    """The network as this site would use it: with its own batch norm, where it trained in this federation."""
    network = _network(task)
    if task.federation.batch_norm == "local" and 0 < _norm_round(task) <= task.request.number:
        load_batch_norm(network, task.folder)
    return network


def _norm_before(task: SiteTask) -> Path | None:
    """Where the batch norm lies that this round begins with; None: it begins with the server's values.

    A round may be asked for again, when it was void, and then begins where it began before.
    """
    number, done = task.request.number, _norm_round(task)
    if number == 1 or not 0 < done <= number:
        return None
    return task.folder / _BEFORE if done == number else task.folder


def _keep_norm(task: SiteTask, network: HemorrhageNetwork) -> None:
    """Keep batch norm after a round, and as it was before it."""
    begun, before = _norm_before(task), task.folder / _BEFORE
    if begun != before:
        shutil.rmtree(before, ignore_errors=True)
        if begun is not None:
            before.mkdir()
            write_bytes(before / LOCAL, (begun / LOCAL).read_bytes())
    save_batch_norm(network, task.folder)
    write_json(task.folder / _NORM, {"federation": _fingerprint(task), "round": task.request.number})


def _norm_round(task: SiteTask) -> int:
    """The round after which batch norm was kept here; 0 where there is none, or of another federation."""
    try:
        kept = json.loads((task.folder / _NORM).read_text())
        return int(kept["round"]) if kept["federation"] == _fingerprint(task) else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _fingerprint(task: SiteTask) -> str:
    return hashlib.sha256(task.request.federation.encode()).hexdigest()


def _shortened(task: SiteTask, trained: Arrays) -> Arrays:
    """The weights, their change no longer than the server will not be able to check."""
    norm = task.federation.clipping_norm
    return trained if norm is None else clipped(trained, task.request.trained, norm)


def _weight(task: SiteTask, result: RoundResult) -> float:
    counts = {"slices": result.slices, "positives": result.positives, "uniform": 1}
    return float(counts[task.federation.weighting])


def _loss(task: SiteTask, result: RoundResult) -> float | None:
    """The loss, but where noise protects the update: it would leave without any."""
    return None if task.federation.privacy.enabled else result.loss


def _clipping_range(federation: Federation) -> float:
    assert federation.clipping_norm is not None  # with secure aggregation there always is one
    return federation.clipping_norm
