"""``hemoscope federated check``: what a federation file would do, before anybody trains."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from hemoscope.federated.settings.federation import Federation


def register_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("federation", type=Path, metavar="FEDERATION", help="a TOML file, or a shipped one's name")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as rounds=2")
    parser.add_argument("--site", type=Path, metavar="SITE.toml", help="say whether this site would take part")
    parser.add_argument("--sites", type=int, metavar="N", help="of so many sites (default: min_sites)")
    parser.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    """Read, check and print; a site that would refuse is an error."""
    from hemoscope.errors import ConfigError
    from hemoscope.evaluation.flow import counted
    from hemoscope.federated.settings.federation import read_federation
    from hemoscope.federated.settings.site import read_site

    federation = read_federation(arguments.federation, arguments.set)
    sites = federation.min_sites if arguments.sites is None else arguments.sites
    if sites < 1:
        msg = f"--sites must be at least 1, got {sites}"
        raise ConfigError(msg)
    site = None if arguments.site is None else read_site(arguments.site)
    if site is not None and (refusal := site.policy.refusal(federation, sites=sites)):
        msg = f"{arguments.site.name}: {refusal}. Change the federation, or this site's policy"
        raise ConfigError(msg)
    _print(federation, sites)
    print(f"\nFingerprint, for policy.agreed of a site:\n{federation.fingerprint}")
    if site is not None:
        cache = site.cache()
        patients = cache.manifest["patient_id"].nunique()
        slices = len(cache.manifest)
        print(f"\n{site.name} takes part, with {counted(patients, 'patients')} and {counted(slices, 'slices')}.")
    return ExitCode.OK


def _print(federation: "Federation", sites: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hemoscope.federated.server.summary import summarise

    console = Console(highlight=False)
    console.print(Text(f"{federation.name}: {federation.description}".removesuffix(": "), style="bold"))
    for title, rows in summarise(federation, sites=sites):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=False)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)
