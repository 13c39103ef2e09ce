"""Liveness, readiness and metrics."""

import logging

from anyio import fail_after, to_thread
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from hemoscope.errors import StoreError
from hemoscope.store.background import described
from hemoscope.store.store import Store
from hemoscope.store.values import Counts, OutboxCounts
from hemoscope.web.access import Reader
from hemoscope.web.app_state import app_state_of
from hemoscope.web.problems import Problem
from hemoscope.web.routes.responses import raw, refusals
from hemoscope.web.schemas import Health, Readiness

probes = APIRouter(tags=["operations"])
numbers = APIRouter(tags=["operations"])

_PROBE_TIMEOUT_S = 10.0
_log = logging.getLogger(__name__)


@probes.get("/health", responses=refusals(503), response_model_exclude_none=True)
async def health(request: Request) -> Health:
    """Alive: the process answers, and all its background threads are at work. Needs no login.

    A failed reload is a warning only: a restart, which service managers answer a failure with, would not start.
    """
    faults = [f"{one.name} ({one.fault})" for one in app_state_of(request).background if one.fault]
    if faults:
        raise Problem(
            503,
            code="background_stopped",
            detail=f"Not at work: {', '.join(faults)}.",
            remedy="Restart the server; its log has the reason",
        )
    return Health(status="ok", warning=app_state_of(request).reload_fault)


@probes.get("/ready", responses=refusals(503))
async def ready(request: Request) -> Readiness:
    """Ready: database and storage can be written to, and a worker's heartbeat is fresh. Needs no login."""
    state = app_state_of(request)
    try:
        # In threads of its own and within a time: requests that wait for the database must not hold the answer back.
        with fail_after(_PROBE_TIMEOUT_S):
            counts, results = await to_thread.run_sync(
                _usable, state.store, limiter=state.probes, abandon_on_cancel=True
            )
    except StoreError as error:
        raise _not_ready(error.code, f"{error.reason[:1].upper()}{error.reason[1:]}.", error.remedy) from error
    except Exception as error:
        _log.warning("not ready: %s", described(error))
        reason = f"Database or storage cannot be used ({type(error).__name__})."
        raise _not_ready("not_ready", reason, "Check that the database runs and that its disk is not full") from error
    return _readiness(counts, results)


def _usable(store: Store) -> tuple[Counts, OutboxCounts]:
    """Write to the storage and to the database, and return the counts."""
    store.check_storage()
    store.check_database()
    return store.counts(), store.deliveries.counts()


def _not_ready(code: str, detail: str, remedy: str) -> Problem:
    return Problem(503, code=code, detail=detail, remedy=remedy, headers={"Retry-After": "5"})


def _readiness(counts: Counts, results: OutboxCounts) -> Readiness:
    if not counts.workers:
        raise Problem(
            503,
            code="no_worker",
            detail="No worker is alive: studies are accepted and wait.",
            remedy="Start hemoscope serve with --workers 1 or more against this database",
        )
    return Readiness(status="ready", workers=len(counts.workers), queue_depth=counts.queue_depth, results=results)


@numbers.get(
    "/metrics",
    responses={200: raw("text/plain", "Prometheus' text format", {"type": "string"}), **refusals(401, 503)},
    response_class=Response,
)
def metrics(request: Request, _caller: Reader) -> Response:
    """Metrics for Prometheus. Give the scraper a reader's token."""
    return Response(app_state_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
