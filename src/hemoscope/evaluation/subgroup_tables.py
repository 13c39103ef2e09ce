"""Reads the columns that divide images into subgroups, from CSV tables by image or by patient."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hemoscope.data.csv_rows import open_rows
from hemoscope.data.image_ids import bare_id
from hemoscope.errors import DataError
from hemoscope.evaluation.clinical_inputs import SubgroupColumn, parse_subgroup

IMAGE_KEY = "image_id"
PATIENT_KEY = "patient_id"


def read_subgroups(
    wanted: Sequence[str],
    tables: Sequence[Path],
    measured: Mapping[str, Mapping[str, str]] | None = None,
    *,
    names: Mapping[str, str] | None = None,
) -> tuple[SubgroupColumn, ...]:
    """Find every wanted column: among the measured ones, or else in the first table that has it.

    Args:
        wanted: ``COLUMN`` or ``COLUMN:CUT,CUT`` each.
        tables: CSV (gz allowed) with ``image_id``, or else ``patient_id``.
        measured: columns that the images themselves give, by name: the value of each image.
        names: columns that have other names, by role (``image_table.ROLES``).

    Raises:
        ConfigError: cut points that are not rising numbers.
        DataError: a table cannot be read or names no image and no patient, or no table has a column.
    """
    known = measured or {}
    read = [_read(table, names or {}) for table in tables] if wanted else []
    return tuple(_find(*parse_subgroup(text), read, known) for text in wanted)


_Read = tuple[str, tuple[str, ...], list[dict[str, str]]]


def _find(
    name: str, cuts: tuple[float, ...], tables: Sequence[_Read], measured: Mapping[str, Mapping[str, str]]
) -> SubgroupColumn:
    if name in measured:
        return SubgroupColumn(name=name, key="image", values=measured[name], cuts=cuts)
    for title, columns, rows in tables:
        if name not in columns:
            continue
        key = IMAGE_KEY if IMAGE_KEY in columns else PATIENT_KEY
        if key not in columns:
            msg = f"{title} has neither {IMAGE_KEY} nor {PATIENT_KEY}. Add one, to say whose {name} it holds"
            raise DataError(msg)
        identify = bare_id if key == IMAGE_KEY else str.strip
        values = {identify(row[key]): row[name] for row in rows}
        return SubgroupColumn(name=name, key="image" if key == IMAGE_KEY else "patient", values=values, cuts=cuts)
    places = ", ".join([*(title for title, _, _ in tables), *measured]) or "no table was given"
    msg = f"--subgroup {name}: not found in {places}. Give a table that has it with --subgroup-table"
    raise DataError(msg)


def _read(path: Path, names: Mapping[str, str]) -> _Read:
    """Read a table as ``hemoscope.data`` reads tables of images, whatever its columns are."""
    with open_rows(path, {IMAGE_KEY, PATIENT_KEY, *(name.casefold() for name in names.values())}) as opened:
        roles = {column: role for role, column in names.items() if column in opened.columns}
        columns = tuple(roles.get(column, column) for column in opened.columns)
        return opened.name, columns, [dict(zip(columns, cells, strict=True)) for _, cells in opened.rows]
