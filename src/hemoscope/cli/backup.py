"""``hemoscope backup`` and ``hemoscope restore``: a copy of the reading room's data, and a reading room from it."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from
from hemoscope.dicom.wording import counted
from hemoscope.errors import ConfigError

if TYPE_CHECKING:
    from hemoscope.store.backup import Manifest
    from hemoscope.store.settings import Settings

STORE_OPTIONS = ("storage", "database")
_NAMED = 20


def register_backup(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``hemoscope backup``."""
    parser.add_argument("backup", type=Path, metavar="DIR", help="folder to write; must not exist, or be empty")
    add_options(parser, names=STORE_OPTIONS)
    parser.set_defaults(run=run_backup)


def register_restore(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``hemoscope restore``."""
    parser.add_argument("backup", type=Path, metavar="DIR", help="folder that hemoscope backup wrote")
    parser.add_argument("--check", action="store_true", help="compare every file with its SHA-256, and write nothing")
    add_options(parser, names=STORE_OPTIONS)
    parser.set_defaults(run=run_restore)


def run_backup(arguments: argparse.Namespace) -> int:
    """Copy database and folder; 1 if files that the database lists are missing."""
    from hemoscope.store.backup import make_backup
    from hemoscope.store.database import Database
    from hemoscope.store.storage import Storage

    os.umask(0o077)
    settings = settings_from(arguments, os.environ)
    check_store_exists(settings)
    database = Database(settings.database_url)
    try:
        manifest = make_backup(database, Storage(settings.folder), arguments.backup)
    finally:
        database.close()
    sys.stdout.write(f"{arguments.backup.name}: {_held(manifest)}\n")
    return _missing(manifest)


def run_restore(arguments: argparse.Namespace) -> int:
    """Check a backup, and unless only that is asked for, make a store of it."""
    from hemoscope.store.restore import check_backup, restore

    os.umask(0o077)
    settings = settings_from(arguments, os.environ)
    if arguments.check:
        manifest = check_backup(arguments.backup)
        sys.stdout.write(f"{arguments.backup.name} is complete and unchanged: {_held(manifest)}\n")
        return _missing(manifest)
    manifest = restore(arguments.backup, settings)
    sys.stdout.write(
        f"restored into {settings.folder.name}: {_held(manifest)}. Start the server with the same options\n"
    )
    return _missing(manifest)


def check_store_exists(settings: "Settings") -> None:
    """Check that there is a folder and, for SQLite, a file: to open them would make new ones.

    Raises:
        ConfigError: one is missing.
    """
    from hemoscope.store.database import database_url

    url = database_url(settings.database_url)
    sqlite = url.get_backend_name() == "sqlite"
    missing = [] if settings.folder.is_dir() else [f"storage folder {settings.folder.name}"]
    if sqlite and not Path(str(url.database)).is_file():
        missing.append(f"database {Path(str(url.database)).name}")
    if missing:
        msg = f"there is no {' and no '.join(missing)}. Give --storage and --database as the server has them"
        raise ConfigError(msg)


def _held(manifest: "Manifest") -> str:
    rows, moment = manifest.rows, manifest.made_at[:16].replace("T", " ")
    held = f"{counted(rows['studies'], 'study')} in {counted(rows['uploads'], 'upload')}"
    return f"{held}, as of {moment} UTC (schema {manifest.revision})"


def _missing(manifest: "Manifest") -> ExitCode:
    """Name what the database lists and the folder lacks; the ids are random."""
    if not manifest.missing:
        return ExitCode.OK
    sys.stderr.write(f"{len(manifest.missing)} files that the database lists are missing (UPLOAD/STUDY/FILE):\n")
    sys.stderr.writelines(f"  {one}\n" for one in manifest.missing[:_NAMED])
    if len(manifest.missing) > _NAMED:
        sys.stderr.write(f"  and {len(manifest.missing) - _NAMED} more: see missing in manifest.json\n")
    return ExitCode.FAILED
