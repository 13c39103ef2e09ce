"""A folder of results: findings.json, CSV tables, reports and pictures.

Each file is written whole or not at all, except that the CSV tables grow: the rows of a study are added in one write
when it is done, and are on the disk then. Files of other names are left alone, so several runs may share a folder.
``findings.json`` is written last: where it stands, the rest of its run stands too.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from hemoscope.errors import ConfigError
from hemoscope.files import append_line, sync_folder, write_bytes
from hemoscope.labels import Hemorrhage
from hemoscope.reports.findings_csv import slice_table, study_table
from hemoscope.reports.findings_json import findings_json
from hemoscope.reports.report import Report, ReportedStudy

SLICES, STUDIES, JSON = "findings.csv", "studies.csv", "findings.json"
PICTURES = "overlays"
REPORTS = "reports"


def make_output_folder(folder: Path) -> None:
    """Make the folder, and its parents, where it is not there yet; call it before the long work, to fail early.

    Raises:
        ConfigError: the path is a file, or the folder cannot be made or written to.

    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder.name} is a file, but results need a folder. Give --output another path"
        raise ConfigError(msg)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / "findings.json.check", b"").unlink()


def write_report(report: Report, folder: Path, *, schema: int = 2) -> None:
    """Write the tables and the JSON of a report, in this version of its schema.

    Raises:
        ConfigError: the folder cannot be written to.

    """
    with explained(folder):
        for name, text in _tables(report.studies, identify=any(one.patient for one in report.studies), header=True):
            write_bytes(folder / name, text.encode())
        write_bytes(folder / JSON, findings_json(report, version=schema).encode("ascii"))


def begin_tables(folder: Path, studies: Sequence[ReportedStudy], *, identify: bool = False) -> None:
    """Begin the tables of a run with the studies that are finished already; remove an earlier ``findings.json``.

    Args:
        folder: of the results.
        studies: finished in an earlier run.
        identify: whether studies may hold a patient's identity.

    Raises:
        ConfigError: the folder cannot be written to.

    """
    with explained(folder):
        (folder / JSON).unlink(missing_ok=True)
        sync_folder(folder)
        for name, text in _tables(studies, identify=identify, header=True):
            write_bytes(folder / name, text.encode())


def append_study(folder: Path, study: ReportedStudy, *, identify: bool = False) -> None:
    """Add the rows of a study to the tables that ``begin_tables`` began; they are on the disk before this returns.

    Raises:
        ConfigError: the folder cannot be written to.

    """
    with explained(folder):
        for name, text in _tables([study], identify=identify, header=False):
            append_line(folder / name, text.removesuffix("\n"))


def _tables(studies: Sequence[ReportedStudy], *, identify: bool, header: bool) -> Iterator[tuple[str, str]]:
    yield SLICES, slice_table(studies, header=header)
    yield STUDIES, study_table(studies, identify=identify, header=header)


def write_picture(image: Image.Image, folder: Path, *, study_uid: str, number: int, label: Hemorrhage) -> Path:
    """Write one overlay as ``overlays/STUDY/slice-NUMBER-LABEL.png`` and return its path.

    Raises:
        ConfigError: the folder cannot be written to.

    """
    png = io.BytesIO()
    image.save(png, format="PNG")
    path = folder / PICTURES / folder_name(study_uid) / f"slice-{number:03d}-{label.value}.png"
    with explained(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_bytes(path, png.getvalue())


def write_study_file(content: bytes, folder: Path, *, study_uid: str, name: str) -> Path:
    """Write one file of a study's report as ``reports/STUDY/NAME`` and return its path.

    Raises:
        ConfigError: the folder cannot be written to.

    """
    path = folder / REPORTS / folder_name(study_uid) / name
    with explained(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_bytes(path, content)


def folder_name(uid: str) -> str:
    """Turn a UID into a name that stays inside the folder, whatever the file claims its UID is.

    Examples:
        >>> folder_name("1.2.840.1")
        '1.2.840.1'
        >>> folder_name("../etc")
        'etc-f7f9121f'

    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", uid).strip("._-")[:64]
    if plain and plain == uid:
        return plain
    digest = hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Raise the OSError of a write as a ConfigError that names the folder."""
    try:
        yield
    except OSError as error:
        msg = f"cannot write to {folder.name}: {error.strerror or error}. Give --output a folder you may write to"
        raise ConfigError(msg) from error
