"""The worklist, and one study: its document, pixels, heat maps and deletion."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from hemoscope.labels import Hemorrhage
from hemoscope.reports.findings_json import findings_schema
from hemoscope.store.values import StudyDetail, StudyId, StudyState, WorklistQuery, WorklistSort
from hemoscope.web.access import Admin, Reader
from hemoscope.web.app_state import app_state_of
from hemoscope.web.disclosure import disclosed
from hemoscope.web.routes.responses import API, not_modified, openapi_schema, raw, refusals, unchanged
from hemoscope.web.schemas import Worklist

router = APIRouter(prefix=f"{API}/studies", tags=["studies"])

StudyPath = Annotated[StudyId, Path()]
SlicePath = Annotated[int, Path(ge=0, lt=1 << 31, description="Index into the volume, from 0")]
_Urgency = Annotated[str, Query(pattern="^(immediate|prompt|unsure|incomplete|routine|unknown)$")]
# The bytes of a slice never change: reading a study again gives the same, and ids are never reused.
_BEYOND = (1 << 63) - 1
_AT_ONCE = 32  # slices in one answer: 16 MB of 512 x 512
_FOREVER = "private, max-age=86400, immutable"


@router.get("", responses=refusals(401, 422))
def worklist(
    request: Request,
    _caller: Reader,
    search: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[list[StudyState] | None, Query()] = None,
    urgency: Annotated[list[_Urgency] | None, Query()] = None,
    reviewed: Annotated[bool | None, Query(description="Whether a reader has reviewed the study")] = None,
    sort: Annotated[
        WorklistSort, Query(description="The order, which `limit` and `offset` follow")
    ] = WorklistSort.URGENCY,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
) -> Worklist:
    """List studies, most urgent first if no ``sort`` is given. Give ``state`` and ``urgency`` again for several."""
    app_state = app_state_of(request)
    shown = app_state.settings.show_identity
    query = WorklistQuery(
        search=search,
        identity=shown,
        states=tuple(state or ()),
        urgency=tuple(urgency or ()),
        reviewed=reviewed,
        sort=sort,
        limit=limit,
        offset=offset,
    )
    version = app_state.store.changes_since(_BEYOND).version
    studies, total = app_state.store.studies(query)
    return Worklist(studies=[disclosed(one, identity_shown=shown) for one in studies], total=total, version=version)


@router.get(
    "/{study_id}",
    response_model=StudyDetail,
    responses={304: {"description": "As the ETag says"}, **refusals(401, 404, 422)},
)
def study(request: Request, caller: Reader, study_id: StudyPath) -> Response | StudyDetail:
    """One study, with findings and geometry once they are available. Changes after X-Version are not in it."""
    state = app_state_of(request)
    version = state.store.changes_since(_BEYOND).version  # before the study is read: what changes meanwhile is an event
    entry = state.store.get(study_id)
    state.audit_view(caller.user, "view", study_id)
    # The ETag is for clients that keep the study in memory: no cache may store it.
    headers = {"ETag": f'W/"{entry.version}"', "X-Version": str(version)}
    if unchanged(request, headers["ETag"]):
        return not_modified(headers)
    document = disclosed(entry, identity_shown=state.settings.show_identity)
    return Response(document.model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/{study_id}/findings",
    responses={
        200: raw("application/json", "The hemoscope.findings/1 document", openapi_schema(findings_schema())),
        **refusals(401, 404, 409, 422),
    },
    response_class=Response,
)
def findings(request: Request, caller: Reader, study_id: StudyPath) -> Response:
    """The findings exactly as ``hemoscope predict --format json`` prints them."""
    state = app_state_of(request)
    text = state.store.findings_json(study_id)
    state.audit_view(caller.user, "findings", study_id)
    return Response(text, media_type="application/json")


@router.get(
    "/{study_id}/slices/{index}/pixels",
    responses={
        200: raw("application/octet-stream", "Hounsfield units: int16, little endian, X-Rows times X-Columns"),
        304: {"description": "As the ETag says"},
        **refusals(401, 404, 409, 422),
    },
    response_class=Response,
)
def pixels(request: Request, caller: Reader, study_id: StudyPath, index: SlicePath) -> Response:
    """One slice for the viewer, row by row."""
    state = app_state_of(request)
    content = state.store.pixels(study_id, index)
    state.audit_view(caller.user, "view", study_id)
    shape = state.shape_of(study_id, heat=False)
    return _bytes(request, content, f'"{study_id}-{index}"', rows=shape.rows, columns=shape.columns)


@router.get(
    "/{study_id}/pixels",
    responses={
        200: raw("application/octet-stream", "Hounsfield units: int16, little endian, X-Slices x X-Rows x X-Columns"),
        **refusals(401, 404, 409, 422),
    },
    response_class=Response,
)
def several_pixels(
    request: Request,
    caller: Reader,
    study_id: StudyPath,
    first: Annotated[int, Query(ge=0, lt=1 << 31)] = 0,
    stride: Annotated[int, Query(ge=1, le=1000)] = 1,
    count: Annotated[int, Query(ge=1, le=_AT_ONCE)] = _AT_ONCE,
) -> Response:
    """Several slices in one answer, one after the other: ``first``, ``first + stride`` and so on, to the last one."""
    state = app_state_of(request)
    content = state.store.pixels_of(study_id, range(first, first + count * stride, stride))
    state.audit_view(caller.user, "view", study_id)
    names = ("X-Slices", "X-Rows", "X-Columns")
    headers = {name: str(length) for name, length in zip(names, content.shape, strict=True)}
    return Response(content.astype("<i2", copy=False).tobytes(), headers=headers, media_type="application/octet-stream")


@router.get(
    "/{study_id}/series/{number}/slices/{index}/pixels",
    responses={
        200: raw("application/octet-stream", "Hounsfield units: int16, little endian, X-Rows times X-Columns"),
        304: {"description": "As the ETag says"},
        **refusals(401, 404, 409, 422),
    },
    response_class=Response,
)
def series_pixels(
    request: Request, caller: Reader, study_id: StudyPath, number: Annotated[int, Path(ge=1, le=1000)], index: SlicePath
) -> Response:
    """One slice of another series of the study, which the model has not read."""
    state = app_state_of(request)
    content = state.store.series_pixels(study_id, number, index)
    state.audit_view(caller.user, "view", study_id)
    rows, columns = content.shape
    return _bytes(request, content.tobytes(), f'"{study_id}-s{number}-{index}"', rows=rows, columns=columns)


@router.get(
    "/{study_id}/slices/{index}/heatmap/{label}",
    responses={
        200: raw(
            "application/octet-stream", "Probability: uint8, 255 for 1, X-Rows times X-Columns over the slice's box"
        ),
        304: {"description": "As the ETag says"},
        **refusals(401, 404, 409, 422),
    },
    response_class=Response,
)
def heatmap(request: Request, caller: Reader, study_id: StudyPath, index: SlicePath, label: Hemorrhage) -> Response:
    """The heat map of one label over one slice; the study's geometry has the box that it covers."""
    state = app_state_of(request)
    content = state.store.heatmap(study_id, index, label.value)
    state.audit_view(caller.user, "view", study_id)
    shape = state.shape_of(study_id, heat=True)
    etag = f'"{study_id}-{index}-{label.value}"'
    return _bytes(request, content, etag, rows=shape.heat_rows or 0, columns=shape.heat_columns or 0)


@router.delete("/{study_id}", status_code=204, responses=refusals(401, 403, 404, 422))
def delete(request: Request, caller: Admin, study_id: StudyPath) -> Response:
    """Delete a study with its pixels, findings and feedback, for good."""
    app_state_of(request).store.delete(study_id, by=caller.user.name)
    return Response(status_code=204)


def _bytes(request: Request, content: bytes, etag: str, *, rows: int, columns: int) -> Response:
    headers = {"ETag": etag, "Cache-Control": _FOREVER, "X-Rows": str(rows), "X-Columns": str(columns)}
    if unchanged(request, etag):
        return not_modified(headers)
    return Response(content, headers=headers, media_type="application/octet-stream")
