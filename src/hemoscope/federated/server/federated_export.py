"""From a federation's run to a model bundle: the sites' common network, and a card fitted on their histograms."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.shared_model import FEDERATION, RECORD, WEIGHTS, read_record
from hemoscope.federated.server.federated_card import (
    HISTOGRAMS,
    SiteHistograms,
    federated_folds_card,
    federated_split_card,
    read_histograms,
)
from hemoscope.federated.settings.federation import Federation, parse_federation
from hemoscope.inference.bundle import ModelBundle, write_bundle
from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.card import FederationRecord, ModelCard, TrainingData
from hemoscope.training.data_splits import FINAL, SPLIT
from hemoscope.training.export import read_network
from hemoscope.training.fitted_card import Origin
from hemoscope.training.models.export import onnx_graph
from hemoscope.training.run_scores import final_split
from hemoscope.version import __version__


def export_federation(run: Path, output: Path, *, version: str) -> ModelBundle:
    """Write the bundle of a finished federation.

    Args:
        run: the folder that the server left.
        output: where the bundle goes; must not exist.
        version: of the model, as it will stand in reports.

    Raises:
        FederationError: the run is not finished or damaged, or the sites kept their batch norm to themselves.
        ConfigError: ``federation.json`` is of another version.
        TrainingError: the weights are of another network.
        BundleError: the output exists.
    """
    federation = _read_federation(run)
    if federation.batch_norm == "local":
        msg = (
            f'{run.name} was trained with batch_norm = "local": each site kept its own, so no network is whole. '
            "Export one at a site: hemoscope federated personalise SITE.toml ..., then hemoscope export"
        )
        raise FederationError(msg)
    experiment = federation.experiment
    part = run / final_split(experiment)
    _check_finished(run, federation)
    record = read_record(part / RECORD, personalised=False)
    network = read_network(part, experiment)
    card = _card(run, federation, record, embedding_size=network.embedding_size, version=version)
    reading = experiment.reading_preprocessing
    mirror = experiment.reading.mirror
    graph = onnx_graph(network, channels=reading.channels, size=reading.size, mirror=mirror)
    return write_bundle(output, card, graph)


def _read_federation(run: Path) -> Federation:
    path = run / FEDERATION
    if not path.is_file():
        msg = f"{run.name} is not the folder of a federation: it holds no {FEDERATION}. Give the server's --output"
        raise FederationError(msg)
    return parse_federation(path.read_text(), where=path.name)


def _scored_parts(federation: Federation) -> list[str]:
    """The parts whose histograms describe the model."""
    run = federation.experiment.run
    if run.split != "folds":
        return [SPLIT]
    if federation.histograms.folds == "together":
        return [FINAL] if run.folds else []
    return [f"fold-{fold}" for fold in range(run.folds)]


def _check_finished(run: Path, federation: Federation) -> None:
    """Raise FederationError for a run that lacks what a bundle is made of."""
    scored = _scored_parts(federation)
    if not scored:
        msg = f"{run.name} has no folds, so no score that calibration could be fitted on. Federate with run.folds = 5"
        raise FederationError(msg)
    last = final_split(federation.experiment)
    needed = [f"{part}/{HISTOGRAMS}" for part in scored] + [f"{last}/{RECORD}", f"{last}/{WEIGHTS}"]
    absent = [name for name in needed if not (run / name).is_file()]
    if absent:
        remedy = "Train these parts too, or go on with them: hemoscope federated run ... --resume"
        msg = f"{run.name} lacks {', '.join(absent)}. {remedy}"
        raise FederationError(msg)


def _card(
    run: Path, federation: Federation, record: FederationRecord, *, embedding_size: int, version: str
) -> ModelCard:
    experiment = federation.experiment
    parts = [read_histograms(run / name) for name in _scored_parts(federation)]
    if experiment.run.split == "folds":
        record = _with_sizes(record, [part.score for part in parts])
    origin = Origin(
        experiment=experiment,
        dataset=_sites_data(federation, record),
        split=None,
        embedding_size=embedding_size,
        federation=record,
    )
    rule = StudyRule(extent_mm=experiment.reading.extent_mm)
    if experiment.run.split == "folds":
        card = federated_folds_card(origin, [part.score for part in parts], rule, version=version)
    else:
        card = federated_split_card(origin, parts[0], rule, version=version)
    said = f"{federation.description or experiment.description}".rstrip(". ")
    how = f"{record.sites} sites trained it together, each on its own images, which never left it"
    description = f"{said}. {how}. Trained with Hemoscope {__version__}.".removeprefix(". ")
    return replace(card, name=f"hemoscope-{federation.name}", description=description)


def _with_sizes(record: FederationRecord, folds: Sequence[SiteHistograms]) -> FederationRecord:
    """Slices and patients of all sites together, for each is scored in one fold; None where a site reported none."""
    reported = [site for fold in folds for site in fold.slices]
    slices = sum(site.rows for site in reported) if all(site.rows for site in reported) else 0
    # A small number of patients is reported as the least that it can be.
    patients = (
        sum(site.patients for site in reported) if all(site.patients >= site.least_cell for site in reported) else 0
    )
    return replace(record, slices=slices or None, patients=patients or None)


def _sites_data(federation: Federation, record: FederationRecord) -> TrainingData:
    """The sites' data as far as anybody but them can describe it."""
    counted = [
        f"{number} {what}"
        for number, what in ((record.patients, "patients"), (record.slices, "slices"))
        if number is not None
    ]
    how_many = f", {' and '.join(counted)}" if counted else ""
    return TrainingData(
        name=f"{record.sites} sites of the federation {federation.name}",
        version="as they stood at the sites",
        doi="",
        license="terms known to the sites alone",
        attribution=f"Images and labels of {record.sites} sites{how_many}; they stayed there.",
        changes="prepared by each site with hemoscope prepare.",
    )
