"""The site as a whole: its settings, its model, its audit."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from hemoscope.store.values import Role
from hemoscope.version import DISCLAIMER
from hemoscope.web.access import Admin, Caller, Reader
from hemoscope.web.app_state import AppState, app_state_of
from hemoscope.web.routes.responses import API, refusals
from hemoscope.web.schemas import AuditPage, InitialsGiven, ModelName, Prevalence, SiteInfo

router = APIRouter(prefix=API, tags=["site"])

PREVALENCE = "prevalence"


@router.get("/site", responses=refusals(401))
def site(request: Request, caller: Reader) -> SiteInfo:
    """What a page needs: the user, the token for changing requests, the site's settings."""
    return _site(app_state_of(request), caller)


@router.get("/model", responses=refusals(401))
def model(request: Request, _caller: Reader) -> dict[str, Any]:
    """The model's card, as ``hemoscope info --json`` prints it."""
    return dict(app_state_of(request).model_card)


@router.put("/site/prevalence", responses=refusals(400, 401, 403, 413, 415, 422))
def set_prevalence(request: Request, caller: Admin, given: Prevalence) -> SiteInfo:
    """Set the share of this site's studies with a bleed, from which pages compute predictive values."""
    state = app_state_of(request)
    state.store.put_setting(PREVALENCE, given.prevalence, by=caller.user.name)
    return _site(state, caller)


@router.put("/site/initials", responses=refusals(400, 401, 403, 413, 415, 422))
def set_initials(request: Request, caller: Reader, given: InitialsGiven) -> SiteInfo:
    """Choose the initials by which the other readers see the caller."""
    state = app_state_of(request)
    state.store.readers.set_initials(given.initials, by=caller.user.name)
    return _site(state, caller)


@router.get("/audit", responses=refusals(401, 403, 422))
def audit(
    request: Request,
    caller: Admin,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[
        int | None, Query(ge=0, lt=1 << 63, description="audit_id of the last entry already seen")
    ] = None,
) -> AuditPage:
    """Who viewed and did what, newest first. Reading it is recorded too."""
    store = app_state_of(request).store
    entries = store.audit_log(limit=limit, before=before)
    store.audit(user=caller.user.name, action="read audit")
    return AuditPage(entries=list(entries))


def _site(state: AppState, caller: Caller) -> SiteInfo:
    card, precision = state.model_card, state.settings.precision
    return SiteInfo(
        disclaimer=DISCLAIMER,
        model=ModelName(name=card["name"], version=card["version"], sha256=card["sha256"], precision=precision),
        prevalence=state.store.settings().get(PREVALENCE, state.settings.prevalence),
        identity_shown=state.settings.show_identity,
        login_required=bool(state.credentials),
        roles=list(Role) if caller.user.role is Role.ADMIN else [Role.READER],
        user=caller.user,
        initials=state.store.readers.initials_of(caller.user.name),
        claim_seconds=state.settings.claim.total_seconds(),
        csrf_token=caller.csrf,
    )
