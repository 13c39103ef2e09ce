"""Uploads: one file, many, or a ZIP, streamed from the network into the store's private folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from anyio import WouldBlock, to_thread
from fastapi import APIRouter, Request

from hemoscope.store.values import StudySummary
from hemoscope.web.access import Reader, caller_of, login_required
from hemoscope.web.app_state import AppState, app_state_of
from hemoscope.web.disclosure import disclosed
from hemoscope.web.multipart_upload import (
    FIELD,
    FORM_BYTES,
    abandoned_with_client,
    begun_in_thread,
    boundary_of,
    receive_files,
    upload_too_large,
)
from hemoscope.web.problems import Problem
from hemoscope.web.routes.responses import API, refusals
from hemoscope.web.schemas import Accepted

router = APIRouter(prefix=API, tags=["uploads"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD.decode()],
                    "properties": {
                        FIELD.decode(): {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


@router.post(
    "/uploads", status_code=202, responses=refusals(400, 401, 403, 408, 413, 415, 422, 503, 507), openapi_extra=_BODY
)
async def upload(request: Request, caller: Reader) -> Accepted:
    """Receive DICOM files or ZIPs, as parts named ``files``. The answer is sent once they are durable on disk."""
    state = app_state_of(request)
    boundary = boundary_of(request.headers.get("content-type", ""))
    _check_length(request, state.settings.upload_limits.upload_bytes)
    with _place(state, request, user=caller.user.name):
        entry = await _store(state, request, boundary, by=caller.user.name)
    return Accepted(study=disclosed(entry, identity_shown=state.settings.show_identity))


@contextmanager
def _place(state: AppState, request: Request, *, user: str) -> Iterator[None]:
    """Take one of this process's places, and one of the user's. Raises Problem 503 or 429 if none is free."""
    if state.receiving[user] >= state.settings.uploads_per_user:
        raise _too_many_of_user(state.settings.uploads_per_user)
    try:
        state.uploads.acquire_on_behalf_of_nowait(request)
    except WouldBlock as error:
        raise _busy() from error
    state.receiving[user] += 1
    try:
        yield
    finally:
        state.uploads.release_on_behalf_of(request)
        state.receiving[user] -= 1


async def _store(state: AppState, request: Request, boundary: bytes, *, by: str) -> StudySummary:
    """Receive and accept one upload; whatever happens on the way, nothing half received stays."""
    async with begun_in_thread(state.store.begin_upload(), limiter=state.writers) as files:
        await receive_files(files, boundary, request.stream(), limiter=state.writers)
        if await to_thread.run_sync(caller_of, request) is None:
            raise login_required()  # the user was removed, or logged out, meanwhile
        async with abandoned_with_client(files, request.receive):
            accept = partial(state.store.accept, files, submitted_by=by)
            return await to_thread.run_sync(accept, limiter=state.writers)


def _check_length(request: Request, limit: int) -> None:
    """Refuse a body whose Content-Length is too large at once; without that header they are counted as they arrive."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit + FORM_BYTES:
        raise upload_too_large(limit)


def _busy() -> Problem:
    return Problem(
        503,
        code="too_many_uploads",
        detail="The server is receiving as many uploads as it can.",
        remedy="Wait a few seconds and upload again",
        headers={"Retry-After": "5"},
    )


def _too_many_of_user(places: int) -> Problem:
    return Problem(
        429,
        code="too_many_uploads_of_user",
        detail=f"This user is sending {places} uploads already.",
        remedy="Wait until one of them is done, or ask an administrator to raise --uploads-per-user",
        headers={"Retry-After": "5"},
    )
