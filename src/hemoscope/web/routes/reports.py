"""Reports for download: a self-contained page, or a PDF.

A report takes a second or so to draw. Few are drawn at a time, and each user may wait for few, so that nobody fills the
queue.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from hemoscope.reports.study_report_content import StudyDocument
from hemoscope.reports.study_report_html import STYLE_SHA256, findings_html
from hemoscope.web.access import Caller, Reader
from hemoscope.web.app_state import AppState, app_state_of
from hemoscope.web.problems import Problem
from hemoscope.web.routes.responses import API, raw, refusals
from hemoscope.web.routes.studies import StudyPath
from hemoscope.web.stored_study_report import report_of

Kind = Literal["html", "pdf"]

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
        text = await _drawn(request, caller, study_id, "html")
    headers = {"Content-Security-Policy": _PAGE_POLICY, "Content-Disposition": _named(study_id, "html")}
    return Response(text, headers=headers, media_type="text/html")


@router.get(
    "/report.pdf",
    responses={200: raw("application/pdf", "A4"), **refusals(401, 404, 409, 422)},
    response_class=Response,
)
async def pdf(request: Request, caller: Reader, study_id: StudyPath) -> Response:
    """The report on A4."""
    with _place(request, caller):
        content = await _drawn(request, caller, study_id, "pdf")
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


async def _drawn(request: Request, caller: Caller, study_id: str, kind: Kind) -> bytes:
    """Draw the report in a thread, or take it from memory as long as findings and feedback are the same.

    Drawing is CPU-bound, so only a few are drawn at a time.
    """
    state = app_state_of(request)
    content = await to_thread.run_sync(partial(_content, state, study_id, kind), limiter=state.reports)
    await to_thread.run_sync(state.audit_view, caller.user, "report", study_id)
    return content


def _content(state: AppState, study_id: str, kind: Kind) -> bytes:
    shown = state.store.report_state(study_id)  # raises for a study that was deleted, whatever is in memory
    known = state.drawn_report(study_id, shown, kind)
    if known is not None:
        return known
    report = report_of(
        state.store,
        study_id,
        model_card=state.model_card,
        identity_shown=state.settings.show_identity,
        catalogue=state.catalogue,
    )
    content = _DRAW[kind](report)
    state.keep_report(study_id, shown, kind, content)
    return content


def _html(report: StudyDocument) -> bytes:
    return findings_html(report).encode()


def _pdf(report: StudyDocument) -> bytes:
    from hemoscope.reports.study_report_pdf import findings_pdf  # loading ReportLab takes a third of a second

    return findings_pdf(report)


_DRAW: dict[Kind, Callable[[StudyDocument], bytes]] = {"html": _html, "pdf": _pdf}


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
