"""``hemoscope evaluate``: a model and labelled DICOM in, scores with intervals out."""

import argparse
import json
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="DICOM files, each named after its image id")
    add("--labels", type=Path, required=True, metavar="CSV", help="image_id, patient_id and six labels (may be empty)")
    add("--model", type=Path, metavar="BUNDLE", help="a model's folder (default: the one that ships)")
    add("--output", type=Path, required=True, metavar="FILE", help="JSON file for the score tables")
    add("--name", default="external", help="name of the dataset in the tables")
    add("--description", default="", help="what the dataset is, for a reader of the tables")
    add("--threads", type=int, metavar="N", help="processors to use")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score, write the tables as JSON, and print them."""
    from rich.console import Console

    from hemoscope.assess import assess
    from hemoscope.bundle import load_bundle
    from hemoscope.card import to_plain
    from hemoscope.data.label_table import read_labels
    from hemoscope.dicom.archive import open_archive
    from hemoscope.predict import Predictor
    from hemoscope.reports.card_table import score_tables

    table = read_labels(arguments.labels)
    predictor = Predictor(load_bundle(arguments.model), threads=arguments.threads)
    archive = open_archive([arguments.images])
    with progress_bar() as show:
        tables = assess(
            predictor, archive, table, name=arguments.name, description=arguments.description, progress=show
        )
    arguments.output.write_text(json.dumps([to_plain(found) for found in tables], indent=2) + "\n")
    for refused in archive.rejected:
        sys.stderr.write(f"refused {refused.message}\n")
    for shown in score_tables(tables):
        Console().print(shown)
    return ExitCode.OK
