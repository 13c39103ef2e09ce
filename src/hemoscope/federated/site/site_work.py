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
from hemoscope.federated.exchange.histograms import score_histograms
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
from hemoscope.federated.exchange.updates import clipped
from hemoscope.federated.exchange.weights import Exchange, exchange, put, take
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.federated.settings.site import Site
from hemoscope.federated.settings.site_policy import cell_size, check_masked, check_request, part_folder
from hemoscope.federated.site.local_round import RoundPlace, RoundResult, score_part, scored, train_round
from hemoscope.federated.site.own_norm import LOCAL, load_local, save_local
from hemoscope.federated.site.secure_site import Contribution
from hemoscope.federated.site.told_scores import count_telling
from hemoscope.files import write_bytes
from hemoscope.training.data_splits import FINAL, SPLIT, DataSplit, make_data_splits
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_folder import write_json

_NORM, _BEFORE = "local.json", "before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A request that this site's policy let through, with what it is done with."""

    site: Site
    federation: Federation
    request: Request
    cache: Cache
    part: DataSplit
    folder: Path


def take_up(site: Site, request: Request) -> Work:
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
        msg = f"the message speaks of {request.rounds} rounds, its federation of {federation.rounds}. Start it anew"
        raise FederationError(msg)
    folder = part_folder(site, federation, request.part)
    if site.threads is not None:
        torch.set_num_threads(site.threads)
    cache = site.cache()
    part = _part(federation.experiment, cache, request.part)
    return Work(site=site, federation=federation, request=request, cache=cache, part=part, folder=folder)


def train_reply(work: Work) -> TrainReply:
    """Train one round and answer in the clear. Raises PolicyRefusalError where masks were promised."""
    check_masked(work.federation, masked=False)
    network, result = _trained(work)
    names = exchange(network, work.federation.batch_norm)
    return TrainReply(
        trained=_shortened(work, take(network, names.trained)),
        statistics=take(network, names.statistics),
        weight=_weight(work, result),
        loss=_loss(work, result),
    )


def contribution(work: Work) -> Contribution:
    """Train one round and answer with what is masked. Raises PolicyRefusalError where no masks were promised."""
    check_masked(work.federation, masked=True)
    network, result = _trained(work)
    names = exchange(network, work.federation.batch_norm)
    vector = secure_vector(
        _shortened(work, take(network, names.trained)),
        work.request.trained,
        take(network, names.statistics),
        work.request.statistics,
        reach=_reach(work.federation),
    )
    loss = _loss(work, result)
    weight = min(_weight(work, result), float(work.federation.limits.max_weight))
    return Contribution(vector=vector, weight=weight, metrics={} if loss is None else {"loss": loss})


def score_texts(work: Work) -> dict[str, str]:
    """Score what the part holds out, keep the rows here, and answer with histograms as JSON, so often and no more.

    Raises:
        PolicyRefusalError: scores of this part left as often as the site's policy lets them.
    """
    texts = _score_texts(work)
    if texts:
        count_telling(work.folder, most=work.site.policy.max_evaluations)
    return texts


def _score_texts(work: Work) -> dict[str, str]:
    """Histograms by what they are of.

    Of folds, the held-out patients: of each fold, or of all together when the final network is done; of a split, the
    test part and, after the last round, the validation part.
    """
    network = None
    texts: dict[str, str] = {}
    together = work.federation.histograms.folds == "together"
    if work.part.name == FINAL:
        return _of_all_folds(work) if together else texts
    for images, file, slices, studies in _held_out(work):
        network = network or _scoring_network(work)
        path = work.folder / file
        score_part(network, work.federation.experiment, work.cache, images, path)
        if work.part.name == SPLIT or not together:
            texts |= _histograms(work, path.parent, [path.name], slices, studies)
    return texts


def _of_all_folds(work: Work) -> dict[str, str]:
    """Every patient of this site as the fold that never saw it scored it; nothing where a fold was not scored here."""
    folds = [f"fold-{fold}/scores.csv" for fold in range(work.federation.experiment.run.folds)]
    if not folds or not all((work.folder.parent / name).is_file() for name in folds):
        return {}
    return _histograms(work, work.folder.parent, folds, SLICES, STUDIES)


def _histograms(work: Work, folder: Path, names: Sequence[str], slices: str, studies: str) -> dict[str, str]:
    found = scored(folder, names, work.federation.experiment, work.cache)
    cell = cell_size(work.site.policy, work.federation)
    return {
        slices: score_histograms(found.slices, level="slice", least_cell=cell).to_json(),
        studies: score_histograms(found.studies, level="patient", least_cell=cell).to_json(),
    }


