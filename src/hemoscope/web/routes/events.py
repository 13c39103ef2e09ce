"""Live changes of the worklist as server-sent events: ``study`` with its summary, ``deleted`` with its id."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hemoscope.store.values import Changes
from hemoscope.web.access import Reader, caller_of
from hemoscope.web.app_state import AppState, app_state_of
from hemoscope.web.disclosure import disclosed
from hemoscope.web.problems import Problem
from hemoscope.web.routes.responses import API, raw, refusals

router = APIRouter(prefix=API, tags=["events"])

KEEP_ALIVE_S = 15.0
_POLL_S = 1.0
_RETRY_MS = 2000
STREAMS_OF_ONE = (
    100  # pages that one user may have open, in one process: each stream queries the database after every change
)


@router.get(
    "/events",
    responses={
        200: raw("text/event-stream", "Events for as long as the client listens", {"type": "string"}),
        **refusals(401, 422, 503),
    },
    response_class=StreamingResponse,
)
async def events(
    request: Request,
    caller: Reader,
    since: Annotated[int | None, Query(ge=0, lt=1 << 63, description="Begin after this version")] = None,
    last_event_id: Annotated[str | None, Header(pattern="^[0-9]{1,18}$")] = None,
) -> StreamingResponse:
    """Stream what changes from now on, or after ``Last-Event-ID`` (or ``since``): no change is missed."""
    state = app_state_of(request)
    latest = await state.feed.latest()
    if state.streams[caller.user.name] >= STREAMS_OF_ONE:
        raise _too_many()
    given = int(last_event_id) if last_event_id is not None else since
    # A version from before the database was restored may lie ahead of it.
    version = latest if given is None else min(given, latest)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(state, version, partial(_may_listen, request))
    return _CountedStream(state.streams, caller.user.name, stream, headers)


class _CountedStream(StreamingResponse):
    """A stream that counts for its user from the moment it is allowed: many may be asked for at once."""

    def __init__(
        self, streams: Counter[str], user: str, stream: AsyncGenerator[str, None], headers: Mapping[str, str]
    ) -> None:
        super().__init__(stream, headers=headers, media_type="text/event-stream")
        self._streams, self._user, self._stream = streams, user, stream
        streams[user] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._stream):
                await super().__call__(scope, receive, send)
        finally:
            self._streams[self._user] -= 1


async def _stream(state: AppState, version: int, may_listen: Callable[[], bool]) -> AsyncGenerator[str, None]:
    """Yield events until the server closes or the session ends; comments keep proxies from closing the connection."""
    clock = asyncio.get_running_loop().time
    yield f"retry: {_RETRY_MS}\n\n"
    sent = looked = clock()
    known = state.credentials
    while not state.closing.is_set():
        changes = await state.feed.after(version, wait_s=_POLL_S)
        version = changes.version
        if clock() - looked >= KEEP_ALIVE_S or state.credentials is not known:
            looked, known = clock(), state.credentials
            if not await to_thread.run_sync(may_listen):
                return
        if text := _written(changes, identity_shown=state.settings.show_identity):
            yield text
        elif clock() - sent < KEEP_ALIVE_S:
            continue
        else:
            yield ": still here\n\n"
        sent = clock()


def _may_listen(request: Request) -> bool:
    """Whether the session or token that opened the stream is still valid; after a logout or removal it ends."""
    return caller_of(request) is not None


def _written(changes: Changes, *, identity_shown: bool) -> str:
    """Write changes in the order in which they happened, so that ``Last-Event-ID`` never skips one."""
    parts = [
        (one.version, "study", disclosed(one, identity_shown=identity_shown).model_dump_json())
        for one in changes.studies
    ]
    parts += [(one.version, "deleted", json.dumps({"study_id": one.study_id})) for one in changes.deleted]
    return "".join(f"id: {version}\nevent: {name}\ndata: {data}\n\n" for version, name, data in sorted(parts))


def _too_many() -> Problem:
    return Problem(
        503,
        code="too_many_streams",
        detail=f"This user has {STREAMS_OF_ONE} event streams open.",
        remedy="Close pages that are not needed; a page without a stream polls for changes",
        headers={"Retry-After": "5"},
    )
