"""``hemoscope federated``: train together with other hospitals. One subcommand a module, listed here.

Modules and functions are named, not imported, until the command is asked for: the subcommands that need Flower say so
when they run, and the others work without it.
"""

import argparse
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from hemoscope.errors import MissingExtraError

# Whatever a shell's profile says: no report of usage, no look for a newer version. Read where Flower is imported.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subcommand:
    """One subcommand: ``register_NAME(parser)`` of its module adds the arguments and ``set_defaults(run=...)``."""

    name: str
    module: str
    summary: str
    flower: bool


SUBCOMMANDS = (
    Subcommand(
        name="check", module="federated_check", summary="say what a federation file would do, and whether", flower=False
    ),
    Subcommand(name="simulate", module="federated_simulate", summary="train a federation on one machine", flower=True),
    Subcommand(
        name="compare",
        module="federated_simulate",
        summary="set a federation beside pooled training and beside sites alone",
        flower=False,
    ),
    Subcommand(name="keys", module="federated_deploy", summary="make keys and certificates", flower=True),
    Subcommand(name="server", module="federated_deploy", summary="start the server that sites connect to", flower=True),
    Subcommand(name="site", module="federated_deploy", summary="connect this hospital to a server", flower=True),
    Subcommand(name="run", module="federated_deploy", summary="train a federation over connected sites", flower=True),
    Subcommand(
        name="export", module="federated_model", summary="turn a federated run into a model bundle", flower=False
    ),
    Subcommand(
        name="personalise",
        module="federated_personalise",
        summary="fit a federated model to this hospital",
        flower=False,
    ),
)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for one in SUBCOMMANDS:
        if find_spec(f"hemoscope.cli.{one.module}") is None:
            continue
        add = getattr(import_module(f"hemoscope.cli.{one.module}"), f"register_{one.name}", None)
        if add is None:
            continue
        description = one.summary[:1].upper() + one.summary[1:] + "."
        subparser = subparsers.add_parser(one.name, help=one.summary, description=description)
        add(subparser)
        subparser.set_defaults(run=functools.partial(_run, one, subparser.get_default("run")))


def _run(subcommand: Subcommand, run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run one subcommand; Flower says nothing to anybody. Raises MissingExtraError where it is needed and absent."""
    if subcommand.flower and find_spec("flwr") is None:
        raise MissingExtraError(package="flwr", extra="federated")
    os.environ.update(QUIET)
    return run(arguments)
