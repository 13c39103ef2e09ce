"""``hemoscope info``: print a model's card, without compiling a graph or loading an inference engine."""

import argparse
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "bundle", nargs="?", type=Path, metavar="BUNDLE", help="folder of a model bundle (default: the bundled model)"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "--card",
        choices=("markdown", "html"),
        help="print the card in the shape of CHAI's Applied Model Card, as Markdown or as one HTML page",
    )
    shape.add_argument("--json", action="store_true", help="print the card as JSON, with the bundle's sha256")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the card of a verified bundle."""
    from hemoscope.inference.bundle import load_bundle

    bundle = load_bundle(arguments.bundle)
    if arguments.json:
        import json

        sys.stdout.write(
            json.dumps({**bundle.card.to_json(), "sha256": bundle.sha256}, indent=2, allow_nan=False) + "\n"
        )
        return ExitCode.OK
    if arguments.card is not None:
        from hemoscope.reports.applied_card import applied_card
        from hemoscope.reports.applied_card_pages import card_html, card_markdown

        write = card_html if arguments.card == "html" else card_markdown
        sys.stdout.write(write(applied_card(bundle.card, bundle.sha256)))
        return ExitCode.OK
    from rich.console import Console

    from hemoscope.reports.card_table import print_card

    print_card(bundle.card, bundle.sha256, Console(highlight=False))
    return ExitCode.OK
