"""``hemoscope prepare``: prepare a public dataset or a labelled DICOM folder as a cache for training."""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.limits import add_limit_option
from hemoscope.cli.progress import progress_bar
from hemoscope.cli.table_options import add_table_options, check_needed, column_names, preview_images, print_notes
from hemoscope.dicom.wording import counted

if TYPE_CHECKING:
    from hemoscope.data.prepare import Preparation
    from hemoscope.inference.card import TrainingData

_NAMED = 20  # number of excluded slices named on the terminal


def register(parser: argparse.ArgumentParser) -> None:
    """Add the datasets as subcommands."""
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    ct_ich = datasets.add_parser("ct-ich", help="CT-ICH, the JPEG release of 82 patients (DOI 10.13026/w8q8-ky94)")
    ct_ich.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder with labels.csv, patients/")
    ct_ich.add_argument("--output", type=Path, required=True, metavar="CACHE", help="folder to write; may exist")
    ct_ich.set_defaults(run=run_ct_ich)
    rsna = datasets.add_parser("rsna", help="RSNA 2019 as published on Kaggle (non-commercial research and education)")
    _add_dicom(rsna, labels="stage_2_train.csv: six lines per image")
    rsna.set_defaults(run=run_rsna)
    table = datasets.add_parser("table", help="any DICOM folder and a CSV table of labels")
    _add_dicom(table, labels="image_id and six columns of 0, 1 or empty (unknown); patient_id if known")
    table.add_argument("--name", help="name of the dataset in cards of models trained on it (needed)")
    table.add_argument("--license", metavar="TERMS", help="license or terms of use (needed)")
    table.add_argument("--data-version", default="", metavar="V", help="version of the dataset")
    table.add_argument("--doi", default="", help="where it is published")
    table.add_argument("--attribution", default="", metavar="TEXT", help="attribution")
    table.set_defaults(run=run_table)


def _add_dicom(parser: argparse.ArgumentParser, *, labels: str) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of DICOM files named after their image ids")
    add("--labels", type=Path, required=True, metavar="CSV", help=labels)
    add("--output", type=Path, metavar="CACHE", help="folder to write; may exist, to resume (needed)")
    add("--workers", type=int, metavar="N", help="local processes (default: one per processor)")
    add("--dask", metavar="ADDRESS", help="address of a Dask scheduler to use instead, such as tcp://host:8786")
    add_table_options(parser)
    add_limit_option(parser)


def run_ct_ich(arguments: argparse.Namespace) -> int:
    """Prepare CT-ICH; unreadable slices are listed and excluded."""
    from hemoscope.data.prepare import prepare_ct_ich

    with progress_bar() as show:
        done = prepare_ct_ich(arguments.images, arguments.output, progress=partial(show, "slices"))
    for image_id, reason in done.left_out:
        sys.stderr.write(f"left out {image_id}: {reason}\n")
    sys.stdout.write(f"{counted(done.slices, 'slice')} in {arguments.output}, {len(done.left_out)} left out\n")
    return ExitCode.OK


def run_rsna(arguments: argparse.Namespace) -> int:
    """Prepare RSNA 2019, whose patient IDs are pseudonyms already."""
    from hemoscope.data.rsna import DATASET

    check_needed(arguments, "output")
    return _run_dicom(arguments, DATASET, pseudonyms=False)


def run_table(arguments: argparse.Namespace) -> int:
    """Prepare any DICOM folder with a table of labels."""
    from hemoscope.inference.card import TrainingData

    check_needed(arguments, "output", "name", "license")
    dataset = TrainingData(
        name=arguments.name or "",
        version=arguments.data_version,
        doi=arguments.doi,
        license=arguments.license or "",
        attribution=arguments.attribution,
        changes="Decoded to Hounsfield units and put into series in anatomical order",
    )
    return _run_dicom(arguments, dataset, pseudonyms=True)


def _run_dicom(arguments: argparse.Namespace, dataset: "TrainingData", *, pseudonyms: bool) -> int:
    from hemoscope.data.label_table import labelled_images, read_label_table
    from hemoscope.data.prepare_dicom import prepare_dicom
    from hemoscope.dicom.read_limits import limits_from_options

    start = time.monotonic()
    table = read_label_table(arguments.labels, names=column_names(arguments))
    if arguments.dry_run:
        return preview_images(arguments.images, table)
    labels = labelled_images(table)
    print_notes(table.notes)
    del table  # its arrays are not needed beside the labels
    with progress_bar() as show:
        done = prepare_dicom(
            arguments.images,
            labels,
            arguments.output,
            dataset,
            pseudonyms=pseudonyms,
            workers=arguments.workers,
            dask=arguments.dask,
            limits=limits_from_options(arguments.limit),
            show=show,
        )
    _report(done, arguments.output, time.monotonic() - start)
    return ExitCode.OK


def _report(done: "Preparation", output: Path, seconds: float) -> None:
    for image_id, reason in done.left_out[:_NAMED]:
        sys.stderr.write(f"left out {image_id}: {reason}\n")
    if len(done.left_out) > _NAMED:
        sys.stderr.write(f"and {len(done.left_out) - _NAMED} more, all in {output / 'left_out.csv'}\n")
    rate = done.slices / max(seconds, 1e-3)
    sys.stdout.write(
        f"{counted(done.slices, 'slice')} in {output}, {len(done.left_out)} left out, "
        f"{seconds:.1f} s ({rate:.0f} a second)\n"
    )
