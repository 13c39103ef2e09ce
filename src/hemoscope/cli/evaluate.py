"""``hemoscope evaluate``: scores of predictions, or of a model on a prepared dataset or DICOM, with intervals."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.limits import add_limit_option
from hemoscope.cli.progress import progress_bar
from hemoscope.cli.table_options import (
    add_table_options,
    check_needed,
    column_names,
    images_root,
    preview_images,
    preview_predictions,
    print_notes,
)

if TYPE_CHECKING:
    from hemoscope.evaluation.assessment import Assessment
    from hemoscope.evaluation.clinical_inputs import ClinicalInputs
    from hemoscope.evaluation.evaluation_context import EvaluationContext
    from hemoscope.evaluation.prediction_files import LabelledPredictions
    from hemoscope.inference.card import ModelCard


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="CACHE", help="a dataset prepared by hemoscope prepare")
    source.add_argument("--predictions", type=Path, metavar="P.csv", help="image_id and the six labels' probabilities")
    source.add_argument("--images", type=Path, metavar="DIR", help="DICOM files named after their image ids")
    add(
        "--split",
        choices=("train", "validation", "test", "all"),
        default="test",
        help="with --data: the set to score, of the split that the model's card records (%(default)s)",
    )
    add("--labels", type=Path, metavar="L.csv", help="image_id and six columns; empty is unknown (not with --data)")
    add("--groups", metavar="COLUMN", help="column that names the patient (with --images: patient_id)")
    add("--series", metavar="COLUMN", help="with --predictions: column that names the series, to score series too")
    add("--output", type=Path, metavar="DIR", help="report.json, report.html, PNGs (needed)")
    add(
        "--model",
        type=Path,
        metavar="BUNDLE",
        help="with --data, --images: model folder (default: the bundled model)",
    )
    add("--gallery", type=_count, default=3, metavar="N", help="worst errors to show per label and kind (%(default)s)")
    add("--name", default=None, help="with --data, --images: name of the data in scores.json")
    add("--description", default="", help="with --data, --images: description of the data in scores.json")
    add_limit_option(parser)
    add("--rounds", type=_positive, default=1000, metavar="N", help="bootstrap rounds (%(default)s)")
    add("--seed", type=int, default=0, help="of the bootstrap and the folds (%(default)s)")
    add(
        "--calibration",
        choices=("platt", "isotonic", "temperature"),
        default="platt",
        help="cross-fitted, to show the effect of calibration alone (%(default)s)",
    )
    add_table_options(parser)
    _add_clinical(parser.add_argument_group("for a clinical journal"))
    parser.set_defaults(run=run)


def _add_clinical(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--subgroup",
        action="append",
        default=[],
        metavar="COLUMN[:CUT,...]",
        help="score the subgroups of a column of the labels, of --subgroup-table, or slice_spacing_mm; cut points "
        "divide numbers into classes; may be repeated",
    )
    add(
        "--subgroup-table",
        type=Path,
        metavar="T.csv",
        help="more columns, by image_id or patient_id",
    )
    add("--compare", type=Path, metavar="Q.csv", help="other predictions of the same images: paired differences, tests")
    add("--margin", type=_share, metavar="M", help="with --compare: margin of non-inferiority, such as 0.05")
    add(
        "--prevalence",
        type=_share,
        metavar="P",
        help="share of series (patients) with hemorrhage elsewhere, such as 0.1: net benefit there too",
    )
    add(
        "--checklist",
        action="store_true",
        help="write checklist.html and checklist.md: CLAIM, STARD-AI and TRIPOD+AI, with a flow diagram",
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        msg = f"expected a number between 0 and 1, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        msg = f"expected a number above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MOST_PICTURES:
        msg = f"expected 0 to {_MOST_PICTURES}, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


# Twelve rows of so many pictures of about 30 kB each still make a page that a browser opens quickly.
_MOST_PICTURES = 50


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and print a summary."""
    from hemoscope.evaluation.report import evaluate
    from hemoscope.evaluation.terminal_summary import evaluation_summary

    _check(arguments)
    if arguments.dry_run:
        return _preview(arguments)
    source = _on_cache if arguments.data is not None else _on_dicom if arguments.images is not None else _on_files
    _clinical(arguments)  # a file that cannot be read is an error now, not after minutes of prediction
    data, context = source(arguments)
    fitting = {"rounds": arguments.rounds, "seed": arguments.seed, "method": arguments.calibration}
    report = evaluate(data, arguments.output, context, **fitting)
    sys.stdout.write(f"{evaluation_summary(report)}\nwritten to {arguments.output}\n")
    return ExitCode.OK


