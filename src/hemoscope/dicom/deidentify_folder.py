"""De-identifies whole folders, archives and DICOMDIRs into a folder of pseudonyms, with a record of what was done."""

import json
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

from hemoscope.dicom.ct_objects import is_directory
from hemoscope.dicom.deidentify import FACES, LEAST_KEY_BYTES, METHOD, DeidentifyOptions, deidentified_file
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read_budget import ReadBudget
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import Rejected
from hemoscope.dicom.sources import Source, as_paths, find_sources, rejected_by
from hemoscope.dicom.tags import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from hemoscope.errors import ConfigError, DicomReadError
from hemoscope.files import write_bytes, write_text
from hemoscope.progress import Progress
from hemoscope.version import __version__

SCHEMA = "hemoscope.deidentification/1"
RECORD = "deidentification.json"
_PRIVATE = 0o600
_PATIENT_ID = 0x00100020
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deidentified:
    """What was written and what was not; ``rejected`` names inputs as the user gave them, so it may identify."""

    written: int
    patients: int
    studies: int
    rejected: tuple[Rejected, ...]


def deidentify_folder(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    output: Path,
    *,
    key: bytes,
    options: DeidentifyOptions = DeidentifyOptions(),  # noqa: B008 - frozen
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> Deidentified:
    """Write a de-identified copy of every image under the given paths.

    Files are ``output/PATIENT/STUDY/SERIES/INSTANCE.dcm``, all pseudonyms. An image that cannot be de-identified is
    refused and the others are written. The record, ``deidentification.json``, comes last and names no input.

    Args:
        paths: one or several of: file, folder, archive (ZIP, TAR, gzip), DICOMDIR file.
        output: a folder; an interrupted run with the same key can be repeated into it.
        key: secret of the site, at least 16 bytes.
        options: of the site.
        limits: size limits of one input.
        progress: called with the inputs done and their total.

    Raises:
        ConfigError: the output holds a finished run, or cannot be written.
    """
    if (output / RECORD).exists():
        msg = f"{output.name} holds de-identified files already. Choose another --output"
        raise ConfigError(msg)
    sources, rejected = find_sources(as_paths(paths), limits=limits)
    refused, written = list(rejected), Counter[Path]()
    budget = ReadBudget(limits)
    for done, source in enumerate(sources, 1):
        try:
            _write_one(source, output, key, options, budget, written)
        except DicomReadError as error:
            refused.append(rejected_by(error))
        except OSError as error:
            msg = f"{output.name}: cannot be written ({error.strerror}). Choose a writable folder as --output"
            raise ConfigError(msg) from error
        if progress is not None:
            progress(done, len(sources))
    folders = [path.relative_to(output).parts for path in written]
    result = Deidentified(
        written=sum(written.values()),
        patients=len({parts[0] for parts in folders}),
        studies=len({parts[:2] for parts in folders}),
        rejected=tuple(refused),
    )
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / RECORD, json.dumps(_record(result, options), indent=2) + "\n")
    return result


def _write_one(
    source: Source, output: Path, key: bytes, options: DeidentifyOptions, budget: ReadBudget, written: Counter[Path]
) -> None:
    """Write one file; a DICOMDIR is left out, since it indexes the originals."""
    limits, name = budget.limits, source.name
    data = source.load(limits)
    if is_directory(parse(data, source=name, limits=limits, until=SOP_INSTANCE_UID, together=budget)):
        return
    content = deidentified_file(data, key=key, source=name, options=options, limits=limits, together=budget)
    clean = parse(content, source=name, limits=limits, until=SERIES_INSTANCE_UID, together=budget).elements
    parts = [clean.text(tag) for tag in (_PATIENT_ID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)]
    if not all(parts):
        raise refusal(source.name, "malformed", "a UID of its study, series or instance is missing")
    path = output.joinpath(*parts[:3], f"{parts[3]}.dcm")
    count = written[path]
    written[path] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    # Different images may share a UID, against the standard; none is overwritten.
    write_bytes(path if count == 0 else path.with_stem(f"{path.stem}-{count + 1}"), content)


def _record(result: Deidentified, options: DeidentifyOptions) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "hemoscope": __version__,
        "method": METHOD,
        "options": asdict(options),
        "written": result.written,
        "patients": result.patients,
        "studies": result.studies,
        "refused": dict(Counter(one.code for one in result.rejected).most_common()),
        "warning": FACES,
    }


def read_or_make_key(path: Path) -> tuple[bytes, bool]:
    """Return the secret key in a file, and whether it was made now (random, readable by its owner alone).

    Raises:
        ConfigError: the file is shorter than 16 bytes, or cannot be read or made.
    """
    try:
        if path.exists():
            key = path.read_bytes()
            if len(key) < LEAST_KEY_BYTES:
                msg = f"{path.name} holds {len(key)} bytes; a key needs at least {LEAST_KEY_BYTES}. Name another --key"
                raise ConfigError(msg)
            return key, False
        key = secrets.token_hex(_KEY_BYTES).encode()
        write_bytes(path, key, mode=_PRIVATE)
    except OSError as error:
        msg = f"{path.name}: the key cannot be read or written ({os.strerror(error.errno or 0)}). Check --key"
        raise ConfigError(msg) from error
    return key, True
