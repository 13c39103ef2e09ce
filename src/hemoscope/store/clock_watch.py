"""Whether the database's clock can be trusted with what is deleted by age."""

import logging
from datetime import datetime
from time import monotonic

_log = logging.getLogger("hemoscope.store")
_JUMP_S = 3600.0
_DISTRUSTED_S = 24 * 3600.0


class ClockWatch:
    """Compares the database's clock with the monotonic one, so that no clock that is set deletes by age."""

    def __init__(self) -> None:
        """Trust the clock at first."""
        self._last: tuple[datetime, float] | None = None
        self._distrusted_until = float("-inf")

    def steady(self, moment: datetime) -> bool:
        """Whether the clock, which shows ``moment`` now, was not set by more than an hour within the last day."""
        at = monotonic()
        if self._last is not None:
            jump = (moment - self._last[0]).total_seconds() - (at - self._last[1])
            if abs(jump) > _JUMP_S:
                self._distrusted_until = at + _DISTRUSTED_S
                _log.warning("the clock was set by %.1f h: nothing is deleted by age for a day", jump / 3600)
        self._last = (moment, at)
        return at >= self._distrusted_until
