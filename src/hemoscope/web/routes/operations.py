"""Liveness, readiness and metrics."""

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from hemoscope.web.access import Reader
from hemoscope.web.app_state import app_state_of
from hemoscope.web.problems import Problem
from hemoscope.web.routes.responses import raw, refusals
from hemoscope.web.schemas import Health, Readiness

probes = APIRouter(tags=["operations"])
numbers = APIRouter(tags=["operations"])


@probes.get("/health", responses=refusals())
async def health() -> Health:
    """Alive: the process answers. Needs no login."""
    return Health(status="ok")


@probes.get("/ready", responses=refusals(503))
def ready(request: Request) -> Readiness:
    """Ready: the database answers and a worker's heartbeat is fresh. Needs no login."""
    state = app_state_of(request)
    counts = state.store.counts()
    if not counts.workers:
        raise Problem(
            503,
            code="no_worker",
            detail="No worker is alive: studies are accepted and wait.",
            remedy="Start hemoscope serve with --workers 1 or more against this database",
        )
    return Readiness(status="ready", workers=len(counts.workers), queue_depth=counts.queue_depth)


@numbers.get(
    "/metrics",
    responses={200: raw("text/plain", "Prometheus' text format", {"type": "string"}), **refusals(401, 503)},
    response_class=Response,
)
def metrics(request: Request, _caller: Reader) -> Response:
    """Metrics for Prometheus. Give the scraper a reader's token."""
    return Response(app_state_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
