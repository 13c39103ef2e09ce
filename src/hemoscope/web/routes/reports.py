"""Reports for download: a self-contained page, or a PDF.

A report takes seconds to draw. Few are drawn at a time, and each user may wait for few, so that nobody fills the queue.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from hemoscope.reports.study_report_content import StudyDocument
from hemoscope.reports.study_report_html import STYLE_SHA256, findings_html
from hemoscope.web.access import Caller, Reader
from hemoscope.web.app_state import app_state_of
from hemoscope.web.problems import Problem
from hemoscope.web.routes.responses import API, raw, refusals
from hemoscope.web.routes.studies import StudyPath
from hemoscope.web.stored_study_report import report_of

router = APIRouter(prefix=f"{API}/studies/{{study_id}}", tags=["reports"])

REPORTS_OF_ONE = 4

# The page contains its own style and images, and nothing else may load.
_PAGE_POLICY = (
    f"default-src 'none'; style-src '{STYLE_SHA256}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get(
    "/report.html",
    responses={
        200: raw("text/html", "One self-contained page", {"type": "string"}),
        **refusals(401, 404, 409, 422),
    },
    response_class=Response,
)
async def html(request: Request, caller: Reader, study_id: StudyPath) -> Response:
    """The report as a page to read, keep or print."""
    with _place(request, caller):
        text = findings_html(await _report(request, caller, study_id))
    headers = {"Content-Security-Policy": _PAGE_POLICY, "Content-Disposition": _named(study_id, "html")}
    return Response(text, headers=headers, media_type="text/html")


@router.get(
    "/report.pdf",
    responses={200: raw("application/pdf", "A4"), **refusals(401, 404, 409, 422)},
    response_class=Response,
)
async def pdf(request: Request, caller: Reader, study_id: StudyPath) -> Response:
    """The report on A4."""
    from hemoscope.reports.study_report_pdf import findings_pdf

    with _place(request, caller):
        report = await _report(request, caller, study_id)
        content = await to_thread.run_sync(findings_pdf, report, limiter=app_state_of(request).reports)
    return Response(content, headers={"Content-Disposition": _named(study_id, "pdf")}, media_type="application/pdf")


@contextmanager
def _place(request: Request, caller: Caller) -> Iterator[None]:
    """Take one of the user's places. Raises Problem 429 if none is free."""
    drawing, user = app_state_of(request).drawing, caller.user.name
    if drawing[user] >= REPORTS_OF_ONE:
        raise _too_many()
    drawing[user] += 1
    try:
        yield
    finally:
        drawing[user] -= 1


async def _report(request: Request, caller: Caller, study_id: str) -> StudyDocument:
    """Build the report in a thread; drawing is CPU-bound, so only a few are drawn at a time."""
    state = app_state_of(request)
    gather = partial(report_of, state.store, study_id, identity_shown=state.settings.show_identity)
    report = await to_thread.run_sync(gather, limiter=state.reports)
    await to_thread.run_sync(state.audit_view, caller.user, "report", study_id)
    return report


def _too_many() -> Problem:
    return Problem(
        429,
        code="too_many_reports_of_user",
        detail=f"This user is waiting for {REPORTS_OF_ONE} reports already.",
        remedy="Wait until one of them is done",
        headers={"Retry-After": "5"},
    )


def _named(study_id: str, suffix: str) -> str:
    return f'inline; filename="hemoscope-{study_id[:8]}.{suffix}"'
