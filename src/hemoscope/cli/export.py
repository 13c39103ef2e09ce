"""``hemoscope export``: a finished run in, a model bundle out."""

import argparse
import json
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("training_run", type=Path, metavar="RUN", help="folder that hemoscope train wrote")
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export the final network with a card fitted on the run's out-of-fold scores."""
    from hemoscope.card import ScoreTable, parse_dataclass
    from hemoscope.training.export import export_run

    tables = [
        parse_dataclass(ScoreTable, table, where=path.name)
        for path in arguments.scores
        for table in json.loads(path.read_text())
    ]
    bundle = export_run(
        arguments.training_run,
        arguments.output,
        version=arguments.model_version,
        scores=tables,
    )
    sys.stdout.write(f"{bundle.card.name} {bundle.card.version} in {arguments.output}, SHA-256 {bundle.sha256}\n")
    return ExitCode.OK
