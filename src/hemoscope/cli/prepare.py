"""``hemoscope prepare``: a public dataset in, a cache for training out."""

import argparse
import sys
from functools import partial
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar


def register(parser: argparse.ArgumentParser) -> None:
    """Add the datasets as subcommands."""
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    ct_ich = datasets.add_parser("ct-ich", help="CT-ICH, the JPEG release of 82 patients (DOI 10.13026/w8q8-ky94)")
    ct_ich.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder with labels.csv, patients/")
    ct_ich.add_argument("--output", type=Path, required=True, metavar="CACHE", help="folder to write; may exist")
    ct_ich.set_defaults(run=run_ct_ich)


def run_ct_ich(arguments: argparse.Namespace) -> int:
    """Prepare CT-ICH; slices that cannot be read are listed and left out."""
    from hemoscope.data.prepare import prepare_ct_ich

    with progress_bar() as show:
        done = prepare_ct_ich(arguments.images, arguments.output, progress=partial(show, "slices"))
    for image_id, reason in done.left_out:
        sys.stderr.write(f"left out {image_id}: {reason}\n")
    sys.stdout.write(f"{done.slices} slices in {arguments.output}, {len(done.left_out)} left out\n")
    return ExitCode.OK
