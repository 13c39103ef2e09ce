"""``hemoscope listen``: the DICOM network node, until SIGTERM or Ctrl+C; SIGHUP reads its file again."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from
from hemoscope.errors import ConfigError
from hemoscope.version import DISCLAIMER

if TYPE_CHECKING:
    from hemoscope.pacs.node import DicomNode
    from hemoscope.store.node_settings import NodeSettings

_log = logging.getLogger("hemoscope.pacs")


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("node", type=Path, metavar="NODE", help="TOML file of the node: AE titles, peers, TLS, rules")
    add_options(parser, names=("storage", "database", "database_wait_minutes", "limit", "log_format"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, then listen."""
    from hemoscope.logs import configure_logs

    settings = settings_from(arguments, os.environ)
    configure_logs(settings.log_format)  # before anything heavy is imported, for which there may be no memory

    from hemoscope.pacs.node import DicomNode
    from hemoscope.store.node_file import read_node_settings
    from hemoscope.store.store import open_store_patiently

    node_settings = read_node_settings(arguments.node)
    os.umask(0o077)
    ended, hung_up, woken = threading.Event(), threading.Event(), threading.Event()
    _wake_on(signal.SIGTERM, ended, woken)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing to read again yet
    store = open_store_patiently(settings, limit_s=60 * settings.database_wait_minutes, stop=ended)
    try:
        with DicomNode(store, node_settings) as node:
            terminal = os.isatty(0)
            _wake_on(signal.SIGHUP, hung_up, woken)
            host, port = node.address
            title = node_settings.node.ae_title
            sys.stdout.write(f"Hemoscope listens as {title} on {host}, port {port} (Ctrl+C ends it). {DISCLAIMER}\n")
            sys.stdout.flush()
            _warn(node_settings)
            while not ended.is_set():
                woken.wait()
                woken.clear()
                if hung_up.is_set():
                    hung_up.clear()
                    if terminal and not os.isatty(0):  # the terminal that this was started from was closed
                        break
                    _reload(node, arguments.node)
    finally:
        store.close()
    return ExitCode.OK


def _wake_on(number: signal.Signals, noted: threading.Event, woken: threading.Event) -> None:
    def note(_signal: int, _frame: object) -> None:
        noted.set()
        woken.set()

    signal.signal(number, note)


def _warn(settings: "NodeSettings") -> None:
    """Log what the webhook misses with a model that has a rule for unsure studies; this process has no model."""
    from hemoscope.store.node_contradictions import missed_urgencies

    if missed := missed_urgencies(settings):
        _log.warning(missed)


def _reload(node: "DicomNode", file: Path) -> None:
    """Read the file of the node again; a wrong one changes nothing, and the log says why."""
    from hemoscope.store.node_file import read_node_settings

    try:
        settings = read_node_settings(file)
        node.apply(settings)
    except ConfigError as error:
        _log.error("the file of the node was not read again, the old settings still count: %s", error)
    else:
        _log.info("the file of the node was read again")
        _warn(settings)
