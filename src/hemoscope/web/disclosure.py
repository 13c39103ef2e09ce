"""What of a study a site discloses: identity only if the site shows it, the time of the scan only as far as needed.

PS3.15 counts dates among what identifies a patient. The age of a recent study decides what is read first, so it is
given; an older one is rounded to the month or the year.
"""

from datetime import UTC, datetime, timedelta
from typing import TypeVar

from hemoscope.store.values import StudySummary

_TRIAGE = timedelta(days=2)
_DAYS_COUNT = timedelta(days=60)
_MONTHS_COUNT = timedelta(days=730)

Study = TypeVar("Study", bound=StudySummary)


def disclosed(study: Study, *, identity_shown: bool) -> Study:
    """Return a study as it may leave the server: with identity and exact scan time only if the site shows identity."""
    if identity_shown:
        return study
    taken = study.acquired_at and rounded_scan_time(study.acquired_at, now=datetime.now(UTC))
    return study.model_copy(update={"identity": None, "acquired_at": taken})


def scan_time_words(taken: datetime, *, now: datetime, identity_shown: bool) -> str:
    """The time of a scan in words: exact only if the site shows identity, never finer than it is rounded.

    Examples:
        >>> now, taken = datetime(2026, 3, 1, tzinfo=UTC), datetime(1987, 2, 17, 9, 30, tzinfo=UTC)
        >>> scan_time_words(taken, now=now, identity_shown=True)
        '1987-02-17 09:30 UTC'
        >>> scan_time_words(taken, now=now, identity_shown=False)
        '1987'
    """
    exact = "%Y-%m-%d %H:%M UTC"
    if identity_shown:
        return f"{taken:{exact}}"
    age = abs(now - taken)
    form = (
        exact
        if age < _TRIAGE
        else "%Y-%m-%d %H:00 UTC"
        if age < _DAYS_COUNT
        else "%Y-%m"
        if age < _MONTHS_COUNT
        else "%Y"
    )
    return f"{rounded_scan_time(taken, now=now):{form}}"


def rounded_scan_time(taken: datetime, *, now: datetime) -> datetime:
    """Round the time of a scan by its age: to five minutes, from two days on to the hour, then month, then year.

    Args:
        taken: Study Date and Time, UTC; may lie in the future if a clock is wrong.
        now: UTC.

    Examples:
        >>> now = datetime(2026, 3, 1, tzinfo=UTC)
        >>> rounded_scan_time(datetime(2026, 2, 28, 23, 51, 40, tzinfo=UTC), now=now).isoformat()
        '2026-02-28T23:50:00+00:00'
        >>> rounded_scan_time(datetime(1987, 2, 17, 9, 30, tzinfo=UTC), now=now).isoformat()
        '1987-07-01T00:00:00+00:00'
    """
    age = abs(now - taken)
    if age < _TRIAGE:
        return taken.replace(minute=taken.minute - taken.minute % 5, second=0, microsecond=0)
    if age < _DAYS_COUNT:
        return taken.replace(minute=0, second=0, microsecond=0)
    return (
        datetime(taken.year, taken.month, 15, tzinfo=UTC)
        if age < _MONTHS_COUNT
        else datetime(taken.year, 7, 1, tzinfo=UTC)
    )
