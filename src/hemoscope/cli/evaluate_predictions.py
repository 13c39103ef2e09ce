"""``hemoscope evaluate --predictions``: predictions and labels in, scores with intervals out."""

import argparse
from pathlib import Path


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--predictions", type=Path, required=True, metavar="P.csv", help="image_id and six columns")
    parser.add_argument("--labels", type=Path, required=True, metavar="L.csv", help="image_id and six columns")
    parser.add_argument("--groups", metavar="COLUMN", help="column that names the patient, such as patient_id")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="report.json, report.html, PNGs")
    parser.add_argument("--rounds", type=_positive, default=1000, metavar="N", help="bootstrap rounds (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and the folds (%(default)s)")
    parser.add_argument(
        "--calibration",
        choices=("platt", "isotonic", "temperature"),
        default="platt",
        help="cross-fitted to show what calibration alone would give (%(default)s)",
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        msg = f"expected a number of rounds above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the few numbers that most people look for first."""
    from hemoscope.evaluation.report import evaluate_predictions
    from hemoscope.evaluation.report_text import summary

    report = evaluate_predictions(
        arguments.predictions,
        arguments.labels,
        arguments.output,
        group_column=arguments.groups,
        rounds=arguments.rounds,
        seed=arguments.seed,
        method=arguments.calibration,
    )
    print(summary(report))
    print(f"written to {arguments.output}")
    return 0
