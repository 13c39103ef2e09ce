"""The time of a scan is disclosed as exactly as its age matters, and no more."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.web.disclosure import rounded_scan_time

NOW = datetime(2026, 11, 23, 13, 7, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "rounded"),
    [
        (timedelta(minutes=38), "2026-11-23T12:25:00+00:00"),
        (timedelta(days=6), "2026-11-17T13:00:00+00:00"),
        (timedelta(days=200), "2026-05-15T00:00:00+00:00"),
        (timedelta(days=5000), "2013-07-01T00:00:00+00:00"),
        (-timedelta(days=5000), "2040-07-01T00:00:00+00:00"),
    ],
)
def test_the_older_the_scan_the_coarser_its_time(age: timedelta, rounded: str) -> None:
    assert rounded_scan_time(NOW - age, now=NOW).isoformat() == rounded


@given(
    st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2026, 11, 23)).map(lambda t: t.replace(tzinfo=UTC))
)
def test_a_scan_of_over_two_months_ago_is_never_dated_to_the_day(taken: datetime) -> None:
    rounded = rounded_scan_time(taken, now=NOW)
    if NOW - taken >= timedelta(days=60):
        assert (rounded.day, rounded.hour, rounded.minute, rounded.second) in {(15, 0, 0, 0), (1, 0, 0, 0)}
    else:
        assert timedelta() <= taken - rounded < timedelta(hours=1)
