"""``hemoscope audit``: checks the hash chain of the reading room's audit log, and exports the log with its hashes."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from
from hemoscope.errors import ConfigError

if TYPE_CHECKING:
    from hemoscope.store.audit_chain import Anchor, ChainCheck
    from hemoscope.store.database import Database
    from hemoscope.store.values import ChainedAuditEntry

_WHERE = {"storage", "database"}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own subcommands."""
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    verify = kinds.add_parser("verify", help="name the first entry that was changed, removed or moved")
    verify.add_argument("--file", type=Path, metavar="FILE", help="check a file of hemoscope audit export instead")
    verify.add_argument("--anchor", metavar="NUMBER:HASH", help="check that the log still has this entry")
    add_options(verify, names=_WHERE)
    verify.set_defaults(run=run_verify)
    export = kinds.add_parser("export", help="write the log with its hashes, one JSON object a line")
    export.add_argument("--output", type=Path, metavar="FILE", help="write to this file (default: stdout)")
    add_options(export, names=_WHERE)
    export.set_defaults(run=run_export)


def run_verify(arguments: argparse.Namespace) -> int:
    """Print how many entries are sound and the anchor to keep, or the first fault; a fault is exit code 1."""
    from hemoscope.store.audit_chain import Anchor

    anchor = None if arguments.anchor is None else Anchor.from_text(arguments.anchor)
    found = _check(arguments, anchor)
    if found.fault is not None:
        sys.stderr.write(f"hemoscope audit: {found.fault}. The {found.entries} entries before are sound\n")
        return ExitCode.FAILED
    sys.stdout.write(f"{found.entries} entries, all sound. Keep this anchor on another machine: {found.last}\n")
    return ExitCode.OK


def run_export(arguments: argparse.Namespace) -> int:
    """Write the log, oldest entry first."""
    from hemoscope.store.audit import chained_entries

    database = _database(arguments)
    try:
        lines = (f"{entry.model_dump_json()}\n" for entry in chained_entries(database))
        if arguments.output is None:
            sys.stdout.writelines(lines)
        else:
            _write(arguments.output, lines)
    finally:
        database.close()
    return ExitCode.OK


def _write(path: Path, lines: Iterator[str]) -> None:
    from hemoscope.files import atomic_file

    try:
        with atomic_file(path, mode=0o600) as file:
            file.writelines(line.encode() for line in lines)
    except OSError as error:
        msg = f"cannot write {path.name}: {error.strerror}. Give a file in a folder that you may write"
        raise ConfigError(msg) from error


def _check(arguments: argparse.Namespace, anchor: "Anchor | None") -> "ChainCheck":
    from hemoscope.store.audit import check_log
    from hemoscope.store.audit_chain import check

    if arguments.file is not None:
        return check(_entries(arguments.file), anchor=anchor)
    database = _database(arguments)
    try:
        return check_log(database, anchor=anchor)
    finally:
        database.close()


def _database(arguments: argparse.Namespace) -> "Database":
    from hemoscope.store.migrate import open_migrated

    return open_migrated(settings_from(arguments, os.environ).database_url)


def _entries(file: Path) -> "Iterator[ChainedAuditEntry]":
    """Read an exported file line by line. Raises ConfigError for what is no such file."""
    from hemoscope.store.values import ChainedAuditEntry

    number = 1
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - named below
                yield ChainedAuditEntry.model_validate_json(line)
    except ValueError as error:  # of pydantic, or of the decoder
        msg = f"{file.name}: line {number} is no entry. Give a file of hemoscope audit export"
        raise ConfigError(msg) from error
    except OSError as error:
        msg = f"cannot read {file.name}: {error.strerror}. Give a file of hemoscope audit export"
        raise ConfigError(msg) from error
