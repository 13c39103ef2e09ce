"""Whether the database's clock can be trusted with what is deleted by age."""

import logging
from datetime import datetime, timedelta
from time import monotonic

import sqlalchemy as sa

from hemoscope.store import audit, tables
from hemoscope.store.database import Database

_log = logging.getLogger("hemoscope.store")
_audit = tables.audit
_JUMP_S = 3600.0
_DISTRUSTED = timedelta(days=1)
_MARKED_EVERY = timedelta(hours=1)


class ClockWatch:
    """Compares the database's clock with the monotonic one, so that no clock that is set deletes by age.

    What was before this process is known from the audit log alone: if its times leap by more than a day, or the clock
    is more than a day from the last of them, the clock was set, or the site was switched off or idle. Nobody can tell
    which, so that a day passes in each case.
    """

    def __init__(self, database: Database) -> None:
        """Look at the log of this database when the clock is asked for the first time."""
        self._database = database
        self._last: tuple[datetime, float] | None = None
        self._distrusted_until = float("-inf")

    def steady(self, moment: datetime) -> bool:
        """Whether the clock, which shows ``moment`` now, was not set by more than an hour within the last day.

        Raises:
            StoreError: the log cannot be read or written; the next look is the first one then.
        """
        at = monotonic()
        if self._last is None:
            leap = self._leap_in_log(moment)
            if abs(leap) > _DISTRUSTED:
                self._distrust(at, f"the clock is {leap / timedelta(hours=1):.1f} h from the entries of the audit log")
                self._mark(moment)
        else:
            jump = (moment - self._last[0]).total_seconds() - (at - self._last[1])
            if abs(jump) > _JUMP_S:
                self._distrust(at, f"the clock was set by {jump / 3600:.1f} h")
        self._last = (moment, at)
        return at >= self._distrusted_until

    def _distrust(self, at: float, why: str) -> None:
        self._distrusted_until = at + _DISTRUSTED.total_seconds()
        _log.warning("%s: nothing is deleted by age for a day", why)

    def _leap_in_log(self, moment: datetime) -> timedelta:
        """The step from the last entry that is not of this day to the next one, or to now; none in a new log."""
        of_this_day = _audit.c.at.between(moment - _DISTRUSTED, moment + _DISTRUSTED)
        columns = sa.select(_audit.c.audit_id, _audit.c.at)
        with self._database.reading() as connection:
            before = connection.execute(columns.where(~of_this_day).order_by(_audit.c.audit_id.desc()).limit(1)).first()
            if before is None:
                return timedelta(0)
            following = columns.where(_audit.c.audit_id > before.audit_id).order_by(_audit.c.audit_id).limit(1)
            after = connection.execute(following).first()
        leap: timedelta = (moment if after is None else after.at) - before.at
        return leap

    def _mark(self, moment: datetime) -> None:
        """Leave an entry, so that a site where nothing else happens is trusted a day later, however often restarted."""
        newest = sa.select(_audit.c.at).order_by(_audit.c.audit_id.desc()).limit(1)
        with self._database.reading() as connection:
            last = connection.execute(newest).scalar_one()
        if abs(moment - last) > _MARKED_EVERY:
            detail = "the clock may be wrong: nothing is deleted by age for a day"
            audit.record(self._database, user=audit.RETENTION, action="wait", study_id=None, detail=detail)
