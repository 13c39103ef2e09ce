"""Readers' measurements on slices: lengths, and Hounsfield units at a point or within a region.

A point is (row, column) in pixels of the slice as stored: the first pixel covers 0 to 1, its center is at 0.5. Values
are computed here, from the stored slice, so that page and report give the same.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from hemoscope.store import audit, tables
from hemoscope.store.database import Database, server_time, storable
from hemoscope.store.refusals import refusal
from hemoscope.store.study_row import find_study
from hemoscope.store.values import Geometry, Measured, Measurement, MeasurementKind

MOST_MEASUREMENTS = 200  # of a study
Point = tuple[float, float]
_measurements, _studies = tables.measurements, tables.studies
_POINTS = {
    MeasurementKind.PROBE: 1,
    MeasurementKind.LENGTH: 2,
    MeasurementKind.ELLIPSE: 2,
    MeasurementKind.RECTANGLE: 2,
}


def measured(
    hounsfield: NDArray[np.int16],
    kind: MeasurementKind,
    points: Sequence[Point],
    spacing_mm: tuple[float, float] | None,
) -> Measured:
    """Measure on one slice.

    Args:
        hounsfield: HU, shape (rows, columns).
        kind: a probe has one point; a length has its two ends; an ellipse and a rectangle two opposite corners of their
            bounding box, with sides along rows and columns.
        points: (row, column) in pixels.
        spacing_mm: distance between rows and between columns; None where it is unknown or assumed.

    Raises:
        StoreError: ``bad_measurement``: points outside the slice or too few, a region without a pixel's center, or
            millimetres where the pixel spacing is not known.
    """
    _check(hounsfield.shape, kind, points)
    if kind is MeasurementKind.PROBE:
        row, column = (min(int(place), side - 1) for place, side in zip(points[0], hounsfield.shape, strict=True))
        return _of_pixels(hounsfield[row : row + 1, column])
    if spacing_mm is None:
        raise refusal("bad_measurement", "the pixel spacing of this study is unknown or assumed")
    (top, left), (bottom, right) = points
    high, wide = abs(bottom - top) * spacing_mm[0], abs(right - left) * spacing_mm[1]
    if kind is MeasurementKind.LENGTH:
        return Measured(length_mm=math.hypot(high, wide))
    inside = hounsfield[_inside(hounsfield.shape, kind, points)]
    if len(inside) == 0:
        raise refusal("bad_measurement", "the region holds the center of no pixel")
    round_share = math.pi / 4 if kind is MeasurementKind.ELLIPSE else 1.0
    return _of_pixels(inside).model_copy(update={"area_mm2": round_share * high * wide})


def _check(shape: tuple[int, ...], kind: MeasurementKind, points: Sequence[Point]) -> None:
    if len(points) != _POINTS[kind]:
        raise refusal("bad_measurement", f"a {kind} has {_POINTS[kind]} points, got {len(points)}")
    if not all(0 <= place <= side for point in points for place, side in zip(point, shape, strict=True)):
        raise refusal("bad_measurement", f"a point lies outside the slice of {shape[0]} x {shape[1]} pixels")


def _inside(shape: tuple[int, ...], kind: MeasurementKind, points: Sequence[Point]) -> NDArray[np.bool_]:
    """Which pixels have their center in the region, shape (rows, columns)."""
    (top, left), (bottom, right) = points
    rows, columns = (np.arange(side) + 0.5 for side in shape)
    if kind is MeasurementKind.RECTANGLE:
        tall = (rows >= min(top, bottom)) & (rows <= max(top, bottom))
        broad = (columns >= min(left, right)) & (columns <= max(left, right))
        return np.asarray(tall[:, np.newaxis] & broad)
    half_row, half_column = max(abs(bottom - top) / 2, 1e-9), max(abs(right - left) / 2, 1e-9)
    up = ((rows - (top + bottom) / 2) / half_row) ** 2
    across = ((columns - (left + right) / 2) / half_column) ** 2
    return np.asarray(up[:, np.newaxis] + across <= 1)


def _of_pixels(values: NDArray[np.int16]) -> Measured:
    exact = values.astype(np.float64)
    return Measured(
        mean_hu=float(exact.mean()),
        sd_hu=float(exact.std()),
        lowest_hu=int(values.min()),
        highest_hu=int(values.max()),
        pixels=len(values),
    )


def spacing_of(geometry: Geometry) -> tuple[float, float] | None:
    """Return the distance between rows and columns in mm; None where it is unknown or assumed."""
    _, row_mm, column_mm = geometry["spacing_mm"]
    return (row_mm, column_mm) if row_mm and column_mm and not geometry["assumed"] else None


def add(
    database: Database,
    study_id: str,
    *,
    index: int,
    kind: MeasurementKind,
    points: Sequence[Point],
    found: Measured,
    by: str,
) -> Measurement:
    """Store a measurement. Raises StoreError ``no_such_study`` or ``bad_measurement``."""
    with database.writing() as connection:
        version = tables.tick(connection)
        find_study(connection, study_id)
        of_study = _measurements.c.study_id == study_id
        count = connection.execute(sa.select(sa.func.count()).select_from(_measurements).where(of_study)).scalar_one()
        if count >= MOST_MEASUREMENTS:
            raise refusal("bad_measurement", f"the study has {count} measurements, which is the most")
        values = {
            "study_id": study_id,
            "at": server_time(connection),
            "by_user": storable(by),
            "slice_index": index,
            "kind": kind.value,
            "points": json.dumps([list(point) for point in points]),
            "found": found.model_dump_json(),
        }
        row = connection.execute(_measurements.insert().values(**values).returning(*_measurements.c)).one()
        connection.execute(_studies.update().where(_studies.c.study_id == study_id).values(version=version))
        audit.append(connection, user=by, action="measure", study_id=study_id, detail=kind.value)
    return _measurement(row)


def of_study(database: Database, study_id: str) -> tuple[Measurement, ...]:
    """Return a study's measurements by slice, then oldest first. Raises StoreError ``no_such_study``."""
    with database.reading() as connection:
        find_study(connection, study_id)
        listed = sa.select(_measurements).where(_measurements.c.study_id == study_id)
        rows = connection.execute(listed.order_by(_measurements.c.slice_index, _measurements.c.measurement_id)).all()
    return tuple(_measurement(row) for row in rows)


def delete(database: Database, study_id: str, measurement_id: int, *, by: str) -> None:
    """Delete one measurement. Raises StoreError ``no_such_study`` or ``no_such_measurement``."""
    with database.writing() as connection:
        version = tables.tick(connection)
        find_study(connection, study_id)
        chosen = sa.and_(_measurements.c.study_id == study_id, _measurements.c.measurement_id == measurement_id)
        if connection.execute(_measurements.delete().where(chosen)).rowcount == 0:
            raise refusal("no_such_measurement", f"the study has no measurement {measurement_id}")
        connection.execute(_studies.update().where(_studies.c.study_id == study_id).values(version=version))
        audit.append(connection, user=by, action="delete measurement", study_id=study_id, detail="")


def _measurement(row: Any) -> Measurement:
    return Measurement(
        measurement_id=row.measurement_id,
        study_id=row.study_id,
        at=row.at,
        by=row.by_user,
        slice=row.slice_index,
        kind=MeasurementKind(row.kind),
        points=tuple((float(down), float(across)) for down, across in json.loads(row.points)),
        found=Measured.model_validate_json(row.found),
    )
