"""``hemoscope purge-identity``: removes the identity that a reading room stored before its settings changed."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from hemoscope.cli.backup import STORE_OPTIONS, check_store_exists
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from
from hemoscope.dicom.wording import counted
from hemoscope.errors import ConfigError

if TYPE_CHECKING:
    from hemoscope.store.purge import Identity
    from hemoscope.store.settings import Settings
    from hemoscope.store.store import Store

_REMAINS = """What remains:
  pixels, heat maps and findings of all studies: pixels can show a face, and UIDs name the patient to a PACS
  {notes} notes of readers: free text, which nothing checks
  {waiting} uploads that wait to be read: their files are removed after that
  {node} files of the DICOM node, received or waiting to be sent: removed when they are settled
  the key of pseudonyms, the names of users in the audit log, and earlier backups and logs of the database
"""


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed, and stop")
    add_options(parser, names=STORE_OPTIONS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what is stored, and remove it unless only that is asked for."""
    from hemoscope.store.purge import purge_identity, stored_identity
    from hemoscope.store.store import open_store

    os.umask(0o077)
    settings = settings_from(arguments, os.environ)
    check_store_exists(settings)
    store = open_store(settings)
    try:
        if arguments.dry_run:
            found = stored_identity(store)
        else:
            _check_stopped(settings, store)
            found = purge_identity(store)
    finally:
        store.close()
    _print(found, "Would be removed" if arguments.dry_run else "Removed")
    return ExitCode.OK


def _check_stopped(settings: "Settings", store: "Store") -> None:
    """Refuse where identity would be stored again. Raises ConfigError."""
    kept = [name for name in ("show_identity", "keep_source") if getattr(settings, name)]
    if kept:
        msg = f"the settings still have {' and '.join(kept)}: new studies would bring identity back. Turn it off first"
        raise ConfigError(msg)
    if workers := store.counts().workers:
        msg = f"{len(workers)} workers are running, perhaps with earlier settings. Stop the server, and wait a minute"
        raise ConfigError(msg)


def _print(found: "Identity", removed: str) -> None:
    studies, uploads = counted(found.names, "study"), counted(found.sources, "upload")
    sys.stdout.write(
        f"{removed}:\n  name and ID of {studies}\n  uploaded files of {uploads}, with all identity in them\n"
        f"  uploaded files in {counted(found.swept, 'folder')} of the trash\n"
    )
    sys.stdout.write(_REMAINS.format(notes=found.notes, waiting=found.waiting, node=found.node))
