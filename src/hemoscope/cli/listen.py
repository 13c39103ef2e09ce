"""``hemoscope listen``: the DICOM network node, until SIGTERM or Ctrl+C."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from
from hemoscope.version import DISCLAIMER


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("node", type=Path, metavar="NODE", help="TOML file of the node: AE titles, peers, TLS, rules")
    add_options(parser, names=("storage", "database", "database_wait_minutes", "limit", "log_format"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, then listen."""
    from hemoscope.logs import configure_logs
    from hemoscope.pacs.node import DicomNode
    from hemoscope.store.node_file import read_node_settings
    from hemoscope.store.store import open_store_patiently

    node_settings = read_node_settings(arguments.node)
    settings = settings_from(arguments, os.environ)
    configure_logs(settings.log_format)
    os.umask(0o077)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: ended.set())
    store = open_store_patiently(settings, limit_s=60 * settings.database_wait_minutes, stop=ended)
    try:
        with DicomNode(store, node_settings) as node:
            host, port = node.address
            title = node_settings.node.ae_title
            sys.stdout.write(f"Hemoscope listens as {title} on {host}, port {port} (Ctrl+C ends it). {DISCLAIMER}\n")
            sys.stdout.flush()
            ended.wait()
    finally:
        store.close()
    return ExitCode.OK
