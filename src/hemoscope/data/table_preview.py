"""Describes what would be read of tables and images, without reading anything else (``--dry-run``)."""

from collections.abc import Iterator

import numpy as np

from hemoscope.data.csv_rows import SEPARATORS
from hemoscope.data.image_ids import Matching, listed
from hemoscope.data.image_table import ImageTable
from hemoscope.data.table_cells import Content
from hemoscope.labels import LABELS

_EXAMPLES = 5


def table_lines(table: ImageTable, content: Content) -> Iterator[str]:
    """Yield lines about one table: columns, images, and for labels the positives of each."""
    columns = ", ".join(role if role == column else f"{role} = {column}" for role, column in table.used.items())
    unused = [column for column in table.columns if column not in table.used.values()]
    yield f"{table.name}: {content} in the form {table.form}, columns separated by {SEPARATORS[table.separator]}"
    yield f"  columns read: {columns}"
    if unused:
        yield f"  columns not read: {listed(unused, shown=20)}"
    repeated = f", {table.repeated} repeated with equal values" if table.repeated else ""
    yield f"  images: {len(table.image_ids)}{repeated}; first: {listed(table.image_ids)}"
    if content is Content.LABELS:
        if table.computed:
            yield f"  any computed from the types: {table.computed} images"
        yield from _positives(table)


def match_lines(matched: Matching, table: str, other: str) -> Iterator[str]:
    """Yield lines about what matches between the ids of a table and other names (files, or another table)."""
    yield f"matched: {len(matched.id_of)} images of {table} and {other}"
    for name, fits in matched.ambiguous[:_EXAMPLES]:
        yield f"ambiguous: {name} fits {listed(fits)}"
    if len(matched.ambiguous) > _EXAMPLES:
        yield f"ambiguous: and {len(matched.ambiguous) - _EXAMPLES} more"
    for alone, where in ((matched.ids_alone, f"only in {table}"), (matched.names_alone, f"only in {other}")):
        yield f"{where}: {len(alone)}{f': {listed(alone, shown=_EXAMPLES)}' if alone else ''}"


def _positives(table: ImageTable) -> Iterator[str]:
    for place, label in enumerate(LABELS):
        column = table.values[:, place]
        unknown = int(np.isnan(column).sum())
        positive, negative = int((column == 1.0).sum()), int((column == 0.0).sum())
        yield f"  {label}: {positive} positive, {negative} negative, {unknown} unknown"
    untyped = int(((table.values[:, 0] == 1.0) & (table.values[:, 1:] == 0.0).all(axis=1)).sum())
    if untyped:
        yield f"  any is 1 and all types are 0: {untyped} images"
