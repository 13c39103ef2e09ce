"""The application, made from a store and settings; nothing is loaded or connected when this module is imported."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.responses import Response
from starlette.types import Scope

from hemoscope.store.store import Store
from hemoscope.version import DISCLAIMER, __version__
from hemoscope.web.change_feed import ChangeFeed
from hemoscope.web.gate import Gate
from hemoscope.web.metrics import Metrics
from hemoscope.web.openapi import describe
from hemoscope.web.problems import answer_errors
from hemoscope.web.rate_limits import RateLimiter
from hemoscope.web.request_record import RequestRecord
from hemoscope.web.room import Room
from hemoscope.web.routes import account, events, feedback, operations, pages, reports, site, studies, uploads
from hemoscope.web.security_headers import SecurityHeaders
from hemoscope.web.settings import WebSettings

_STATIC = Path(__file__).parent / "static"
_WRITERS = 8
_HASHES_AT_A_TIME = 2
_REPORTS_AT_A_TIME = 2
_UNPACKED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream", "application/pdf")


def create_app(store: Store, settings: WebSettings) -> FastAPI:
    """Build the reading room over an open store, which stays the caller's to close.

    Args:
        store: shared with workers and other web processes.
        settings: of this process.
    """
    app = FastAPI(
        title="Hemoscope",
        version=__version__,
        description=DISCLAIMER,
        lifespan=_lifespan,
        docs_url=None,  # these pages load scripts from the internet
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.room = _room(store, settings)
    answer_errors(app)
    for router in (uploads, studies, reports, feedback, site, account, events):
        app.include_router(router.router)
    for plain in (operations.probes, operations.numbers):
        app.include_router(plain)
    app.include_router(pages.router)
    app.mount("/static", _StaticFiles(directory=_STATIC), name="static")
    describe(app)
    # The last one added is the first to see a request.
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5, exclude_content_types=_UNPACKED)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestRecord, metrics=app.state.room.metrics)
    return app


def _room(store: Store, settings: WebSettings) -> Room:
    return Room(
        store=store,
        settings=settings,
        feed=ChangeFeed(store),
        metrics=Metrics(store),
        logins=RateLimiter(per_minute=settings.rates.logins),
        uploads=CapacityLimiter(settings.concurrent_uploads),
        writers=CapacityLimiter(_WRITERS),
        passwords=CapacityLimiter(_HASHES_AT_A_TIME),
        reports=CapacityLimiter(_REPORTS_AT_A_TIME),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Watch the store for changes while the server runs."""
    watching = asyncio.create_task(app.state.room.feed.watch())
    try:
        yield
    finally:
        app.state.room.closing.set()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


class _StaticFiles(StaticFiles):
    """Our own files; a browser asks each time whether its copy is still right, and mostly gets a short yes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
