"""``hemoscope outbox``: what became of the results for a PACS, and sending them again."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from hemoscope.cli.backup import STORE_OPTIONS, check_store_exists
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from

if TYPE_CHECKING:
    from hemoscope.store.values import OutboxCounts, SentResults


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own subcommands."""
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    listed = kinds.add_parser("list", help="show what became of the results of each study at each destination")
    add_options(listed, names=STORE_OPTIONS)
    listed.set_defaults(run=run_list)
    again = kinds.add_parser("resend", help="send results again, also to a destination that was added later")
    what = again.add_mutually_exclusive_group(required=True)
    what.add_argument("study", nargs="?", metavar="STUDY", help="ID of a study, as the list and the worklist show it")
    what.add_argument(
        "--all-failed", action="store_true", help="everything that was given up, or waits after a failure"
    )
    again.add_argument("--destination", metavar="NAME", help="only to this one (default: each that it was for)")
    add_options(again, names={*STORE_OPTIONS, "node"})
    again.set_defaults(run=run_resend)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the numbers and the list."""
    from hemoscope.store.store import open_store

    settings = settings_from(arguments, os.environ)
    check_store_exists(settings)
    store = open_store(settings)
    try:
        counts, results = store.deliveries.counts(), store.deliveries.listed()
    finally:
        store.close()
    for line in (_numbers(counts), *map(_line, results)):
        sys.stdout.write(f"{line}\n")
    return ExitCode.OK


def run_resend(arguments: argparse.Namespace) -> int:
    """Queue results again; the node sends them at once."""
    from hemoscope.store.node_file import destination_names
    from hemoscope.store.store import open_store

    settings = settings_from(arguments, os.environ)
    check_store_exists(settings)
    known = destination_names(settings) if arguments.destination else ()
    store = open_store(settings)
    try:
        done = store.deliveries.resend(
            study_id=arguments.study, destination=arguments.destination, known=known, by="hemoscope outbox"
        )
    finally:
        store.close()
    sys.stdout.write(f"{done.queued} results are sent again\n")
    if done.gone:
        sys.stdout.write(
            f"{done.gone} are not kept any more (resend_days), or damaged. Send their studies to Hemoscope again: the "
            "results are made anew, with the same UIDs\n"
        )
    return ExitCode.OK


def _numbers(counts: "OutboxCounts") -> str:
    names = ("waiting", "sent", "delivered", "committed", "failed")
    numbers = ", ".join(f"{getattr(counts, name)} {name}" for name in names)
    oldest = counts.oldest_waiting_s
    return numbers if oldest is None else f"{numbers}; the oldest waits for {oldest / 60:.0f} min"


def _line(one: "SentResults") -> str:
    sent = "" if one.sent_at is None else f" {one.sent_at.astimezone():%Y-%m-%d %H:%M}"
    why = f": {one.error}" if one.error else ""
    return f"{one.study_id}  {one.objects} results for {one.destination}: {one.state}{sent}{why}"
