"""The application, made from a store and settings; nothing is loaded or connected when this module is imported."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware

from hemoscope.messages.catalogue import Catalogue, english
from hemoscope.store.background import Vitals
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store
from hemoscope.version import DISCLAIMER, __version__
from hemoscope.web.app_state import AppState
from hemoscope.web.change_feed import ChangeFeed
from hemoscope.web.credentials import Credentials
from hemoscope.web.login_queue import LoginQueue
from hemoscope.web.metrics import Metrics
from hemoscope.web.problems import answer_errors
from hemoscope.web.rate_limits import AccountLimiter, RateLimiter
from hemoscope.web.request_checks import Gate
from hemoscope.web.request_record import RequestRecord
from hemoscope.web.routes import (
    account,
    events,
    feedback,
    measurements,
    operations,
    outbox,
    pages,
    reader_marks,
    reports,
    site,
    studies,
    uploads,
)
from hemoscope.web.schemas import ProblemDocument
from hemoscope.web.security_headers import SecurityHeaders
from hemoscope.web.slow_bodies import SlowBodies
from hemoscope.web.static_files import VersionedFiles

_NOBODY = Credentials()
_WRITERS = 8
_HASHES_AT_A_TIME = 2
_LOGINS_THAT_WAIT = 16
_REPORTS_AT_A_TIME = 2
_PROBES_AT_A_TIME = 4
_UNPACKED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream", "application/pdf")


def create_app(
    store: Store,
    settings: Settings,
    *,
    model_card: Mapping[str, Any],
    credentials: Credentials = _NOBODY,
    background: Sequence[Vitals] = (),
    reload_node: Callable[[], None] | None = None,
    catalogue: Catalogue | None = None,
) -> FastAPI:
    """Build the reading room over an open store, which the caller closes.

    Args:
        store: shared with workers and other web processes.
        settings: of this process.
        model_card: what ``hemoscope info --json`` prints.
        credentials: read from the files that ``settings`` names; without any, everybody on this machine is an
            administrator.
        background: threads of this process that ``/health`` watches besides the application's own tasks.
        reload_node: lets the workers read the file of the DICOM node again, or raises ConfigError.
        catalogue: the texts of pages and reports; without one, those that ship.

    Raises:
        ValueError: the credentials are not those of the settings, which decided who can reach this server.
    """
    if bool(credentials) != settings.login_required:
        msg = "credentials and settings disagree on whether anybody must log in"
        raise ValueError(msg)
    app = FastAPI(
        title="Hemoscope",
        version=__version__,
        description=DISCLAIMER,
        lifespan=_lifespan,
        docs_url=None,  # these pages load scripts from the internet
        redoc_url=None,
        redirect_slashes=False,
    )
    state = app.state.app_state = _app_state(store, settings, credentials, model_card, background)
    state.reload_node, state.catalogue = reload_node, catalogue or english()
    answer_errors(app)
    for router in (uploads, studies, reports, feedback, measurements, reader_marks, site, outbox, account, events):
        app.include_router(router.router)
    for plain in (operations.probes, operations.numbers):
        app.include_router(plain)
    app.include_router(pages.router)
    app.mount("/static", VersionedFiles(), name="static")
    _describe_problems(app)
    # The last one added is the first to see a request.
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5, exclude_content_types=_UNPACKED)
    app.add_middleware(Gate, settings=settings, login_required=bool(credentials))
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestRecord, metrics=app.state.app_state.metrics)
    app.add_middleware(SlowBodies, settings=settings)
    return app


def _app_state(
    store: Store,
    settings: Settings,
    credentials: Credentials,
    model_card: Mapping[str, Any],
    background: Sequence[Vitals],
) -> AppState:
    feed = ChangeFeed(store)
    return AppState(
        store=store,
        settings=settings,
        credentials=credentials,
        model_card=model_card,
        feed=feed,
        background=(feed.vitals, *background),
        metrics=Metrics(store),
        logins=RateLimiter(per_minute=settings.logins_per_minute),
        account_logins=AccountLimiter(per_minute=settings.account_logins_per_minute),
        uploads=CapacityLimiter(settings.concurrent_uploads),
        writers=CapacityLimiter(_WRITERS),
        passwords=LoginQueue(at_a_time=_HASHES_AT_A_TIME, waiting=_LOGINS_THAT_WAIT),
        reports=CapacityLimiter(_REPORTS_AT_A_TIME),
        probes=CapacityLimiter(_PROBES_AT_A_TIME),
    )


def _describe_problems(app: FastAPI) -> None:
    """Put our problem documents in place of FastAPI's own errors at ``/openapi.json``."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()  # FastAPI caches this object: the changes below are made to it again on each request
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        return document

    app.openapi = described  # type: ignore[method-assign]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Watch the store for changes while the server runs."""
    feed = app.state.app_state.feed
    feed.vitals.seen()
    watching = asyncio.create_task(feed.watch())
    try:
        yield
    finally:
        app.state.app_state.closing.set()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
