"""``hemoscope export``: export a finished run as a model bundle."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.errors import ConfigError

if TYPE_CHECKING:
    from hemoscope.inference.card import ScoreTable


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "training_runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder written by hemoscope train; several that differ by their seed alone are averaged in one graph",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write; must not exist")
    parser.add_argument("--model-version", default="1", metavar="V", help="version of the model in reports")
    parser.add_argument(
        "--scores",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="further score tables (JSON) for the card",
    )
    parser.add_argument(
        "--quantize",
        type=Path,
        metavar="CACHE",
        help="add a graph in int8, calibrated on this cache, which the run was trained on (extra: quantize)",
    )
    parser.add_argument("--half-weights", action="store_true", help="store the weights in float16, in half the space")
    parser.add_argument(
        "--statements",
        type=Path,
        metavar="FILE",
        help="statements for the card (TOML), such as who developed the model",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export the network of a run, or of several runs, with a card fitted on scores of held-out images."""
    from hemoscope.training.card_words import read_statements
    from hemoscope.training.export import export_run

    run, *others = arguments.training_runs
    bundle = export_run(
        run,
        arguments.output,
        version=arguments.model_version,
        others=others,
        scores=[table for path in arguments.scores for table in read_score_tables(path)],
        quantize=arguments.quantize,
        half_weights=arguments.half_weights,
        statements=None if arguments.statements is None else read_statements(arguments.statements),
    )
    sys.stdout.write(f"{bundle.card.name} {bundle.card.version} in {arguments.output}, SHA-256 {bundle.sha256}\n")
    sys.stdout.write(f"Next: hemoscope evaluate --model {arguments.output} --data CACHE --output REPORT\n")
    return ExitCode.OK


def read_score_tables(path: Path) -> "tuple[ScoreTable, ...]":
    """Read a file of score tables. Raises ConfigError if it holds something else."""
    from hemoscope.inference.card import ScoreTable, parse_dataclass

    try:
        tables = json.loads(path.read_text())
        # Iterating over an object gives its keys, which are refused.
        return tuple(parse_dataclass(ScoreTable, table, where=path.name) for table in tables or [tables])
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{path.name} does not hold a list of score tables as in a card ({reason})"
        raise ConfigError(msg) from error