def _held_out(work: Work) -> Iterator[tuple[tuple[str, ...], str, str, str]]:
    """Images that are scored, the file for their scores, and what their histograms are called."""
    name = "scores-test.csv" if work.part.name == SPLIT else "scores.csv"
    if work.part.test:
        yield work.part.test, name, SLICES, STUDIES
    if work.part.validation and work.request.final:
        yield work.part.validation, "scores-validation.csv", VALIDATION_SLICES, VALIDATION_STUDIES


def _part(experiment: Experiment, cache: Cache, name: str) -> DataSplit:
    """The part by name, cut from this site's patients."""
    parts = make_data_splits(experiment, cache)
    found = [part for part in parts if part.name == name]
    if not found:
        msg = f"the experiment has no such part. It has {', '.join(part.name for part in parts)}"
        raise FederationError(msg)
    return found[0]


def _network(work: Work) -> HemorrhageNetwork:
    """The network with the server's weights."""
    experiment = work.federation.experiment
    learned = experiment.preprocessing
    network = HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size)
    names: Exchange = exchange(network, work.federation.batch_norm)
    put(network, work.request.trained, names.trained)
    put(network, work.request.statistics, names.statistics)
    put(network, work.request.fixed, names.fixed)
    return network


def _trained(work: Work) -> tuple[HemorrhageNetwork, RoundResult]:
    federation, request = work.federation, work.request
    network = _network(work)
    local = federation.batch_norm == "local"
    if local and (own := _norm_before(work)) is not None:
        load_local(network, own)
    work.folder.mkdir(parents=True, exist_ok=True)
    result = train_round(
        network,
        federation.experiment,
        work.cache,
        work.part,
        work.folder,
        RoundPlace(number=request.number, rounds=request.rounds, epochs=federation.local_epochs),
        proximal=federation.strategy.proximal if federation.strategy.name == "fedprox" else 0.0,
        batch_norm=federation.batch_norm,
    )
    if local:
        _keep_norm(work, network)
    return network, result


def _scoring_network(work: Work) -> HemorrhageNetwork:
    """The network as this site would use it: with its own batch norm, where it trained in this federation."""
    network = _network(work)
    if work.federation.batch_norm == "local" and 0 < _norm_round(work) <= work.request.number:
        load_local(network, work.folder)
    return network


def _norm_before(work: Work) -> Path | None:
    """Where the batch norm lies that this round begins with; None: it begins with the server's values.

    A round may be asked for again, when it was void, and then begins where it began before.
    """
    number, done = work.request.number, _norm_round(work)
    if number == 1 or not 0 < done <= number:
        return None
    return work.folder / _BEFORE if done == number else work.folder


def _keep_norm(work: Work, network: HemorrhageNetwork) -> None:
    """Keep batch norm after a round, and as it was before it."""
    begun, before = _norm_before(work), work.folder / _BEFORE
    if begun != before:
        shutil.rmtree(before, ignore_errors=True)
        if begun is not None:
            before.mkdir()
            write_bytes(before / LOCAL, (begun / LOCAL).read_bytes())
    save_local(network, work.folder)
    write_json(work.folder / _NORM, {"federation": _fingerprint(work), "round": work.request.number})


def _norm_round(work: Work) -> int:
    """The round after which batch norm was kept here; 0 where there is none, or of another federation."""
    try:
        kept = json.loads((work.folder / _NORM).read_text())
        return int(kept["round"]) if kept["federation"] == _fingerprint(work) else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _fingerprint(work: Work) -> str:
    return hashlib.sha256(work.request.federation.encode()).hexdigest()


def _shortened(work: Work, trained: Arrays) -> Arrays:
    """The weights, their change no longer than the server will not be able to check."""
    norm = work.federation.clipping_norm
    return trained if norm is None else clipped(trained, work.request.trained, norm)


def _weight(work: Work, result: RoundResult) -> float:
    counts = {"slices": result.slices, "positives": result.positives, "uniform": 1}
    return float(counts[work.federation.weighting])


def _loss(work: Work, result: RoundResult) -> float | None:
    """The loss, but where noise protects the update: it would leave without any."""
    return None if work.federation.privacy.enabled else result.loss


def _reach(federation: Federation) -> float:
    assert federation.clipping_norm is not None  # with secure aggregation there always is one
    return federation.clipping_norm
