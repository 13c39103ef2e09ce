"""After the last round: a site fits the federated model to its own patients, and nothing of that leaves it.

The head is trained on for a few epochs on the site's training part; backbone and batch norm's statistics stay as they
came. The site's validation part judges: unless its loss is lower afterwards, the federated head stays. Calibration and
thresholds are fitted on the validation part when the run is exported, as for every run on one split; of a label that
too few patients have, the card says so and fits nothing. The test part, which no training saw, scores both.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError, FederationError
from hemoscope.federated.exchange.shared_model import FEDERATION, RECORD, WEIGHTS, SharedModel
from hemoscope.federated.settings.federation import Federation
from hemoscope.federated.settings.site import Site
from hemoscope.federated.site.local_round import RoundPlace, RoundResult, score_part, scored, train_round
from hemoscope.federated.site.own_norm import load_local, save_local
from hemoscope.files import publish
from hemoscope.inference.card import to_plain
from hemoscope.progress import StageProgress, no_stage_progress
from hemoscope.training.data_module import resolved_loss
from hemoscope.training.data_splits import SPLIT, DataSplit, make_data_splits
from hemoscope.training.experiment import Experiment
from hemoscope.training.export import FEDERATION_RECORD
from hemoscope.training.losses import score_sums
from hemoscope.training.models.checkpoint import load_weights, save_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.run_folder import open_run, write_json
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores
from hemoscope.training.scoring import score_files
from hemoscope.training.train import TrainingRecord

__all__ = ["Judged", "Personalised", "load_local", "personalise", "save_local"]

# A head that is good already is moved gently: this share of the experiment's learning rate.
SLOWER = 0.1
BEFORE, OUTCOME = "federated", "personal.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A model's scores at the site, on the validation and the test part, and its loss on the former."""

    validation: SliceAndStudyScores
    test: SliceAndStudyScores
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Personalised:
    """How it came out.

    Attributes:
        before: the federated model.
        after: the model that is kept.
        own_head: whether its head is the site's own.
        tried: loss on the validation part after fine-tuning, whether that was kept or not.
    """

    before: Judged
    after: Judged
    own_head: bool
    tried: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Here:
    """A site's part of the experiment."""

    experiment: Experiment
    cache: Cache
    part: DataSplit
    folder: Path
    show: StageProgress


