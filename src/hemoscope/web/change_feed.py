"""Changes for every open page: one task per process polls the store for changes and wakes the listeners.

Each listener then reads what changed since its own version, so that one that fell behind, or reconnects with
``Last-Event-ID``, misses nothing.
"""

import asyncio
import logging

from anyio import to_thread

from hemoscope.errors import StoreError
from hemoscope.store.store import Store
from hemoscope.store.values import Changes

POLL_S = 0.25
_AFTER_ERROR_S = 2.0
_BEYOND = (1 << 63) - 1  # no version is as high: the store answers with the current one, and no study

_log = logging.getLogger(__name__)


class ChangeFeed:
    """Notifies listeners that the store has changed, whichever process changed it."""

    def __init__(self, store: Store) -> None:
        """Watch ``store``; ``watch`` must run as a task."""
        self._store = store
        self._version = 0
        self._listeners = 0
        self._news = asyncio.Condition()

    async def watch(self) -> None:
        """Poll for changes while there are listeners; an unreachable database is polled again."""
        while True:
            if not self._listeners:
                await asyncio.sleep(POLL_S)
                continue
            try:
                latest = await self.latest()
            except StoreError as error:
                _log.warning("cannot poll for changes: %s", error.code)
                await asyncio.sleep(_AFTER_ERROR_S)
                continue
            if latest != self._version:
                async with self._news:
                    self._version = latest
                    self._news.notify_all()
            await asyncio.sleep(POLL_S)

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
