"""One log line and one count per request: client, route, status, duration.

The route's template stands for the path, so that neither a study id nor a made-up path reaches the log, and no query
string, file name or header ever does.
"""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemoscope.web.metrics import Metrics
from hemoscope.web.request_checks import client_of

access_log = logging.getLogger("hemoscope.access")

_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}


class RequestRecord:
    """ASGI middleware, the outermost of ours: it sees every answer, including those of the gate."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Wrap ``app``."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record how it ended; one without an answer ended in a 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._record(scope, status, time.perf_counter() - begun)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = route_template(scope)
        self._metrics.record(method=method, route=route, status=status, seconds=seconds)
        client, ms = client_of(scope), round(seconds * 1000)
        fields = {"client": client, "method": method, "route": route, "status": status, "ms": ms}
        access_log.info("%s %s %s %d %d ms", client, method, route, status, ms, extra={"fields": fields})


def route_template(scope: Scope) -> str:
    """The matched route as declared, such as ``/api/v1/studies/{study_id}``; ``unmatched`` if there is none."""
    if scope["path"].startswith("/static/"):
        return "/static"
    template = getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) else "unmatched"
