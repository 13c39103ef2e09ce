"""Who reads a study at this moment, and who has reviewed it: marks for the other readers, which lock nothing."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from hemoscope.store.values import Claim, Review
from hemoscope.web.access import Reader
from hemoscope.web.app_state import app_state_of
from hemoscope.web.routes.responses import API, refusals
from hemoscope.web.routes.studies import StudyPath
from hemoscope.web.schemas import ClaimGiven

router = APIRouter(prefix=f"{API}/studies/{{study_id}}", tags=["readers"])


@router.put("/claim", responses=refusals(400, 401, 403, 404, 413, 415, 422))
def claim(request: Request, caller: Reader, study_id: StudyPath, given: ClaimGiven) -> Claim:
    """Claim a study, or give a sign of life. The answer says whose it is by now, which may be another reader."""
    return app_state_of(request).store.readers.claim(study_id, by=caller.user.name, take_over=given.take_over)


@router.delete("/claim", status_code=204, responses=refusals(401, 403, 404, 422))
def release(request: Request, caller: Reader, study_id: StudyPath) -> Response:
    """End the caller's claim; without one, nothing happens."""
    app_state_of(request).store.readers.release(study_id, by=caller.user.name)
    return Response(status_code=204)


@router.put("/review", responses=refusals(401, 403, 404, 422))
def review(request: Request, caller: Reader, study_id: StudyPath) -> Review:
    """Note that the caller has reviewed the study."""
    return app_state_of(request).store.readers.review(study_id, by=caller.user.name)


@router.delete("/review", status_code=204, responses=refusals(401, 403, 404, 422))
def withdraw_review(request: Request, caller: Reader, study_id: StudyPath) -> Response:
    """Take back the caller's review; without one, nothing happens."""
    app_state_of(request).store.readers.withdraw_review(study_id, by=caller.user.name)
    return Response(status_code=204)
