"""``hemoscope config check``: whether the settings of a DICOM node can be used, and what they would do with a study."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.settings_sources import add_options, settings_from

if TYPE_CHECKING:
    from rich.console import Console

    from hemoscope.store.node_settings import NodeSettings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own subcommands."""
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    check = kinds.add_parser("check", help="check the file of a node, and show what its rules do with a study")
    check.add_argument("node", type=Path, metavar="NODE", help="TOML file of the node")
    check.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a study: DICOM files, folders, archives")
    check.add_argument("--calling", metavar="AE", default="", help="the AE title that would send the study")
    add_options(check, names={"retention_days", "deidentify"})
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the file and the certificates that it names, then print what follows from it."""
    from rich.console import Console

    from hemoscope.pacs.certificates import Certificates
    from hemoscope.store.node_contradictions import contradictions
    from hemoscope.store.node_file import read_node_settings

    settings = read_node_settings(arguments.node)
    if settings.tls is not None:
        Certificates(settings.tls)
    console = Console(highlight=False, markup=False)
    for line in _described(settings):
        console.print(line)
    for line in contradictions(settings, settings_from(arguments, os.environ)):
        console.print(f"Warning: {line}")
    if arguments.paths:
        _print_series(settings, arguments.paths, arguments.calling, console)
    return ExitCode.OK


def _described(settings: "NodeSettings") -> Iterator[str]:
    node = settings.node
    security = "TLS, with certificates of both sides" if settings.tls else "no TLS"
    yield f"{node.ae_title} listens on {node.host}, port {node.port}: {security}"
    if not settings.peers:
        yield "Nobody may send: there is no [[peer]]"
    for peer in settings.peers:
        yield f"{peer.ae_title} may send from {', '.join(peer.addresses) or 'no address'}"
    yield f"At most {node.most_associations} associations, which together receive {node.most_receiving_mib} MiB at once"
    yield f"A study is read {node.quiet_seconds:g} s after its last image, and again if images come within " + (
        f"{node.late_minutes:g} min"
    )
    if not settings.destinations:
        yield "Results are sent nowhere: there is no [[destination]]"
    for one in settings.destinations:
        routine = "" if one.send_routine else ", except of routine studies"
        yield f"Results go to {one.name}: {one.ae_title} at {one.host}, port {one.port}: " + (
            f"{', '.join(one.outputs)}{routine}"
        )
    if settings.webhook is not None:
        yield f"{settings.webhook.url} is notified of studies: {', '.join(settings.webhook.urgencies)}"


def _print_series(settings: "NodeSettings", paths: list[Path], calling: str, console: "Console") -> None:
    from rich import box
    from rich.table import Table

    from hemoscope.dicom.archive import open_archive
    from hemoscope.pacs.arrivals import SeriesFacts, action_of
    from hemoscope.pacs.spool import sender_key
    from hemoscope.reports.report import printable

    table = Table("Series", "Body part", "Images", "Action", "Rule", box=box.SIMPLE_HEAD, show_edge=False)
    for study in open_archive(paths).studies:
        for series in study.series:
            first = series.headers[0]
            facts = SeriesFacts(
                description=first.series_description or "",
                body_part=first.body_part or "",
                images=len(series),
                senders=frozenset({sender_key(calling)}),
            )
            action, number = action_of(facts, settings.rules)
            rule = "none holds" if number is None else str(number)
            table.add_row(printable(facts.description), printable(facts.body_part), str(facts.images), action, rule)
    console.print(table)
