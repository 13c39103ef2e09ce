"""What the headers of prepared files said, kept in the cache: a resumed preparation reads only new and changed ones.

A file is known by its name, size and time of change. The table stands in ``index/`` of the cache beside its checksum; a
damaged one is not used, and every header is read again.
"""

import io
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path

from hemoscope.checksums import SUMS, ChecksumError, read_checked, read_sums, write_sums
from hemoscope.data.cache import import_pandas
from hemoscope.files import atomic_path

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownHeader:
    """What one file's header said when the file had this size and time of change; no patient if it was not asked."""

    name: str
    size: int
    mtime_ns: int
    patient_id: str
    study_id: str
    series_id: str

    @property
    def stamp(self) -> tuple[int, int]:
        """What changes with the content."""
        return self.size, self.mtime_ns


def stamp_of_path(path: Path) -> tuple[int, int]:
    """Return size and time of change of a file, as in ``KnownHeader.stamp``; zeros if it cannot be looked at."""
    try:
        found = os.stat(path)  # noqa: PTH116  # a million times
    except OSError:
        return 0, 0  # reading it gives the reason
    return found.st_size, found.st_mtime_ns


def read_index(cache: Path, *, pseudonyms: bool) -> dict[str, KnownHeader]:
    """Return the known headers by file name; none if there is no index, or a damaged one."""
    path = _path(cache, pseudonyms=pseudonyms)
    if not path.is_file():
        return {}
    try:
        table = import_pandas().read_parquet(io.BytesIO(read_checked(path, read_sums(path.parent / SUMS) or {})))
        columns = [table[field.name].tolist() for field in fields(KnownHeader)]
    except (ChecksumError, OSError, ValueError, KeyError) as error:
        _log.warning("The index of headers is damaged (%s): every header is read again", type(error).__name__)
        return {}
    return {header.name: header for header in map(KnownHeader, *columns)}


def write_index(cache: Path, headers: Iterable[KnownHeader], *, pseudonyms: bool) -> None:
    """Write the index, in place of an earlier one."""
    path = _path(cache, pseudonyms=pseudonyms)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(KnownHeader)]
    rows = sorted(map(attrgetter(*names), headers))
    table = import_pandas().DataFrame.from_records(rows, columns=names)
    with atomic_path(path) as draft:
        table.to_parquet(draft, index=False)
    write_sums(path.parent, [path.name])


def _path(cache: Path, *, pseudonyms: bool) -> Path:
    return cache / "index" / f"{'pseudonyms' if pseudonyms else 'headers'}.parquet"
