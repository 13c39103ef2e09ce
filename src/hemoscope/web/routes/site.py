"""The site as a whole: its settings, its model, its audit."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from hemoscope.store.values import Role
from hemoscope.version import DISCLAIMER
from hemoscope.web.access import Admin, Caller, Reader
from hemoscope.web.room import Room, room_of
from hemoscope.web.routes.answers import API, refusals
from hemoscope.web.schemas import AuditDocument, AuditPage, ModelName, Prevalence, Site, UserDocument

router = APIRouter(prefix=API, tags=["site"])

PREVALENCE = "prevalence"


@router.get("/site", responses=refusals(401))
def site(request: Request, caller: Reader) -> Site:
    """What a page must know: who is asking, the token for changing requests, the site's settings."""
    return _site(room_of(request), caller)


@router.get("/model", responses=refusals(401))
def model(request: Request, _caller: Reader) -> dict[str, Any]:
    """The model's card, as ``hemoscope info --json`` prints it."""
    return dict(room_of(request).settings.model_card)


@router.put("/site/prevalence", responses=refusals(400, 401, 403, 413, 422))
def set_prevalence(request: Request, caller: Admin, given: Prevalence) -> Site:
    """Say how many of this site's studies have a bleed, so that thresholds can be put in words."""
    room = room_of(request)
    room.store.put_setting(PREVALENCE, given.prevalence)
    room.store.audit(user=caller.user.name, action="set prevalence", detail=str(given.prevalence))
    return _site(room, caller)


@router.get("/audit", responses=refusals(401, 403, 422))
def audit(
    request: Request,
    caller: Admin,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[
        int | None, Query(ge=0, lt=1 << 63, description="audit_id of the last entry already seen")
    ] = None,
) -> AuditPage:
    """Who saw and did what, newest first. Reading it is recorded too."""
    store = room_of(request).store
    entries = store.audit_log(limit=limit, before=before)
    store.audit(user=caller.user.name, action="read audit")
    return AuditPage(entries=[AuditDocument.of(entry) for entry in entries])


def _site(room: Room, caller: Caller) -> Site:
    card = room.settings.model_card
    return Site(
        disclaimer=DISCLAIMER,
        model=ModelName(name=card["name"], version=card["version"], sha256=card["sha256"]),
        prevalence=room.store.settings().get(PREVALENCE, room.settings.prevalence),
        identity_shown=room.settings.identity_shown,
        login_required=bool(room.settings.credentials),
        roles=list(Role) if caller.user.role is Role.ADMIN else [Role.READER],
        user=UserDocument.model_validate(caller.user),
        csrf_token=caller.csrf,
    )
