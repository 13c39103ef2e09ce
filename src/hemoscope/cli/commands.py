"""The table of subcommands, and the parser built from it.

A new command is one module beside this one and one line in ``COMMANDS``. At its top the module imports only argparse
and other light modules, so that ``--help`` stays fast; ``run`` imports what it needs.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from hemoscope.cli import (
    audit,
    backup,
    config,
    data,
    deidentify,
    evaluate,
    export,
    federated,
    info,
    listen,
    outbox,
    predict,
    prepare,
    purge_identity,
    reproduce,
    serve,
    train,
    tune,
    users,
)
from hemoscope.version import DISCLAIMER, __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand.

    Attributes:
        name: on the command line.
        summary: one line for ``hemoscope --help``.
        register: adds the command's arguments, and its function by ``parser.set_defaults(run=...)``: it takes the
            parsed arguments and returns the exit code.
        extra: the optional dependencies that it needs, if any.
        packages: top-level modules of that extra, checked before the command starts.

    """

    name: str
    summary: str
    register: Callable[[argparse.ArgumentParser], None]
    extra: str = ""
    packages: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(name="predict", summary="find suspected hemorrhage in head CT", register=predict.register),
        Command(name="deidentify", summary="copy DICOM images without identity", register=deidentify.register),
        Command(
            name="config",
            summary="check the settings of a DICOM node",
            register=config.register,
            extra="hospital",
            packages=("pynetdicom",),
        ),
        Command(
            name="listen",
            summary="receive head CT from a PACS as a DICOM node",
            register=listen.register,
            extra="hospital",
            packages=("pynetdicom",),
        ),
        Command(name="outbox", summary="list results for a PACS, and send them again", register=outbox.register),
        Command(name="info", summary="show a model's card: performance and limits", register=info.register),
        Command(
            name="prepare",
            summary="prepare a labelled dataset as a cache for training",
            register=prepare.register,
            extra="study",
            packages=("pandas", "pyarrow", "distributed"),
        ),
        Command(
            name="data",
            summary="show statistics of a prepared dataset",
            register=data.register,
            extra="study",
            packages=("pandas", "pyarrow", "matplotlib"),
        ),
        Command(
            name="train",
            summary="train an experiment on a cache",
            register=train.register,
            extra="train",
            packages=("torch", "timm", "lightning"),
        ),
        Command(
            name="evaluate",
            summary="score predictions, or a model on labelled data",
            register=evaluate.register,
            extra="study",
            packages=("matplotlib",),
        ),
        Command(
            name="reproduce",
            summary="compare the paper's numbers with recomputed ones",
            register=reproduce.register,
            extra="study",
            packages=("pandas", "matplotlib"),
        ),
        Command(
            name="tune",
            summary="fit a model's calibration and thresholds to validation data",
            register=tune.register,
        ),
        Command(name="serve", summary="start the reading room: web application and REST API", register=serve.register),
        Command(name="backup", summary="copy the reading room's data while it works", register=backup.register_backup),
        Command(name="restore", summary="make a reading room of a backup", register=backup.register_restore),
        Command(
            name="purge-identity",
            summary="remove identity that the reading room stored earlier",
            register=purge_identity.register,
        ),
        Command(name="users", summary="manage users and tokens of the reading room", register=users.register),
        Command(name="audit", summary="check or export the audit log of the reading room", register=audit.register),
        Command(
            name="export",
            summary="export a finished training run as a model bundle",
            register=export.register,
            extra="train",
            packages=("torch", "timm", "onnxscript"),
        ),
        Command(
            name="federated",
            summary="train together with other hospitals",
            register=federated.register,
            extra="federated",
            packages=("torch", "timm", "lightning"),  # its subcommands check for Flower if they need it
        ),
    )
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="hemoscope",
        description="Finds suspected intracranial hemorrhage in head CT.",
        epilog=DISCLAIMER,
    )
    parser.add_argument("--version", action="version", version=f"hemoscope {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS.values():
        description = command.summary[:1].upper() + command.summary[1:] + "."
        subparser = subparsers.add_parser(
            command.name, help=command.summary, description=description, epilog=DISCLAIMER
        )
        command.register(subparser)
    return parser
