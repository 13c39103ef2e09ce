"""``hemoscope serve``: the reading room, with its workers, until SIGTERM or Ctrl+C."""

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from
from hemoscope.version import DISCLAIMER

if TYPE_CHECKING:
    from hemoscope.store.settings import Settings
    from hemoscope.store.store import Store

_log = logging.getLogger(__name__)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, migrate the database, start the workers, and serve."""
    from hemoscope.logs import configure_logs

    settings = settings_from(arguments, os.environ)
    configure_logs(settings.log_format)  # before anything heavy is imported, for which there may be no memory
    from hemoscope.inference.bundle import load_bundle
    from hemoscope.messages.catalogue import english, read_catalogue
    from hemoscope.store.store import open_store_patiently
    from hemoscope.store.supervisor import Supervisor
    from hemoscope.web.app import create_app
    from hemoscope.web.credentials import load_credentials
    from hemoscope.web.server import ignore_hang_up, run_server

    catalogue = english() if settings.messages is None else read_catalogue(settings.messages)
    bundle = load_bundle(settings.model)
    credentials = load_credentials(users=settings.users, tokens=settings.token_file)
    _check(settings)
    _warn(settings, missing=catalogue.missing, unsure=bundle.card.unsure is not None)
    ignore_hang_up()
    os.umask(0o077)  # the database lies in the private folder by default, and is made first
    store = open_store_patiently(settings, limit_s=60 * settings.database_wait_minutes)
    if not store.database.is_sqlite:
        _log.info("limits of clients are of this process; others over this database count their own, except logins")
    try:
        _skip_versions(store)
        supervisor = Supervisor(store, settings)
        app = create_app(
            store,
            settings,
            credentials=credentials,
            model_card={**bundle.card.to_json(), "sha256": bundle.sha256},
            background=supervisor.vitals,
            reload_node=supervisor.reload,
            catalogue=catalogue,
        )
        with supervisor:
            run_server(app, settings, started=_announce)
        return ExitCode.OK
    finally:
        store.close()


def _skip_versions(store: "Store") -> None:
    """Let no version repeat one that an open page has seen; PostgreSQL loses none when the machine loses its power."""
    from hemoscope.errors import StoreError
    from hemoscope.store.refusals import PASSING

    if not store.database.is_sqlite:
        return
    try:
        store.skip_versions()
    except StoreError as error:
        if error.code not in PASSING:
            raise
        _log.warning("pages that are open may need to be reloaded: %s. %s", error.reason, error.remedy)


def _warn(settings: "Settings", *, missing: str, unsure: bool) -> None:
    """Log what the site's catalogue lacks, and what the node's settings miss if the model leaves studies unsure."""
    from hemoscope.store.node_contradictions import missed_urgencies
    from hemoscope.store.node_file import sending_node

    if missing:
        _log.warning("the catalogue of --messages lacks %s", missing)
    node = sending_node(settings) if unsure else None
    if node is not None and (missed := missed_urgencies(node)):
        _log.warning(missed)


def _check(settings: "Settings") -> None:
    """Check what the server needs later, so that it does not start without it."""
    from hemoscope.reports.dicom_results.files import require_highdicom
    from hemoscope.store.node_file import sending_node
    from hemoscope.web.tls import tls_context

    if settings.tls is not None:
        tls_context(*settings.tls)
    if sending_node(settings) is not None:
        require_highdicom()


def _announce(url: str) -> None:
    sys.stdout.write(f"Hemoscope's reading room is at {url} (Ctrl+C ends it). {DISCLAIMER}\n")
    sys.stdout.flush()
