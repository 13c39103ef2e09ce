"""``hemoscope federated export``: a federation's run in, a model bundle out."""

import argparse
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode


def register_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("federated_run", type=Path, metavar="RUN", help="folder that the federation's server wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write; must not exist")
    parser.add_argument("--model-version", default="1", metavar="V", help="version of the model in reports")
    parser.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Export the sites' common network, with a card fitted on the histograms that they sent."""
    from hemoscope.federated.server.federated_export import export_federation

    bundle = export_federation(arguments.federated_run, arguments.output, version=arguments.model_version)
    sys.stdout.write(f"{bundle.card.name} {bundle.card.version} in {arguments.output}, SHA-256 {bundle.sha256}\n")
    sys.stdout.write(f"Next: hemoscope info {arguments.output}\n")
    return ExitCode.OK
