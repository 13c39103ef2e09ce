"""The site as a whole: its settings, its model, its audit."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from hemoscope.inference.card import ModelCard
from hemoscope.reports.applied_card import applied_card
from hemoscope.reports.applied_card_pages import card_html, style_sha256
from hemoscope.store.values import Role
from hemoscope.version import DISCLAIMER
from hemoscope.web.access import Admin, Caller, Reader
from hemoscope.web.app_state import AppState, app_state_of
from hemoscope.web.routes.responses import API, raw, refusals
from hemoscope.web.schemas import AuditPage, InitialsGiven, ModelName, Prevalence, SiteInfo

router = APIRouter(prefix=API, tags=["site"])

PREVALENCE = "prevalence"
# The page contains its own style, and nothing else may load.
_CARD_POLICY = (
    f"default-src 'none'; style-src {style_sha256()}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/site", responses=refusals(401))
def site(request: Request, caller: Reader) -> SiteInfo:
    """What a page needs: the user, the token for changing requests, the site's settings."""
    return _site(app_state_of(request), caller)


@router.get("/model", responses=refusals(401))
def model(request: Request, _caller: Reader) -> dict[str, Any]:
    """The model's card, as ``hemoscope info --json`` prints it."""
    return dict(app_state_of(request).model_card)


@router.get(
    "/model/card.html",
    responses={200: raw("text/html", "One self-contained page", {"type": "string"}), **refusals(401)},
    response_class=Response,
)
def model_page(request: Request, _caller: Reader) -> Response:
    """The model's card as a page, in the shape of CHAI's Applied Model Card."""
    given = dict(app_state_of(request).model_card)
    sha256 = given.pop("sha256")
    page = card_html(applied_card(ModelCard.from_json(given), sha256))
    headers = {"Content-Security-Policy": _CARD_POLICY, "Content-Disposition": 'inline; filename="model-card.html"'}
    return Response(page, headers=headers, media_type="text/html")


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
