"""The results for a PACS: what became of them, and sending them again."""

from fastapi import APIRouter, Request

from hemoscope.store.node_file import destination_names
from hemoscope.store.values import Resent
from hemoscope.web.access import Admin
from hemoscope.web.app_state import app_state_of
from hemoscope.web.routes.responses import API, refusals
from hemoscope.web.schemas import OutboxList, ResendGiven

router = APIRouter(prefix=f"{API}/outbox", tags=["site"])


@router.get("", responses=refusals(401, 403))
def outbox(request: Request, _caller: Admin) -> OutboxList:
    """What became of the results of each study at each destination."""
    deliveries = app_state_of(request).store.deliveries
    return OutboxList(counts=deliveries.counts(), results=list(deliveries.listed()))


@router.post("/resend", responses=refusals(400, 401, 403, 404, 413, 415, 422))
def resend(request: Request, caller: Admin, given: ResendGiven) -> Resent:
    """Send the results of a study again, or all that failed; also to a destination that was added later."""
    state = app_state_of(request)
    return state.store.deliveries.resend(
        study_id=given.study_id,
        destination=given.destination,
        known=destination_names(state.settings) if given.destination else (),
        by=caller.user.name,
    )
