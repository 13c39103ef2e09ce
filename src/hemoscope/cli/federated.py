"""``hemoscope federated``: train together with other hospitals. One function a subcommand, listed here.

The subcommands that need Flower say so when they run; the others work without it.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hemoscope.cli import (
    federated_check,
    federated_deploy,
    federated_personalise,
    federated_run,
    federated_simulate,
)
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.errors import MissingExtraError

# Whatever a shell's profile says: no report of usage, no look for a newer version. Read where Flower is imported.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subcommand:
    """One subcommand: ``register`` adds its arguments and ``set_defaults(run=...)``; whether it needs Flower."""

    name: str
    summary: str
    register: Callable[[argparse.ArgumentParser], None]
    flower: bool = False


def register_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    parser.add_argument("federated_run", type=Path, metavar="RUN", help="folder that the federation's server wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write; must not exist")
    parser.add_argument("--model-version", default="1", metavar="V", help="version of the model in reports")
    parser.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Export the sites' common network, with a card fitted on the histograms that they sent."""
    from hemoscope.federated.server.federated_export import export_federation

    bundle = export_federation(arguments.federated_run, arguments.output, version=arguments.model_version)
    sys.stdout.write(f"{bundle.card.name} {bundle.card.version} in {arguments.output}, SHA-256:\n{bundle.sha256}\n")
    sys.stdout.write(f"Next: hemoscope info {arguments.output}\n")
    return ExitCode.OK


SUBCOMMANDS = (
    Subcommand(
        name="check",
        summary="say what a federation file would do, and what would leave a site",
        register=federated_check.register_check,
    ),
    Subcommand(
        name="simulate",
        summary="train a federation on one machine",
        register=federated_simulate.register_simulate,
        flower=True,
    ),
    Subcommand(
        name="compare",
        summary="set a federation beside pooled training and beside sites alone",
        register=federated_simulate.register_compare,
    ),
    Subcommand(
        name="keys",
        summary="make keys and certificates for a server and its sites",
        register=federated_deploy.register_keys,
        flower=True,
    ),
    Subcommand(
        name="sign",
        summary="sign the application again, where the federation's authority is kept",
        register=federated_deploy.register_sign,
        flower=True,
    ),
    Subcommand(
        name="server",
        summary="start the server that sites connect to",
        register=federated_deploy.register_server,
        flower=True,
    ),
    Subcommand(
        name="site",
        summary="connect this hospital to a server",
        register=federated_deploy.register_site,
        flower=True,
    ),
    Subcommand(
        name="run",
        summary="train a federation over the connected sites",
        register=federated_run.register_run,
        flower=True,
    ),
    Subcommand(
        name="status",
        summary="say what runs on a server or a site, who is connected, and what is waited for",
        register=federated_run.register_status,
        flower=True,
    ),
    Subcommand(
        name="export",
        summary="turn a federated run into a model bundle",
        register=register_export,
    ),
    Subcommand(
        name="personalise",
        summary="fit a federated model to this hospital",
        register=federated_personalise.register_personalise,
    ),
)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for one in SUBCOMMANDS:
        description = one.summary[:1].upper() + one.summary[1:] + "."
        subparser = subparsers.add_parser(one.name, help=one.summary, description=description)
        one.register(subparser)
        subparser.set_defaults(run=functools.partial(_run, one, subparser.get_default("run")))


def _run(subcommand: Subcommand, run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run one subcommand; Flower says nothing to anybody. Raises MissingExtraError where it is needed and absent."""
    if subcommand.flower and find_spec("flwr") is None:
        raise MissingExtraError(package="flwr", extra="federated")
    os.environ.update(QUIET)
    return run(arguments)
