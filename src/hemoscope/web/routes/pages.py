"""The pages: files of ``static``, which hold the disclaimer but no study and no name."""

from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hemoscope.web.access import caller_of
from hemoscope.web.app_state import app_state_of
from hemoscope.web.routes.studies import StudyPath
from hemoscope.web.static_files import page_text

router = APIRouter(include_in_schema=False)


@router.get("/")
def worklist_page(request: Request) -> Response:
    """The worklist, or a redirect to the login."""
    return _page(request, "index.html")


@router.get("/studies/{study_id}")
def study_page(request: Request, study_id: StudyPath) -> Response:  # noqa: ARG001 (the page's script reads it)
    """The reading page of a study; the API reports whether the study exists."""
    return _page(request, "study.html")


@router.get("/login")
def login_page(request: Request) -> Response:
    """The login, or the worklist if no login is required."""
    if not app_state_of(request).credentials:
        return RedirectResponse("/", 303)
    return _html(request, "login.html")


@router.post("/login")
def login_form() -> Response:
    """What the form sends if its script did not run: nothing is read, and the page is shown again."""
    return RedirectResponse("/login", 303)


def _page(request: Request, name: str) -> Response:
    if caller_of(request):
        return _html(request, name)
    path, query = request.url.path, request.url.query
    onward = f"{path}?{query}" if query else path  # the filters of the list are in the query
    return RedirectResponse("/login" if onward == "/" else f"/login?next={quote(onward)}", 303)


def _html(request: Request, name: str) -> HTMLResponse:
    return HTMLResponse(page_text(name, app_state_of(request).catalogue), headers={"Cache-Control": "no-cache"})
