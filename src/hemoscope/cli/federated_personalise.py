"""``hemoscope federated personalise``: a federated model in, a run fitted to this hospital out."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar

if TYPE_CHECKING:
    from hemoscope.federated.site.label_changes import LabelChange
    from hemoscope.federated.site.personal import Personalised


def register_personalise(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("site", type=Path, metavar="SITE.toml")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder that the federation's server wrote; its federation.json and split/ suffice",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="a new folder, for hemoscope export")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="of the head (default: %(default)s)")
    parser.set_defaults(run=run_personalise)


def run_personalise(arguments: argparse.Namespace) -> int:
    """Fine-tune the head on the site's training part, keep it if the validation part is for it, show the test part."""
    from hemoscope.federated.exchange.shared_model import read_model
    from hemoscope.federated.settings.site import read_site
    from hemoscope.federated.site.label_changes import label_changes
    from hemoscope.federated.site.personal import personalise

    site, model = read_site(arguments.site), read_model(arguments.model)
    with progress_bar() as show:
        found = personalise(site, model, arguments.output, epochs=arguments.epochs, show=show)
    _print(found, label_changes(found))
    print(f"finished: {arguments.output}. Next: hemoscope export {arguments.output} --output BUNDLE")
    return ExitCode.OK


def _print(found: "Personalised", changes: "Sequence[LabelChange]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    verdict = "the site's own head is kept" if found.own_head else "the federated head is kept"
    print(f"validation loss {found.before.loss:.4f} before, {found.tried:.4f} fine-tuned: {verdict}")
    if not changes:
        print("The test part shows no hemorrhage, so there is nothing to compare.")
        return
    table = Table(
        title="Test part of this site: federated > personalised", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    table.add_column("", no_wrap=True)
    for name in ("slices", "AUROC by slice", "AUROC by study", "Brier score"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in changes:
        pairs = (_pair(row.slice_auroc), _pair(row.study_auroc), _pair(row.brier))
        table.add_row(row.label.display, f"{row.positives:,}", *pairs)
    console.print(table)
    print(
        "Slices: those that show it. Brier scores of slices: the network's own probabilities before; after, calibrated "
        "on the validation part where enough of its patients have the label."
    )


def _pair(values: tuple[float | None, float | None]) -> str:
    before, after = ("-" if value is None else f"{value:.3f}" for value in values)
    return f"{before} > {after}"
