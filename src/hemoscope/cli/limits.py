"""The option ``--limit`` of the commands that read DICOM."""

import argparse
from dataclasses import fields

from hemoscope.dicom.read_limits import ReadLimits


def add_limit_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit NAME=VALUE``; ``limits_from_options`` reads what it collects in ``limit``."""
    names = ", ".join(f"{field.name} ({field.default})" for field in fields(ReadLimits))
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"raise or lower a limit of what is read, such as archive_bytes=16G; may be repeated. Limits: {names}",
    )
