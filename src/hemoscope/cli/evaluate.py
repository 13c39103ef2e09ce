"""``hemoscope evaluate``: predictions, or a model and labelled DICOM, against labels; scores with intervals out."""

import argparse
import json
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", type=Path, metavar="P.csv", help="image_id and the six labels' probabilities")
    source.add_argument("--images", type=Path, metavar="DIR", help="DICOM files named after their image ids")
    add("--labels", type=Path, required=True, metavar="L.csv", help="image_id and six columns; empty is unknown")
    add("--groups", metavar="COLUMN", help="column that names the patient (with --images: patient_id)")
    add("--output", type=Path, required=True, metavar="DIR", help="report.json, report.html, PNGs")
    add("--model", type=Path, metavar="BUNDLE", help="with --images: a model's folder (default: the one that ships)")
    add("--name", default="external", help="with --images: name of the dataset in scores.json (%(default)s)")
    add("--description", default="", help="with --images: what the dataset is, for readers of scores.json")
    add("--rounds", type=_positive, default=1000, metavar="N", help="bootstrap rounds (%(default)s)")
    add("--seed", type=int, default=0, help="of the bootstrap and the folds (%(default)s)")
    add(
        "--calibration",
        choices=("platt", "isotonic", "temperature"),
        default="platt",
        help="cross-fitted to show what calibration alone would give (%(default)s)",
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        msg = f"expected a number above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and print the few numbers that most people look for first."""
    from hemoscope.evaluation.report import evaluate_predictions
    from hemoscope.evaluation.report_text import summary

    predictions, groups = arguments.predictions, arguments.groups
    if predictions is None:
        groups = groups or "patient_id"
        predictions = _predict(arguments, groups)
    report = evaluate_predictions(
        predictions,
        arguments.labels,
        arguments.output,
        group_column=groups,
        rounds=arguments.rounds,
        seed=arguments.seed,
        method=arguments.calibration,
    )
    sys.stdout.write(f"{summary(report)}\nwritten to {arguments.output}\n")
    return ExitCode.OK


def _predict(arguments: argparse.Namespace, groups: str) -> Path:
    """Run the model over the images: predictions.csv, and scores.json in the shape of a model's card."""
    from hemoscope.assess import assess
    from hemoscope.bundle import load_bundle
    from hemoscope.card import to_plain
    from hemoscope.dicom.archive import open_archive
    from hemoscope.evaluation.prediction_files import read_labels, write_predictions
    from hemoscope.predict import Predictor

    truth = read_labels(arguments.labels, group_column=groups)
    predictor, archive = Predictor(load_bundle(arguments.model)), open_archive([arguments.images])
    with progress_bar() as show:
        found = assess(predictor, archive, truth, name=arguments.name, description=arguments.description, progress=show)
    for refused in found.rejected:
        sys.stderr.write(f"refused: {refused.message}\n")
    arguments.output.mkdir(parents=True, exist_ok=True)
    predictions = Path(arguments.output) / "predictions.csv"
    write_predictions(predictions, {image_id: six.values for image_id, six in found.probabilities.items()})
    tables = [to_plain(table) for table in (found.by_slice, found.by_study)]
    (arguments.output / "scores.json").write_text(json.dumps(tables, indent=2) + "\n")
    return predictions
