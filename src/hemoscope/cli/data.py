"""``hemoscope data``: statistics of a prepared dataset."""

import argparse
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    questions = parser.add_subparsers(dest="question", metavar="QUESTION", required=True)
    stats = questions.add_parser("stats", help="count images, labels, patients and series")
    stats.add_argument("cache", type=Path, metavar="CACHE", help="folder written by `hemoscope prepare`")
    stats.add_argument("--output", type=Path, metavar="DIR", help="write stats.html, stats.json and PNGs")
    stats.set_defaults(run=run_stats)


def run_stats(arguments: argparse.Namespace) -> int:
    """Print the tables, and write page and plots if requested."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hemoscope.data.cache import open_cache
    from hemoscope.data.statistics import dataset_statistics
    from hemoscope.evaluation.statistics_page import statistics_tables, write_statistics

    found = dataset_statistics(open_cache(arguments.cache))
    console = Console(highlight=False)
    console.print(Text(f"{found.dataset.name} ({found.dataset.version})", style="bold"))
    console.print(Text(f"Terms: {found.dataset.license}"))
    for title, header, rows in statistics_tables(found):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for place, name in enumerate(header):
            table.add_column(Text(name), justify="right" if place else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)
    if arguments.output is not None:
        write_statistics(found, arguments.output)
        sys.stdout.write(f"\nwritten to {arguments.output}\n")
    return ExitCode.OK
