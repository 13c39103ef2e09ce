"""Exports a finished run as a model bundle: the final network's graph and a card fitted on the run's scores."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hemoscope.data.cache import open_cache
from hemoscope.errors import TrainingError
from hemoscope.inference.bundle import ModelBundle, write_bundle
from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.card import FederationRecord, ModelCard, ScoreTable, SplitRecord, TrainingData, parse_dataclass
from hemoscope.inference.card_statements import Statements
from hemoscope.training.data_splits import make_data_splits
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.training.fitted_card import Origin, folds_card, split_card
from hemoscope.training.models.checkpoint import load_weights
from hemoscope.training.models.export import onnx_graph, with_half_weights
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.models.sequence import SequenceNetwork, sequence_graph
from hemoscope.training.run_folder import read_split
from hemoscope.training.run_scores import check_finished, final_split, out_of_fold_scores, split_scores

# Only in a run that fine-tuned a federated model at one site.
FEDERATION_RECORD = "federation_record.json"


def export_run(
    run: Path,
    output: Path,
    *,
    version: str,
    others: Sequence[Path] = (),
    scores: Sequence[ScoreTable] = (),
    quantize: Path | None = None,
    half_weights: bool = False,
    statements: Statements | None = None,
) -> ModelBundle:
    """Write the bundle of a finished run, or of several that differ by their seed alone.

    Args:
        run: folder of the training run.
        output: folder of the bundle; must not exist.
        version: of the model, as shown in reports.
        others: runs of the same experiment from other seeds. One graph then holds all networks and gives their mean,
            and the card is fitted on the mean of their scores.
        scores: further evaluations for the card, such as of an external set.
        quantize: the cache that the run was trained on, for a graph in int8 beside the one in float32.
        half_weights: store the weights in float16, in half the space; they are computed with in float32.
        statements: in words, for the card; those that are missing are the software's own.

    Raises:
        TrainingError: a run is not finished, or its scores do not cover its slices once each; or the runs differ by
            more than their seed, or have one seed.
        BundleError: the output exists.
        DataError: the cache cannot be read.
        MissingExtraError: there shall be a graph in int8, and NNCF is not installed.
    """
    experiment = read_run(run)
    check_finished(run, experiment)
    seeds = _seeds(run, experiment, others)
    network = read_network(run / final_split(experiment), experiment)
    origin = Origin(
        experiment=experiment,
        dataset=read_dataset(run),
        split=read_split_record(run, experiment),
        embedding_size=network.embedding_size,
        federation=read_federation_record(run),
        seeds=seeds,
        half_weights=half_weights,
        statements=statements,
    )
    card = run_card(run, origin, version=version, others=others, scores=scores)
    reading = experiment.reading_preprocessing
    sequence = None if experiment.sequence is None else _sequence(run, experiment, network.embedding_size)
    graph = onnx_graph(
        network,
        channels=reading.channels,
        size=reading.size,
        mirror=experiment.reading.mirror,
        embedding=sequence is not None,
        others=[read_network(other / final_split(experiment), experiment) for other in others],
    )
    int8 = None if quantize is None else _int8(graph, experiment, quantize)
    return write_bundle(output, card, with_half_weights(graph) if half_weights else graph, sequence=sequence, int8=int8)


def _seeds(run: Path, experiment: Experiment, others: Sequence[Path]) -> tuple[int, ...]:
    """Return the seeds of runs whose networks can be averaged; none for a single run."""
    if not others:
        return ()
    if experiment.run.split != "folds" or experiment.sequence is not None:
        msg = f"{run.name} is of one split or has a sequence network. Only networks of runs on folds are averaged"
        raise TrainingError(msg)
    seeds = [experiment.run.seed]
    for other in others:
        found = read_run(other)
        check_finished(other, found)
        own = replace(experiment, name=found.name, description=found.description)
        if not found.same_training(replace(own, run=replace(experiment.run, seed=found.run.seed))):
            msg = f"{other.name} differs from {run.name} by more than its seed. Train it with the same experiment"
            raise TrainingError(msg)
        if found.run.seed in seeds:
            msg = f"{other.name} has seed {found.run.seed}, as another run. Train it with --set run.seed=N"
            raise TrainingError(msg)
        seeds.append(found.run.seed)
    return tuple(seeds)


def _int8(graph: bytes, experiment: Experiment, folder: Path) -> bytes:
    """The graph in int8, calibrated on images that the final network was trained on."""
    from hemoscope.training.quantize import calibration_inputs, quantized

    cache = open_cache(folder)
    trained_on = make_data_splits(experiment, cache)[-1].train
    return quantized(graph, calibration_inputs(cache, trained_on, experiment.reading_preprocessing))


def read_run(run: Path) -> Experiment:
    """Read the experiment of a run. Raises TrainingError if the folder holds none."""
    path = run / "experiment.json"
    if not path.is_file():
        msg = f"{run.name} is not a run folder: it holds no experiment.json. Train first: hemoscope train"
        raise TrainingError(msg)
    return parse_experiment(json.loads(path.read_text()), where=path.name)


def read_dataset(run: Path) -> TrainingData:
    """Read a run's training data. Raises TrainingError if the run does not state it."""
    path = run / "dataset.json"
    try:
        return parse_dataclass(TrainingData, json.loads(path.read_text()), where=path.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{run.name}/{path.name} does not describe the training data ({reason}). Train again"
        raise TrainingError(msg) from error


def read_federation_record(run: Path) -> FederationRecord | None:
    """Read how sites trained the initial weights; None if there is no such record. Raises TrainingError if damaged."""
    path = run / FEDERATION_RECORD
    if not path.is_file():
        return None
    try:
        return parse_dataclass(FederationRecord, json.loads(path.read_text()), where=path.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{run.name}/{path.name} does not describe the federated training ({reason}). Personalise the model again"
        raise TrainingError(msg) from error


def read_split_record(run: Path, experiment: Experiment) -> SplitRecord | None:
    """Read the split of a run; None for a run on folds. Raises TrainingError if it is missing."""
    if experiment.run.split == "folds":
        return None
    split = read_split(run)
    if split is None:
        msg = f"{run.name} lacks split.json, so its training slices are unknown. Train again"
        raise TrainingError(msg)
    return split


def run_card(
    run: Path, origin: Origin, *, version: str, others: Sequence[Path] = (), scores: Sequence[ScoreTable] = ()
) -> ModelCard:
    """Return the card of a finished run, fitted on its scores; arguments and errors as for :func:`export_run`."""
    experiment = origin.experiment
    rule = StudyRule(extent_mm=experiment.reading.extent_mm)
    if origin.split is None:
        found = out_of_fold_scores(run, experiment, rule, others=others)
        return folds_card(origin, found, rule, version=version, more=scores)
    validation, test = (split_scores(run, experiment, part, rule) for part in ("validation", "test"))
    assert test is not None
    return split_card(origin, validation, test, rule, version=version, more=scores)


def read_network(part: Path, experiment: Experiment) -> HemorrhageNetwork:
    """Load the network of a split's folder. Raises TrainingError if the weights do not fit the experiment."""
    learned = experiment.preprocessing
    network = HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size)
    load_weights(network, part / "weights.safetensors")
    return network


def _sequence(run: Path, experiment: Experiment, embedding_size: int) -> bytes:
    """The graph of the sequence network."""
    assert experiment.sequence is not None
    network = SequenceNetwork(experiment.sequence, embedding_size=embedding_size)
    load_weights(network, run / final_split(experiment) / "sequence.safetensors")
    return sequence_graph(network)
