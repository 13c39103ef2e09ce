"""Changes for every open page: one task per process polls the store for changes and wakes the listeners.

Each listener then reads what changed since its own version, so that one that fell behind, or reconnects with
``Last-Event-ID``, misses nothing.
"""

import asyncio
import logging
from time import monotonic

from anyio import to_thread

from hemoscope.store.background import Backoff, Vitals, described
from hemoscope.store.store import Store
from hemoscope.store.values import Changes

POLL_S = 0.25
_STUCK_AFTER_S = 180.0  # more than the database's timeout, several times over
_ABANDONED_EVERY_S = 2.0
_BEYOND = (1 << 63) - 1  # no version is as high: the store answers with the current one, and no study

_log = logging.getLogger(__name__)


class ChangeFeed:
    """Notifies listeners that the store has changed, whichever process changed it."""

    def __init__(self, store: Store) -> None:
        """Watch ``store``; ``watch`` must run as a task."""
        self.vitals = Vitals("change-feed", stuck_after_s=_STUCK_AFTER_S)
        self._store = store
        self._version = 0
        self._listeners = 0
        self._tidied_at = float("-inf")
        self._tidying: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    async def watch(self) -> None:
        """Poll for changes while there are listeners; after any error it is polled again."""
        backoff = Backoff()
        try:
            while True:
                self.vitals.seen()
                if await self._poll():
                    backoff.reset()
                    await asyncio.sleep(POLL_S)
                else:
                    await asyncio.sleep(backoff.next_pause_s())
        finally:
            if self._tidying is not None:
                self._tidying.cancel()
            self.vitals.ended()

    async def _poll(self) -> bool:
        """Wake the listeners if something changed; False after an error."""
        if not self._listeners:
            return True
        try:
            latest = await self.latest()
        except Exception as error:  # noqa: BLE001 - every open page depends on this task
            _log.warning("%s: tried again after %s", self.vitals.name, described(error))
            return False
        if latest != self._version:
            async with self._news:
                self._version = latest
                self._news.notify_all()
        if (self._tidying is None or self._tidying.done()) and monotonic() - self._tidied_at >= _ABANDONED_EVERY_S:
            self._tidied_at = monotonic()
            self._tidying = asyncio.create_task(self._end_abandoned_claims())  # the feed does not wait for it
        return True

    async def _end_abandoned_claims(self) -> None:
        """End the marks of readers whose pages are gone: while nobody listens, nobody sees them."""
        try:
            await to_thread.run_sync(self._store.readers.end_abandoned)
        except Exception as error:  # noqa: BLE001 - tried again a moment later; the feed reports what lasts
            _log.warning("%s: abandoned claims did not end after %s", self.vitals.name, described(error))

    async def latest(self) -> int:
        """Return the version of the last change. Raises StoreError ``database_unreachable``."""
        return (await to_thread.run_sync(self._store.changes_since, _BEYOND)).version

    async def after(self, version: int, *, wait_s: float) -> Changes:
        """Return what changed after ``version``; empty if nothing does within ``wait_s`` seconds."""
        self._listeners += 1
        try:
            async with self._news:
                try:
                    await asyncio.wait_for(self._news.wait_for(lambda: self._version > version), wait_s)
                except TimeoutError:
                    return Changes(version=version)
            return await to_thread.run_sync(self._store.changes_since, version)
        finally:
            self._listeners -= 1
