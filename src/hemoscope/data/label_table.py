"""Reads labels of any dataset from a CSV file with one row per image. An empty label is unknown, not negative.

Columns ``image_id`` (the DICOM file's name without its ending) and the six labels; ``patient_id`` is optional and
takes precedence over the DICOM headers. Other columns are ignored; ``.gz`` is read too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemoscope.errors import DataError
from hemoscope.labels import LABELS

if TYPE_CHECKING:
    import pandas as pd

Six = tuple[int | None, ...]
_VALUES = {"": None, "0": 0, "1": 1}
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """Labels of one image: six in label order, None if unknown, and its patient if given."""

    labels: Six
    patient_id: str | None = None


Labels = Mapping[str, LabelledImage]


def read_table_labels(path: Path) -> dict[str, LabelledImage]:
    """Return the labels of a table by image id.

    Raises:
        DataError: the file is unreadable, empty or lacks a column; an image id is empty or occurs twice; a label is
            neither 0, 1 nor empty; a patient id is empty.
    """
    table = read_text_table(path, ("image_id", *LABELS))
    known: dict[str, LabelledImage] = {}
    lines: dict[str, int] = {}
    patients = table["patient_id"].tolist() if "patient_id" in table.columns else [None] * len(table)
    rows = zip(table["image_id"].tolist(), patients, *(table[label].tolist() for label in LABELS), strict=True)
    for line, (image_id, patient, *values) in enumerate(rows, 2):
        if not image_id or image_id in known:
            what = f"{image_id} occurs in lines {lines[image_id]} and {line}" if image_id else f"line {line} has no id"
            msg = f"{path.name}: {what}. Give one row per image, with its image_id"
            raise DataError(msg)
        if patient == "":
            msg = f"{path.name}: line {line} has an empty patient_id. Fill it, or remove the column"
            raise DataError(msg)
        known[image_id], lines[image_id] = LabelledImage(labels=_six(path, line, values), patient_id=patient), line
    return known


def read_text_table(path: Path, columns: tuple[str, ...]) -> "pd.DataFrame":
    """Read a CSV file with at least these columns as stripped text. Raises DataError if invalid or empty."""
    import pandas as pd

    return pd.concat(read_text_chunks(path, columns))


def read_text_chunks(path: Path, columns: tuple[str, ...]) -> Iterator["pd.DataFrame"]:
    """Read a large CSV file as ``read_text_table`` does, some rows at a time; their index counts the file's rows."""
    import pandas as pd

    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False}
    rows = 0
    try:
        with pd.read_csv(path, encoding="utf-8-sig", chunksize=_ROWS_AT_ONCE, **options) as chunks:
            for chunk in chunks:
                absent = [name for name in columns if name not in chunk.columns]
                _check_table(path, columns, f"lacks the columns {', '.join(absent)}" if absent else "")
                rows += len(chunk)
                if len(chunk):
                    # A row shorter than the header is filled with missing values, whatever keep_default_na says.
                    yield chunk.fillna("").apply(lambda column: column.str.strip())
    except FileNotFoundError as error:
        msg = f"{path.name}: no such file. Give the path of the CSV table"
        raise DataError(msg) from error
    except (OSError, ValueError, EOFError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        msg = f"{path.name}: not a readable CSV table ({type(error).__name__}). Give CSV in UTF-8"
        raise DataError(msg) from error
    _check_table(path, columns, "" if rows else "has a header and no rows")


def _check_table(path: Path, columns: tuple[str, ...], wrong: str) -> None:
    if wrong:
        msg = f"{path.name} {wrong}. It needs {', '.join(columns)}"
        raise DataError(msg)


def _six(path: Path, line: int, values: list[str]) -> Six:
    wrong = next((label for label, value in zip(LABELS, values, strict=True) if value not in _VALUES), None)
    if wrong is not None:
        msg = f"{path.name}: line {line} has {wrong} {values[LABELS.index(wrong)]!r:.40}, expected 0, 1 or nothing"
        raise DataError(msg)
    return tuple(_VALUES[value] for value in values)
