"""The pages: files of ``static`` as they are, the disclaimer written in them. A page holds no study and no name."""

from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hemoscope.web.access import caller_of
from hemoscope.web.app_state import app_state_of
from hemoscope.web.routes.studies import StudyPath

router = APIRouter(include_in_schema=False)


@router.get("/")
def worklist_page(request: Request) -> Response:
    """The worklist, or the way to the login."""
    return _page(request, "index.html")


@router.get("/studies/{study_id}")
def study_page(request: Request, study_id: StudyPath) -> Response:  # noqa: ARG001 (the page's script reads it)
    """The reading page of a study; whether the study exists is the API's to say."""
    return _page(request, "study.html")


@router.get("/login")
def login_page(request: Request) -> Response:
    """The login, or the worklist where nobody has to log in."""
    if not app_state_of(request).credentials:
        return RedirectResponse("/", 303)
    return _html("login.html")


def _page(request: Request, name: str) -> Response:
    if caller_of(request):
        return _html(name)
    path = request.url.path
    return RedirectResponse("/login" if path == "/" else f"/login?next={path}", 303)


def _html(name: str) -> HTMLResponse:
    text = resources.files("hemoscope.web").joinpath("static", name).read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Cache-Control": "no-cache"})
