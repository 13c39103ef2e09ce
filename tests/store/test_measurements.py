"""Measurements: right on pixels whose values are known, and kept with the study."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.errors import StoreError
from hemoscope.store.measurements import measured
from hemoscope.store.store import Store
from hemoscope.store.values import MeasurementKind, StudyDetail, StudySummary

SLICE = (10 * np.arange(20)).astype(np.int16).reshape(4, 5)
SPACING = (0.5, 2.0)
ELLIPSE, RECTANGLE, LENGTH, PROBE = (
    MeasurementKind.ELLIPSE,
    MeasurementKind.RECTANGLE,
    MeasurementKind.LENGTH,
    MeasurementKind.PROBE,
)


def test_a_length_is_in_mm_also_on_pixels_that_are_not_square() -> None:
    assert measured(np.zeros((8, 8), np.int16), LENGTH, [(0.0, 0.0), (6.0, 2.0)], SPACING).length_mm == 5.0


def test_a_rectangle_takes_the_pixels_whose_center_it_holds() -> None:
    found = measured(SLICE, RECTANGLE, [(3.0, 4.0), (1.0, 1.0)], SPACING)
    values = SLICE[1:3, 1:4]
    assert (found.pixels, found.mean_hu, found.lowest_hu, found.highest_hu) == (6, 95.0, 60, 130)
    assert found.sd_hu == pytest.approx(values.std())
    assert found.area_mm2 == 6.0


@given(st.floats(6, 20), st.floats(6, 20))
def test_an_ellipse_holds_as_many_pixels_as_its_area_says(half_row: float, half_column: float) -> None:
    points = [(32 - half_row, 32 - half_column), (32 + half_row, 32 + half_column)]
    found = measured(np.full((64, 64), 58, np.int16), ELLIPSE, points, (1.0, 1.0))
    assert found.area_mm2 == pytest.approx(math.pi * half_row * half_column)
    assert found.pixels == pytest.approx(found.area_mm2, rel=0.1)
    assert (found.mean_hu, found.sd_hu) == (58.0, 0.0)


def test_a_point_has_the_hu_of_its_pixel_without_any_spacing() -> None:
    assert measured(SLICE, PROBE, [(1.9, 2.2)], None).mean_hu == 70
    assert measured(SLICE, PROBE, [(4.0, 5.0)], None).mean_hu == 190


@pytest.mark.parametrize(
    ("kind", "points", "spacing", "words"),
    [
        (LENGTH, [(0.0, 0.0), (1.0, 1.0)], None, "pixel spacing of this study is unknown"),
        (ELLIPSE, [(0.0, 0.0), (1.0, 1.0)], None, "pixel spacing of this study is unknown"),
        (LENGTH, [(0.0, 0.0)], SPACING, "a length has 2 points, got 1"),
        (PROBE, [(4.1, 0.0)], SPACING, "outside the slice of 4 x 5 pixels"),
        (PROBE, [(float("nan"), 0.0)], SPACING, "outside the slice"),
        (RECTANGLE, [(1.1, 1.1), (1.3, 1.3)], SPACING, "the center of no pixel"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    kind: MeasurementKind, points: list[tuple[float, float]], spacing: tuple[float, float] | None, words: str
) -> None:
    with pytest.raises(StoreError, match=words) as refused:
        measured(SLICE, kind, points, spacing)
    assert refused.value.code == "bad_measurement"


@pytest.fixture
def study(
    store: Store, submit: Callable[..., StudySummary], work: Callable[..., int], series: list[bytes]
) -> StudyDetail:
    entry = submit(store, series)
    work(store)
    return store.get(entry.study_id)


def test_measurements_are_kept_by_slice_and_deleted(store: Store, study: StudyDetail) -> None:
    later = store.measure(study.study_id, index=3, kind=LENGTH, points=[(1, 1), (2, 2)], by="anna")
    first = store.measure(study.study_id, index=1, kind=PROBE, points=[(5.5, 6.5)], by="bert")
    assert store.measurements(study.study_id) == (first, later)
    pixels = np.frombuffer(store.pixels(study.study_id, 1), "<i2")
    assert study.geometry is not None
    assert first.found.mean_hu == pixels.reshape(study.geometry["rows"], -1)[5, 6]
    store.delete_measurement(study.study_id, first.measurement_id, by="bert")
    assert store.measurements(study.study_id) == (later,)
    with pytest.raises(StoreError) as refused:
        store.delete_measurement(study.study_id, first.measurement_id, by="bert")
    assert refused.value.code == "no_such_measurement"
    store.delete(study.study_id, by="anna")
    with pytest.raises(StoreError) as gone:
        store.measurements(study.study_id)
    assert gone.value.code == "no_such_study"


def test_a_report_is_drawn_again_after_the_newest_measurement_is_replaced(store: Store, study: StudyDetail) -> None:
    first = store.measure(study.study_id, index=1, kind=PROBE, points=[(1.5, 1.5)], by="anna")
    drawn = store.report_state(study.study_id)
    store.delete_measurement(study.study_id, first.measurement_id, by="anna")
    store.measure(study.study_id, index=3, kind=LENGTH, points=[(1, 1), (2, 2)], by="anna")
    assert store.report_state(study.study_id) != drawn
