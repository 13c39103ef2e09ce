"""``hemoscope reproduce``: the numbers of the paper beside recomputed ones, on one page."""

import argparse
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar

if TYPE_CHECKING:
    from hemoscope.evaluation.reproduction import PaperData

DATA_VARIABLE = "HEMOSCOPE_DATA"
_TIMING_PACKAGES = ("torch", "timm", "onnxscript")
# The folder of the paper's predictions and labels inside the data folder, and its files.
_PAPER_FOLDER, _PREDICTIONS, _LABELS = "rsna-paper", "predictions.csv.gz", "labels.csv.gz"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    paper = what.add_parser("paper", help="every number of Lewicki et al. 2020")
    add = paper.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="reproduction.html, reproduction.json, PNGs")
    default = f"default: those in ${DATA_VARIABLE}/{_PAPER_FOLDER}, if they are there"
    add("--predictions", type=Path, metavar="P.csv", help=f"the paper's predictions, as for evaluate ({default})")
    add("--labels", type=Path, metavar="L.csv", help="the official labels of the same images")
    add("--groups", metavar="COLUMN", help="column that names the patient, to resample patients")
    add("--rsna-labels", type=Path, metavar="CSV", help="stage_2_train.csv of RSNA 2019, to count the whole dataset")
    add("--rounds", type=_positive, default=200, metavar="N", help="bootstrap rounds (default: 200)")
    add("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    add("--timing", action="store_true", help="measure the paper's network on this machine too (extra train; minutes)")
    add("--slices", type=Path, metavar="PATH", help="with --timing: a series of head CT as DICOM")
    paper.set_defaults(run=run_paper)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        msg = f"expected a number above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def run_paper(arguments: argparse.Namespace) -> int:
    """Write the page, and print how many numbers were reproduced."""
    from hemoscope.evaluation.reproduction import reproduce_paper

    data = _data(arguments)
    timing = _timing(arguments)
    document = reproduce_paper(arguments.output, data, timing=timing, rounds=arguments.rounds, seed=arguments.seed)
    for status, count in document["counts"].items():
        sys.stdout.write(f"{count:>4} {status}\n")
    if data.predictions is None:
        sys.stdout.write(f"No predictions: give --predictions and --labels, or {DATA_VARIABLE}\n")
    sys.stdout.write(f"written to {arguments.output}: open reproduction.html\n")
    return ExitCode.OK


def _data(arguments: argparse.Namespace) -> "PaperData":
    """The files that were given, or those of the data folder."""
    from hemoscope.errors import ConfigError
    from hemoscope.evaluation.reproduction import PaperData

    predictions, labels = arguments.predictions, arguments.labels
    if (predictions is None) != (labels is None):
        msg = "--predictions and --labels belong together. Give both, or neither"
        raise ConfigError(msg)
    if predictions is None and os.environ.get(DATA_VARIABLE):
        folder = Path(os.environ[DATA_VARIABLE]) / _PAPER_FOLDER
        if (folder / _PREDICTIONS).is_file() and (folder / _LABELS).is_file():
            predictions, labels = folder / _PREDICTIONS, folder / _LABELS
    if predictions is None and arguments.groups is not None:
        msg = "--groups names a column of the predictions or labels. Give --predictions and --labels"
        raise ConfigError(msg)
    return PaperData(
        predictions=predictions, labels=labels, group_column=arguments.groups, rsna_labels=arguments.rsna_labels
    )


def _timing(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Measure the deployment, if that was asked for."""
    from hemoscope.errors import ConfigError, MissingExtraError

    if arguments.timing != (arguments.slices is not None):
        msg = "--timing and --slices belong together: --slices is the series of head CT that is read. Give both"
        raise ConfigError(msg)
    if not arguments.timing:
        return None
    for package in _TIMING_PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package=package, extra="train")
    from hemoscope.training.deployment_timing import measure_deployment

    with progress_bar() as show:
        return measure_deployment(arguments.slices, progress=partial(show, "timing"))
