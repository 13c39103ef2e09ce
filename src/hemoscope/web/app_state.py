"""What the routes of one process share: the store, settings, credentials, the change feed, limits and metrics."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CapacityLimiter
from fastapi import Request

from hemoscope.messages.catalogue import Catalogue, english
from hemoscope.store.background import Vitals
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.store.values import User
from hemoscope.web.change_feed import ChangeFeed
from hemoscope.web.credentials import Credentials
from hemoscope.web.login_queue import LoginQueue
from hemoscope.web.metrics import Metrics
from hemoscope.web.rate_limits import AccountLimiter, RateLimiter

K = TypeVar("K")
V = TypeVar("V")

_VIEWED_AGAIN_S = 600
_REMEMBERED = 10_000
_REPORTS_KEPT = 24  # of a few MB each


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceShape:
    """Rows and columns of every slice of a study, and of its heat maps if it has any."""

    rows: int
    columns: int
    heat_rows: int | None
    heat_columns: int | None


@dataclass(kw_only=True)
class AppState:
    """The state of one web process. Only caches, limits and credentials change; all that must last is in the store."""

    store: Store
    settings: Settings
    credentials: Credentials
    model_card: Mapping[str, Any]
    feed: ChangeFeed
    background: tuple[Vitals, ...]
    metrics: Metrics
    logins: RateLimiter
    account_logins: AccountLimiter
    uploads: CapacityLimiter
    writers: CapacityLimiter
    passwords: LoginQueue
    reports: CapacityLimiter
    probes: CapacityLimiter
    reload_node: Callable[[], None] | None = None
    catalogue: Catalogue = field(default_factory=english)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    streams: Counter[str] = field(default_factory=Counter)
    receiving: Counter[str] = field(default_factory=Counter)
    drawing: Counter[str] = field(default_factory=Counter)
    reload_fault: str | None = None
    _shapes: OrderedDict[str, SliceShape] = field(default_factory=OrderedDict)
    _reports: OrderedDict[tuple[str, str], tuple[str, bytes]] = field(default_factory=OrderedDict)
    _viewed: OrderedDict[tuple[str, str, str], float] = field(default_factory=OrderedDict)

    def audit_view(self, user: User, action: str, study_id: str) -> None:
        """Record that somebody viewed a study, once in ten minutes: scrolling through it is one view, not hundreds."""
        key, now = (user.name, action, study_id), time.monotonic()
        if now - self._viewed.get(key, float("-inf")) < _VIEWED_AGAIN_S:
            return
        self.store.audit(user=user.name, action=action, study_id=study_id)
        _remember(self._viewed, key, now)

    def drawn_report(self, study_id: str, shown: str, kind: str) -> bytes | None:
        """Return the report on a study if one is in memory that shows what ``report_state`` says."""
        known = self._reports.get((study_id, kind))
        return known[1] if known is not None and known[0] == shown else None

    def keep_report(self, study_id: str, shown: str, kind: str, content: bytes) -> None:
        """Remember a report until the study changes, or newer reports take its place."""
        _remember(self._reports, (study_id, kind), (shown, content), most=_REPORTS_KEPT)

    def shape_of(self, study_id: str, *, heat: bool) -> SliceShape:
        """Return the shape of a study's slices, from memory after the first time.

        Raises:
            StoreError: ``no_such_study``.

        """
        known = self._shapes.get(study_id)
        if known is not None and (known.heat_rows is not None or not heat):
            return known
        geometry = self.store.get(study_id).geometry
        if geometry is None:
            return SliceShape(rows=0, columns=0, heat_rows=None, heat_columns=None)
        heat_rows, heat_columns = geometry["heatmap_shape"] or (None, None)
        shape = SliceShape(
            rows=geometry["rows"], columns=geometry["columns"], heat_rows=heat_rows, heat_columns=heat_columns
        )
        _remember(self._shapes, study_id, shape)
        return shape


def app_state_of(request: Request) -> AppState:
    """Return what ``create_app`` put into the application's state."""
    state = request.app.state.app_state
    assert isinstance(state, AppState)
    return state


def _remember(memory: OrderedDict[K, V], key: K, value: V, *, most: int = _REMEMBERED) -> None:
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > most:
        memory.popitem(last=False)