def personalise(
    site: Site,
    model: SharedModel,
    output: Path,
    *,
    epochs: int = 5,
    show: StageProgress = no_stage_progress,
) -> Personalised:
    """Fit a federated model to one site and leave the folder of a run, which ``hemoscope export`` turns into a bundle.

    The experiment's split, cut from this site's patients as in the rounds, says who trains, who judges and who tests.

    Args:
        site: whose patients. Its folder holds the crops and, under ``batch_norm = "local"``, its batch norm.
        model: what the federation left.
        output: folder of the run; must not exist. It appears whole or not at all.
        epochs: of the head.
        show: told the stage, how much of it is done, and how much there is.

    Raises:
        ConfigError: the federation's experiment has no validation part by patient, or there is no epoch.
        FederationError: the output exists; the site's own batch norm is needed and absent.
        TrainingError: the weights are of another network, or the training part has no batch.
        DataError: the site's data are absent, or too small for the split.
    """
    federation = model.federation
    _check(federation, output, epochs)
    if site.threads is not None:
        torch.set_num_threads(site.threads)
    experiment, cache = _experiment(federation, epochs), site.cache()
    (part,) = make_data_splits(experiment, cache)
    folder = site.work / federation.name / SPLIT
    here = _Here(experiment=experiment, cache=cache, part=part, folder=folder, show=show)
    network = _federated(model, folder)
    staged = output.with_name(f"{output.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    result, found = _fit(here, network, staged)
    _write_run(here, model, network, staged, result, found)
    publish(staged, output)
    return found


def _check(federation: Federation, output: Path, epochs: int) -> None:
    if not federation.experiment.run.validation_share:
        msg = (
            f"{federation.name} trained without a validation part by patient, so nothing can judge what a site changes "
            'or set its thresholds. Federate an experiment with run.split = "patient" and run.validation above 0'
        )
        raise ConfigError(msg)
    if epochs < 1:
        msg = f"epochs must be at least 1, got {epochs}"
        raise ConfigError(msg)
    if output.exists():
        msg = f"{output.name} exists already. Choose a new --output"
        raise FederationError(msg)


def _experiment(federation: Federation, epochs: int) -> Experiment:
    """What the run's record says: the federation's experiment, its head trained on slowly for these epochs."""
    experiment, optimizer = federation.experiment, federation.experiment.optimizer
    how = (
        f"Trained by several sites together ({federation.name}), then personalised at one: its head, calibration and "
        "thresholds are fitted to that site's patients"
    )
    return replace(
        experiment,
        name=f"{experiment.name}-personal",
        description=f"{experiment.description.rstrip('. ')}. {how}".removeprefix(". "),
        run=replace(experiment.run, epochs=epochs, max_steps=0),
        optimizer=replace(optimizer, learning_rate=optimizer.learning_rate * SLOWER),
    )


def _federated(model: SharedModel, folder: Path) -> HemorrhageNetwork:
    """The model as this site knew it in the rounds."""
    federation = model.federation
    learned = federation.experiment.preprocessing
    network = HemorrhageNetwork(federation.experiment.network, channels=learned.channels, size=learned.size)
    load_weights(network, model.weights)
    if federation.batch_norm == "local" and not load_local(network, folder):
        msg = (
            f"in {federation.name} every site has its own batch norm, and this site has none: it took no part, or its "
            'work folder was emptied. A site that comes later needs a federation with batch_norm = "shared"'
        )
        raise FederationError(msg)
    return network


def _fit(here: _Here, network: HemorrhageNetwork, output: Path) -> tuple[RoundResult, Personalised]:
    """Train the head in place, and put the federated one back where the validation part is not for the new."""
    before = _judged(here, network, output / BEFORE, "scoring before")
    federated = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.backbone.requires_grad_(False)
    place = RoundPlace(number=1, rounds=1, epochs=here.experiment.run.epochs)
    result = train_round(
        network, here.experiment, here.cache, here.part, here.folder, place, batch_norm="fixed", show=here.show
    )
    after = _judged(here, network, output / SPLIT, "scoring after")
    own_head = after.loss < before.loss
    if not own_head:
        network.load_state_dict(federated)
        shutil.copytree(output / BEFORE, output / SPLIT, dirs_exist_ok=True)
    kept = after if own_head else before
    return result, Personalised(before=before, after=kept, own_head=own_head, tried=after.loss)


def _judged(here: _Here, network: HemorrhageNetwork, folder: Path, stage: str) -> Judged:
    """Score the validation and the test part into a folder."""
    found: list[SliceAndStudyScores] = []
    for name, images in score_files(here.part):
        path = folder / name
        score_part(network, here.experiment, here.cache, images, path, lambda n, of: here.show(stage, n, of))
        found.append(scored(path.parent, [path.name], here.experiment, here.cache))
    validation, test = found
    return Judged(validation=validation, test=test, loss=_loss(here, validation.slices))


def _loss(here: _Here, scores: LevelScores) -> float:
    """The weighted cross-entropy of scores, as training validates."""
    config = resolved_loss(here.experiment, here.cache, here.part)
    total, count = score_sums(torch.from_numpy(scores.logits), torch.from_numpy(scores.truth), config)
    return float(total / count)


def _write_run(
    here: _Here, model: SharedModel, network: HemorrhageNetwork, output: Path, result: RoundResult, found: Personalised
) -> None:
    """What a training leaves that ``export`` needs, and how this model came about."""
    save_weights(network, output / SPLIT / WEIGHTS)
    record = TrainingRecord(
        part=SPLIT,
        init=f"the federated model of {model.federation.name}",
        parameters=sum(p.numel() for p in network.parameters()),
        trained_parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        learned=len(here.part.train),
        validated=len(here.part.validation),
        scored=len(here.part.test),
        processes=1,
        epochs=here.experiment.run.epochs,
        steps=result.steps,
        best_epoch=None,
        seconds=result.seconds,
        losses={"train/loss": result.loss, "validation/loss": found.after.loss},
    )
    write_json(output / SPLIT / RECORD, asdict(record))
    loss = {"federated": found.before.loss, "fine-tuned": found.tried}
    write_json(output / OUTCOME, {"own_head": found.own_head, "validation_loss": loss})
    write_json(output / FEDERATION, model.federation.to_json())
    write_json(output / FEDERATION_RECORD, to_plain(model.record))
    open_run(here.experiment, here.cache, output, here.part, resume=True)
