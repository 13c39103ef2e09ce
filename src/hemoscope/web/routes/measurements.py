"""Readers' measurements on slices: kept with the study, shown in its report."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from hemoscope.store.values import Count, Measurement
from hemoscope.web.access import Reader
from hemoscope.web.app_state import app_state_of
from hemoscope.web.routes.responses import API, refusals
from hemoscope.web.routes.studies import StudyPath
from hemoscope.web.schemas import MeasurementGiven, MeasurementList

router = APIRouter(prefix=f"{API}/studies/{{study_id}}/measurements", tags=["measurements"])


@router.get("", responses=refusals(401, 404, 422))
def list_measurements(request: Request, _caller: Reader, study_id: StudyPath) -> MeasurementList:
    """All measurements on a study, by slice."""
    return MeasurementList(measurements=list(app_state_of(request).store.measurements(study_id)))


@router.post("", status_code=201, responses=refusals(400, 401, 403, 404, 409, 413, 415, 422))
def measure(request: Request, caller: Reader, study_id: StudyPath, given: MeasurementGiven) -> Measurement:
    """Measure a length in mm, or Hounsfield units at a point or within a region. Points are (row, column) in pixels."""
    return app_state_of(request).store.measure(
        study_id, index=given.slice, kind=given.kind, points=given.points, by=caller.user.name
    )


@router.delete("/{measurement_id}", status_code=204, responses=refusals(401, 403, 404, 422))
def delete_measurement(request: Request, caller: Reader, study_id: StudyPath, measurement_id: Count) -> Response:
    """Delete a measurement."""
    app_state_of(request).store.delete_measurement(study_id, measurement_id, by=caller.user.name)
    return Response(status_code=204)
