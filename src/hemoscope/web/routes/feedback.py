"""Readers' feedback on findings, and its export for training and evaluation."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from hemoscope.store.values import Feedback
from hemoscope.web.access import Admin, Reader
from hemoscope.web.app_state import app_state_of
from hemoscope.web.routes.responses import API, raw, refusals
from hemoscope.web.routes.studies import StudyPath
from hemoscope.web.schemas import FeedbackGiven, FeedbackList

router = APIRouter(prefix=API, tags=["feedback"])


@router.get("/studies/{study_id}/feedback", responses=refusals(401, 404, 422))
def list_feedback(request: Request, _caller: Reader, study_id: StudyPath) -> FeedbackList:
    """All feedback on a study, oldest first."""
    return FeedbackList(feedback=list(app_state_of(request).store.feedback(study_id)))


@router.post("/studies/{study_id}/feedback", status_code=201, responses=refusals(400, 401, 403, 404, 413, 415, 422))
def give_feedback(request: Request, caller: Reader, study_id: StudyPath, given: FeedbackGiven) -> Feedback:
    """Agree with a finding, or correct it. ``slices`` are indices into the volume; a note must not hold identity."""
    return app_state_of(request).store.add_feedback(
        study_id,
        label=given.label,
        verdict=given.verdict,
        present=given.present,
        slices=None if given.slices is None else tuple(given.slices),
        note=given.note,
        by=caller.user.name,
    )


@router.get(
    "/feedback.csv",
    responses={200: raw("text/csv", "As hemoscope prepare table reads it", {"type": "string"}), **refusals(401, 403)},
    response_class=Response,
)
def export_feedback(request: Request, caller: Admin) -> Response:
    """All feedback as labels for ``hemoscope prepare table``: one row per slice, empty if unknown."""
    store = app_state_of(request).store
    text = store.export_feedback()
    store.audit(user=caller.user.name, action="export feedback")
    headers = {"Content-Disposition": 'attachment; filename="feedback.csv"'}
    return Response(text, headers=headers, media_type="text/csv")