def _preview(arguments: argparse.Namespace) -> int:
    """Show what would be read of the tables."""
    from hemoscope.data.label_table import read_label_table

    names = column_names(arguments)
    if arguments.predictions is not None:
        return preview_predictions(arguments.predictions, arguments.labels, arguments.groups, names)
    return preview_images(arguments.images, read_label_table(arguments.labels, names=names))


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that would otherwise be ignored."""
    from hemoscope.errors import ConfigError

    if arguments.data is None and arguments.labels is None:
        msg = "--predictions and --images need labels. Give --labels L.csv"
        raise ConfigError(msg)
    if arguments.data is not None and (arguments.labels or arguments.groups or arguments.series):
        msg = "--data includes labels, patients and series. Remove --labels, --groups and --series"
        raise ConfigError(msg)
    if arguments.margin is not None and arguments.compare is None:
        msg = "--margin is a margin of the difference to other predictions. Give --compare Q.csv"
        raise ConfigError(msg)
    if arguments.subgroup_table is not None and not arguments.subgroup:
        msg = "--subgroup-table has columns for --subgroup. Give --subgroup COLUMN"
        raise ConfigError(msg)
    if arguments.prevalence is not None and arguments.predictions and not (arguments.series or arguments.groups):
        msg = "--prevalence is a share of series or patients. Name their column with --series or --groups"
        raise ConfigError(msg)
    if arguments.data is not None and (arguments.map or arguments.dry_run):
        msg = "--data reads no tables. Remove --map and --dry-run"
        raise ConfigError(msg)
    check_needed(arguments, "output")


def _on_files(arguments: argparse.Namespace) -> "tuple[LabelledPredictions, EvaluationContext]":
    """Score a file of predictions."""
    from hemoscope.evaluation.report import read_evaluation

    data, context = read_evaluation(
        arguments.predictions,
        arguments.labels,
        group_column=arguments.groups,
        series_column=arguments.series,
        names=column_names(arguments),
    )
    print_notes(data.notes)
    return data, replace(context, clinical=_clinical(arguments))


def _clinical(
    arguments: argparse.Namespace, found: "Assessment | None" = None, card: "ModelCard | None" = None
) -> "ClinicalInputs":
    """Read what was asked for besides scores."""
    from hemoscope.evaluation.clinical_inputs import ClinicalInputs, SecondPredictions
    from hemoscope.evaluation.prediction_files import read_probabilities
    from hemoscope.evaluation.subgroup_tables import read_subgroups

    measured: dict[str, dict[str, str]] = {}
    if arguments.predictions is None:
        measured["slice_spacing_mm"] = {} if found is None else found.spacing_of_images()
    second = arguments.compare
    return ClinicalInputs(
        subgroups=read_subgroups(
            arguments.subgroup,
            [path for path in (arguments.labels, arguments.predictions, arguments.subgroup_table) if path is not None],
            measured,
            names=column_names(arguments),
        ),
        second=None
        if second is None
        else SecondPredictions(name=second.name, probabilities=read_probabilities(second), margin=arguments.margin),
        prevalence=arguments.prevalence,
        checklist=arguments.checklist,
        card=card,
        flow=None if found is None else found.flow,
    )


def _on_cache(arguments: argparse.Namespace) -> "tuple[LabelledPredictions, EvaluationContext]":
    """Score a subset of a prepared dataset."""
    from hemoscope.data.cache import open_cache
    from hemoscope.evaluation.assess_cache import assess_cache
    from hemoscope.evaluation.evaluation_subsets import choose_subset
    from hemoscope.evaluation.tuned_bundle import tuned_on
    from hemoscope.inference.bundle import load_bundle
    from hemoscope.inference.precision import Precision
    from hemoscope.inference.predictor import Predictor

    bundle, cache = load_bundle(arguments.model), open_cache(arguments.data)
    subset = choose_subset(cache, bundle.card, arguments.split, tuned_on=tuned_on(bundle))
    with progress_bar() as show:
        predictor = Predictor(bundle, precision=Precision.FLOAT32)
        found = assess_cache(predictor, cache, subset.image_ids, gallery=arguments.gallery, progress=show)
    name = arguments.name or f"{cache.dataset.name}, {subset.name}"
    found.write(arguments.output, name=name, description=" ".join((arguments.description, *subset.warnings)).strip())
    context = found.context(bundle, dataset=cache.dataset.name, split=subset.as_dict(), warnings=subset.warnings)
    return found.slices, replace(context, clinical=_clinical(arguments, found, bundle.card))


def _on_dicom(arguments: argparse.Namespace) -> "tuple[LabelledPredictions, EvaluationContext]":
    """Score labelled DICOM."""
    from hemoscope.dicom.archive import open_archive
    from hemoscope.dicom.read_limits import limits_from_options
    from hemoscope.dicom.slices import group_rejected
    from hemoscope.evaluation.assess_dicom import assess_dicom
    from hemoscope.evaluation.prediction_files import read_labels
    from hemoscope.inference.bundle import load_bundle
    from hemoscope.inference.precision import Precision
    from hemoscope.inference.predictor import Predictor

    name = arguments.name or "external"
    truth = read_labels(arguments.labels, group_column=arguments.groups or "patient_id", names=column_names(arguments))
    print_notes(truth.notes)
    bundle = load_bundle(arguments.model)
    archive = open_archive([arguments.images], limits=limits_from_options(arguments.limit))
    with progress_bar() as show:
        found = assess_dicom(
            Predictor(bundle, precision=Precision.FLOAT32),
            archive,
            truth,
            root=images_root(arguments.images),
            gallery=arguments.gallery,
            progress=show,
        )
    for refused in group_rejected(found.rejected):
        sys.stderr.write(f"refused: {refused.names}: {refused.message}\n")
    found.write(arguments.output, name=name, description=arguments.description)
    context = found.context(bundle, dataset=name)
    return found.slices, replace(context, clinical=_clinical(arguments, found, bundle.card))
