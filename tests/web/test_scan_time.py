"""The time of a scan is told as exactly as its age matters, and no more."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.web.scan_time import rounded_scan_time

NOW = datetime(2026, 11, 23, 13, 7, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (timedelta(minutes=38), "2026-11-23T12:25:00+00:00"),
        (timedelta(days=6), "2026-11-17T13:00:00+00:00"),
        (timedelta(days=200), "2026-05-15T00:00:00+00:00"),
        (timedelta(days=5000), "2013-07-01T00:00:00+00:00"),
        (-timedelta(days=5000), "2040-07-01T00:00:00+00:00"),
    ],
)
def test_the_older_the_scan_the_less_is_told(age: timedelta, told: str) -> None:
    assert rounded_scan_time(NOW - age, now=NOW).isoformat() == told


@given(
    st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2026, 11, 23)).map(lambda t: t.replace(tzinfo=UTC))
)
def test_no_scan_of_over_two_months_ago_is_told_by_the_day(taken: datetime) -> None:
    told = rounded_scan_time(taken, now=NOW)
    if NOW - taken >= timedelta(days=60):
        assert (told.day, told.hour, told.minute, told.second) in {(15, 0, 0, 0), (1, 0, 0, 0)}
    else:
        assert timedelta() <= taken - told < timedelta(hours=1)
