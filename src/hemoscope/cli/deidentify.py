"""``hemoscope deidentify``: copies of DICOM images without identity, with stable pseudonyms."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.limits import add_limit_option
from hemoscope.cli.progress import progress_bar
from hemoscope.dicom.wording import counted

if TYPE_CHECKING:
    from hemoscope.dicom.slices import Rejected


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="IN", help="DICOM file, folder, ZIP, TAR, gzip or DICOMDIR")
    add("output", type=Path, metavar="OUT", help="folder for the copies, named by pseudonyms")
    add(
        "--key",
        type=Path,
        metavar="FILE",
        help="secret that makes pseudonyms repeatable, made if it is missing (default: a random one that is not kept)",
    )
    add("--shift-dates", action="store_true", help="move each patient's dates by a secret number of days; keep times")
    add(
        "--allow-unknown-annotation",
        action="store_true",
        help="accept screen captures that do not say whether identity is burned into their pixels: look at each",
    )
    add_limit_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """De-identify, and print what was written and what was refused."""
    import secrets

    from hemoscope.dicom.deidentify import FACES, DeidentifyOptions
    from hemoscope.dicom.deidentify_folder import deidentify_folder, read_or_make_key
    from hemoscope.dicom.read_limits import limits_from_options
    from hemoscope.dicom.refusals import HARMLESS

    made, limits = False, limits_from_options(arguments.limit)
    if arguments.key is None:
        key = secrets.token_bytes(32)
    else:
        key, made = read_or_make_key(arguments.key)
    options = DeidentifyOptions(
        shift_dates=arguments.shift_dates, allow_unknown_annotation=arguments.allow_unknown_annotation
    )
    with progress_bar() as show:
        found = deidentify_folder(
            arguments.paths,
            arguments.output,
            key=key,
            options=options,
            limits=limits,
            progress=partial(show, "files"),
        )
    named = ((found.written, "file"), (found.studies, "study"), (found.patients, "patient"))
    counts = " of ".join(counted(count, noun) for count, noun in named)
    sys.stdout.write(f"{counts} written to {arguments.output.name}\n")
    if made:
        sys.stdout.write(f"{arguments.key.name} is a new key: whoever has it can link known patients. Keep it apart.\n")
    sys.stdout.write(f"{FACES}\n")
    _print_refused(found.rejected)
    if not found.written:
        return ExitCode.NOTHING_READ
    return ExitCode.SOME_REFUSED if any(one.code not in HARMLESS for one in found.rejected) else ExitCode.OK


def _print_refused(rejected: "tuple[Rejected, ...]") -> None:
    """Print each kind of refusal once, with its first names."""
    from hemoscope.dicom.slices import group_rejected

    for one in group_rejected(rejected):
        sys.stderr.write(f"refused ({one.code}): {one.message}: {one.names}\n")
