"""``hemoscope tune``: tune a model on its predictions of labelled validation images."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.table_options import add_table_options, check_needed, column_names, preview_predictions, print_notes

if TYPE_CHECKING:
    from hemoscope.evaluation.tuned_bundle import TuningChoices


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="P.csv", help="predictions written by hemoscope evaluate")
    add("--labels", type=Path, required=True, metavar="L.csv", help="image_id and six columns; empty is unknown")
    add("--groups", metavar="COLUMN", help="column that names the patient, for folds and intervals")
    add("--studies", metavar="COLUMN", help="column that names the study: tune the study level too")
    add(
        "--series-predictions",
        type=Path,
        metavar="P.csv",
        help="predictions by series: tune the study level too",
    )
    add("--series-labels", type=Path, metavar="L.csv", help="labels of these series")
    add("--model", type=Path, metavar="BUNDLE", help="the model that predicted (default: the bundled model)")
    add("--output", type=Path, metavar="NEW_BUNDLE", help="folder to write; must not exist (needed)")
    add("--calibration", choices=("platt", "isotonic", "temperature"), default="platt", help="%(default)s by default")
    add(
        "--rule",
        choices=("sensitivity", "specificity", "precision", "youden", "f-beta"),
        help="for every threshold (default: each threshold's own rule in the card)",
    )
    add("--target", type=float, metavar="X", help="target of the rule; beta for f-beta; none for youden")
    add("--name", default="unnamed validation data", help="of the data, for the card")
    add("--rounds", type=int, default=1000, metavar="N", help="bootstrap rounds (%(default)s)")
    add("--seed", type=int, default=0, help="of the folds and the bootstrap (%(default)s)")
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Tune, and print cross-fitted scores before and after."""
    from hemoscope.errors import ConfigError
    from hemoscope.evaluation.terminal_summary import tuning_summary
    from hemoscope.evaluation.threshold_rules import ThresholdRule
    from hemoscope.evaluation.tuned_bundle import TuningChoices, tune_bundle
    from hemoscope.inference.bundle import load_bundle

    if arguments.rule is None and arguments.target is not None:
        msg = f"--target {arguments.target:g} belongs to a rule. Give --rule too"
        raise ConfigError(msg)
    series = (arguments.series_predictions, arguments.series_labels)
    if (series[0] is None) != (series[1] is None) or (series[0] is not None and arguments.studies is not None):
        msg = "--series-predictions and --series-labels must be given together, instead of --studies"
        raise ConfigError(msg)
    check_needed(arguments, "output")
    choices = TuningChoices(
        group_column=arguments.groups,
        study_column=arguments.studies,
        series_files=None if series[0] is None else series,
        method=arguments.calibration,
        rule=None if arguments.rule is None else ThresholdRule(kind=arguments.rule, target=arguments.target),
        names=column_names(arguments),
        name=arguments.name,
        rounds=arguments.rounds,
        seed=arguments.seed,
    )
    if arguments.dry_run:
        return _preview(arguments, choices)
    bundle = load_bundle(arguments.model)
    found = tune_bundle(bundle, arguments.predictions, arguments.labels, arguments.output, choices)
    print_notes(found.notes)
    card = found.bundle.card
    sys.stdout.write(f"{tuning_summary(found.record)}\n")
    sys.stdout.write(f"{card.name} {card.version} in {arguments.output}, SHA-256 {found.bundle.sha256}\n")
    return ExitCode.OK


def _preview(arguments: argparse.Namespace, choices: "TuningChoices") -> ExitCode:
    """Show what would be read of the tables, those of series too; the code is the highest of both."""
    images, series = (arguments.predictions, arguments.labels), choices.series_files
    codes = [preview_predictions(*images, choices.group_column, choices.names, series or ())]
    if series is not None:
        codes.append(preview_predictions(*series, choices.group_column, choices.names, images))
    return max(codes)
