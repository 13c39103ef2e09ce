"""Reads a table as text, row by row with line numbers: comma, semicolon or tab; plain or gzipped; strictly.

Excel's forms are read: UTF-8 or UTF-16 with a byte order mark, and a first line ``sep=;`` that names the separator.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from hemoscope.errors import DataError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_GZIP = b"\x1f\x8b"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvRows:
    """An open table: its columns as written, its separator, and ``rows`` as (line in the file, one cell a column)."""

    name: str
    columns: tuple[str, ...]
    separator: str
    rows: Iterator[tuple[int, list[str]]]


@contextmanager
def open_rows(path: Path, known: Collection[str]) -> Iterator[CsvRows]:
    """Open a table of text in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: the file.
        known: names of columns, in lower case: the separator makes most of them, unless line 1 names it.

    Raises:
        DataError: the file is unreadable or empty, its separator is unclear, a column stands twice, a row is empty or
            has another number of cells than the header. Raised while rows are read, too.
    """
    try:
        with path.open("rb") as raw, _text(raw) as stream:
            line, header = 1, stream.readline()
            separator = _declared_separator(path, header)
            if separator is not None:
                line, header = 2, stream.readline()
            separator = separator or _separator(path, header, known)
            columns = tuple(cell.strip() for cell in next(csv.reader([header], delimiter=separator, strict=True), []))
            _check_header(path, columns, line)
            rows = _rows(path, stream, len(columns), separator, header_line=line)
            yield CsvRows(name=path.name, columns=columns, separator=separator, rows=rows)
    except FileNotFoundError as error:
        msg = f"{path.name}: no such file. Give the path of the CSV table"
        raise DataError(msg) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        msg = (
            f"{path.name}: not a readable CSV table ({type(error).__name__}). Give CSV in UTF-8, in UTF-16 with a byte "
            "order mark, or one of them gzipped as .gz"
        )
        raise DataError(msg) from error


@contextmanager
def _text(raw: BinaryIO) -> Iterator[TextIO]:
    binary = gzip.GzipFile(fileobj=raw) if _head(raw) == _GZIP else raw
    encoding = "utf-16" if _head(binary) in _UTF_16 else "utf-8-sig"
    with io.TextIOWrapper(binary, encoding=encoding, newline="") as stream:
        yield stream


def _head(binary: BinaryIO | gzip.GzipFile) -> bytes:
    head = binary.read(2)
    binary.seek(0)
    return head


def _declared_separator(path: Path, line: str) -> str | None:
    """Return the separator that Excel's line ``sep=;`` names; None if the line is another one."""
    found = _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n"))
    if found is None:
        return None
    if found[1] not in SEPARATORS:
        msg = f"{path.name}: line 1 names the separator {found[1]!r}. Use {', '.join(SEPARATORS.values())}"
        raise DataError(msg)
    return found[1]


def _separator(path: Path, header: str, known: Collection[str]) -> str:
    """Choose the separator that makes most known columns; refuse if two make equally many different ones."""
    split = {one: next(csv.reader([header], delimiter=one, strict=True), []) for one in SEPARATORS}
    counts = {one: sum(cell.strip().casefold() in known for cell in cells) for one, cells in split.items()}
    most = max(counts.values())
    best = [one for one, count in counts.items() if count == most and len(split[one]) > 1]
    if len(best) > 1:
        names = " and ".join(SEPARATORS[one] for one in best)
        msg = f"{path.name}: its header can be split by {names}. Separate the columns by one of them only"
        raise DataError(msg)
    return best[0] if best else ","


def _check_header(path: Path, columns: tuple[str, ...], line: int) -> None:
    named = [name.casefold() for name in columns if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        msg = f"{path.name}: the column {twice} stands twice in line {line}. Remove or rename one of them"
        raise DataError(msg)
    if not named:
        msg = f"{path.name}: line {line} is empty. Give a CSV table whose first line names the columns"
        raise DataError(msg)


def _rows(
    path: Path, stream: TextIO, width: int, separator: str, *, header_line: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield rows with their lines; empty rows are accepted only at the end, where spreadsheets leave them."""
    reader = csv.reader(stream, delimiter=separator, strict=True)
    empty = 0
    for cells in reader:
        line = header_line + reader.line_num
        # Nearly all rows begin with an id, and there may be millions.
        if not (cells and cells[0].strip()) and not any(cell.strip() for cell in cells):
            empty = empty or line
            continue
        if empty:
            msg = f"{path.name}: line {empty} is empty. Remove it"
            raise DataError(msg)
        if len(cells) != width:
            raise _wrong_width(path, line, len(cells), width, separator)
        yield line, cells


def _wrong_width(path: Path, line: int, found: int, width: int, separator: str) -> DataError:
    hint = "Correct the row"
    if found > width and separator == ",":
        hint = "Correct the row; numbers with a decimal comma need semicolons or tabs between the columns"
    kind = "shorter" if found < width else "longer"
    return DataError(f"{path.name}: line {line} is {kind} than the header ({found} cells of {width}). {hint}")
