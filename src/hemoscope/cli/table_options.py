"""Options of the commands that read tables of labels and predictions: names of columns, and a dry run."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.errors import ConfigError

if TYPE_CHECKING:
    from hemoscope.data.image_ids import Matching
    from hemoscope.data.image_table import ImageTable


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--map`` and ``--dry-run``."""
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="the table's column for image_id, patient_id or a label, if it has another name; may be repeated",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be read of the tables and file names, and stop"
    )


def column_names(arguments: argparse.Namespace) -> Mapping[str, str]:
    """Return the columns given with ``--map`` by their role.

    Raises:
        ConfigError: a name is unknown or stands twice, or a column is missing.
    """
    from hemoscope.data.image_table import ROLES

    names: dict[str, str] = {}
    for text in arguments.map:
        role, _, column = (part.strip() for part in text.partition("="))
        if role not in ROLES or not column:
            msg = f"--map {text}: expected NAME=COLUMN, with one of {', '.join(ROLES)} as the name"
            raise ConfigError(msg)
        if role in names:
            msg = f"--map gives {role} twice: {names[role]} and {column}. Give one column"
            raise ConfigError(msg)
        names[role] = column
    return names


def check_needed(arguments: argparse.Namespace, *options: str) -> None:
    """Raise ConfigError if an option is missing that only a dry run does without."""
    missing = [option for option in options if getattr(arguments, option) is None]
    if missing and not arguments.dry_run:
        msg = f"--{missing[0]} is needed. Give it, or only look at the tables with --dry-run"
        raise ConfigError(msg)


def print_notes(notes: Iterable[str]) -> None:
    """Print on stderr what a user should know of how tables were read."""
    sys.stderr.writelines(f"{note}\n" for note in notes)


def preview_images(images: Path, table: "ImageTable") -> ExitCode:
    """Print what would be read of labels and a folder, ZIP or DICOMDIR of images; only their names are read."""
    from hemoscope.data.image_ids import match_ids
    from hemoscope.data.table_cells import Content
    from hemoscope.data.table_preview import table_lines
    from hemoscope.dicom.read_limits import ReadLimits
    from hemoscope.dicom.sources import find_sources

    sources, rejected = find_sources([images], limits=ReadLimits(members=_MEMBERS))
    _print(table_lines(table, Content.LABELS))
    _print(f"refused {one.source}: {one.message}" for one in rejected)
    matched = match_ids(table.image_ids, (source.name for source in sources), root=images_root(images))
    return _print_match(matched, table.name, f"the files of {images.name}", whole=False)


def preview_predictions(
    predictions: Path, labels: Path, groups: str | None, names: Mapping[str, str], beside: Sequence[Path] = ()
) -> ExitCode:
    """Print what would be read of predictions and labels; a column of ``names`` may be in a table ``beside`` them."""
    from hemoscope.data.table_cells import Content
    from hemoscope.data.table_preview import table_lines
    from hemoscope.evaluation.prediction_files import match_tables, read_both

    predicted, truth = read_both(predictions, labels, group_column=groups, names=names, beside=beside)
    _print(table_lines(predicted, Content.PREDICTIONS))
    _print(table_lines(truth, Content.LABELS))
    return _print_match(match_tables(predicted, truth)[1], truth.name, predicted.name, whole=True)


def images_root(images: Path) -> str:
    """Return the name of the folder of the images, which their ids may contain."""
    path = images.resolve()
    return path.name if path.is_dir() else path.parent.name


_MEMBERS = 100_000_000


def _print_match(matched: "Matching", table: str, other: str, *, whole: bool) -> ExitCode:
    """Print what matches; the code says whether the run would be refused for it."""
    from hemoscope.data.table_preview import match_lines

    _print(match_lines(matched, table, other))
    lone = bool(matched.ids_alone or matched.names_alone) if whole else not matched.id_of
    return ExitCode.FAILED if matched.ambiguous or lone else ExitCode.OK


def _print(lines: Iterable[str]) -> None:
    from hemoscope.reports.report import printable

    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
