"""Other series of a study as they are kept (``other_series``): what they are, and their slices."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from hemoscope.store import tables
from hemoscope.store.database import Database
from hemoscope.store.refusals import refusal
from hemoscope.store.storage import Storage, series_file
from hemoscope.store.values import KeptSeries

_kept = tables.kept_series


def series_of(connection: Connection, study_id: str) -> tuple[KeptSeries, ...]:
    """Return the kept series of a study, in their order."""
    asked = sa.select(_kept).where(_kept.c.study_id == study_id).order_by(_kept.c.number)
    return tuple(
        KeptSeries(number=row.number, description=row.description, geometry=json.loads(row.geometry))
        for row in connection.execute(asked)
    )


def numbers_of_series(connection: Connection, study_ids: Sequence[str]) -> dict[str, int]:
    """Return how many series are kept, by study; studies without any are left out."""
    counted = sa.select(_kept.c.study_id, sa.func.count()).where(_kept.c.study_id.in_(study_ids))
    return {row[0]: int(row[1]) for row in connection.execute(counted.group_by(_kept.c.study_id))}


def slice_of(database: Database, storage: Storage, row: Any, number: int, index: int) -> NDArray[np.int16]:
    """Return one slice of a kept series: HU, shape (rows, columns).

    Raises:
        StoreError: ``no_such_series``, ``no_such_slice`` or ``damaged_pixels``.
    """
    with database.reading() as connection:
        asked = sa.select(_kept.c.number).where(_kept.c.study_id == row.study_id, _kept.c.number == number)
        known = connection.execute(asked).first() is not None
    array = storage.read_array(row.upload_id, row.study_id, series_file(number)) if known else None
    if array is None:
        raise refusal("no_such_series", f"the study has no other series {number}")
    if not 0 <= index < len(array):
        raise refusal("no_such_slice", f"slice {index} of a series of {len(array)}")
    return np.asarray(array[index])
