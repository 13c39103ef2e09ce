"""Records of finished studies in a folder of results, so that an interrupted run can go on: ``resume/KEY.json``.

The key is a hash of everything that the result depends on: the inputs, the model, the version of Hemoscope and the
options. A study with the same key is finished; its record holds its findings, what was refused on the way, and their
SHA-256.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemoscope.dicom.archive import Archive, Study
from hemoscope.dicom.slices import Rejected
from hemoscope.files import write_bytes
from hemoscope.inference.card import parse_dataclass, to_plain
from hemoscope.reports.findings_json import document_text
from hemoscope.reports.output_folder import explained
from hemoscope.reports.report import ReportedStudy
from hemoscope.version import __version__

RECORDS = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A finished study, and the inputs of it that were refused."""

    study: ReportedStudy
    rejected: tuple[Rejected, ...]


def study_key(archive: Archive, study: Study, settings: str) -> str | None:
    """Return the key of a DICOM study; None if one of its files is gone.

    Args:
        archive: that holds the study.
        study: all its series count, since one of them is chosen.
        settings: the model and the options, as text.
    """
    headers = [header for series in study.series for header in (*series.headers, *series.left_out)]
    try:
        stamps = [archive.sources[name].stamp() for name in sorted({header.source for header in headers})]
    except (OSError, KeyError):
        return None
    return _key(settings, repr(study), repr(stamps))


def volume_key(path: Path, settings: str) -> str | None:
    """Return the key of a NIfTI file; None if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _key(settings, path.name, repr((found.st_size, found.st_mtime_ns)))


def write_record(folder: Path, key: str, record: StudyRecord) -> None:
    """Write the record of a finished study; call it after all its files are written.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    with explained(folder):
        (folder / RECORDS).mkdir(exist_ok=True)
        plain = to_plain(record)
        text = document_text({"sha256": _digest(plain), "record": plain})
        write_bytes(folder / RECORDS / f"{key}.json", text.encode())


def read_record(folder: Path, key: str | None) -> StudyRecord | None:
    """Return the record of a study, or None if it is not finished, or its record is damaged."""
    try:
        stored = json.loads((folder / RECORDS / f"{key}.json").read_bytes())
        plain = stored["record"]
        return parse_dataclass(StudyRecord, plain, where="record") if stored["sha256"] == _digest(plain) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the study is read again, which is always right


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _key(*parts: str) -> str:
    text = "\n".join((__version__, *parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
