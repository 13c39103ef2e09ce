"""Other axial series of a study, kept to be looked at beside the one that was read; the model reads none of them.

They are decoded once all studies of the upload have their results, so that no finding waits for them: if the worker
dies just then, the studies stay without those that were not kept yet.
"""

import json
import logging
from collections.abc import Sequence

from hemoscope.dicom.archive import Archive, DecodedSeries, Study, read_series
from hemoscope.dicom.ranking import plane_of, preference
from hemoscope.dicom.series import Series
from hemoscope.errors import SeriesError
from hemoscope.store import tables
from hemoscope.store.database import Database, storable
from hemoscope.store.jobs import UploadJob, check_held
from hemoscope.store.results import StudyGoneError
from hemoscope.store.storage import Storage, series_file
from hemoscope.store.values import Geometry
from hemoscope.store.viewer_geometry import geometry_of

_KERNEL_CHARACTERS = 16  # of an SH
_LEAST_SLICES = 2
_studies = tables.studies
_log = logging.getLogger(__name__)


def others_to_show(study: Study, shown: Geometry) -> list[Series]:
    """Return the axial series of slices, other than the one that was read, the preferred ones first.

    Those of another or an unknown frame of reference are left out: nothing says which of their slices lie at the same
    place.
    """
    read = set(shown["sop_instance_uids"])
    chosen = [series for series in study.series if any(one.sop_instance_uid in read for one in series.headers)]
    frames = {one.frame_of_reference_uid for series in chosen for one in series.headers} - {None}
    others = [series for series in study.series if series not in chosen and _is_axial(series)]
    linked = [series for series in others if {one.frame_of_reference_uid for one in series.headers} <= frames]
    return sorted(linked, key=lambda series: (preference(series.headers), series.series_instance_uid))


def _is_axial(series: Series) -> bool:
    slices = all(one.kind.is_read for one in series.headers)
    return slices and series.ordered and len(series) >= _LEAST_SLICES and plane_of(series.headers) == "axial"


def keep_series(
    database: Database,
    storage: Storage,
    job: UploadJob,
    study_id: str,
    archive: Archive,
    wanted: Sequence[Series],
    *,
    threads: int,
) -> None:
    """Decode and store series of a study that is done; one that cannot be decoded is left out.

    Args:
        database: of the store.
        storage: of the store.
        job: held by the caller.
        study_id: the study.
        archive: where its series were found.
        wanted: these series.
        threads: number of slices decoded in parallel.

    Raises:
        LeaseLostError: the job is no longer the caller's.
        StudyGoneError: the study was deleted.
        StoreError: ``storage_full`` or ``storage_unusable``.
    """
    for number, series in enumerate(wanted, 1):
        try:
            decoded = read_series(archive, series, threads=threads)
        except SeriesError as error:
            _log.warning("another series of study %s is not kept: %s", study_id[:8], type(error).__name__)
            continue
        hounsfield = decoded.volume.canonical.hounsfield.astype("<i2", order="C", copy=False)
        storage.write_array(job.upload_id, study_id, series_file(number), hounsfield)
        _insert(database, job, study_id, number, decoded)


def _insert(database: Database, job: UploadJob, study_id: str, number: int, decoded: DecodedSeries) -> None:
    geometry = json.dumps(geometry_of(decoded), allow_nan=False)
    row = {"study_id": study_id, "number": number, "description": _described(decoded), "geometry": geometry}
    with database.writing() as connection:
        version = tables.tick(connection)
        check_held(connection, job)
        known = _studies.update().where(_studies.c.study_id == study_id).values(version=version)
        if connection.execute(known).rowcount == 0:
            msg = "the study was deleted while its other series were read. Nothing to do: they are discarded"
            raise StudyGoneError(msg)
        connection.execute(tables.kept_series.insert().values(**row))


def _described(decoded: DecodedSeries) -> str:
    """What a series is, without Series Description, in which people write names: ``0.625 mm, kernel BONE``."""
    first = decoded.slices[0]
    thickness = first.slice_thickness_mm or decoded.volume.spacing_mm[0]
    words = [f"{thickness:g} mm"] if thickness else []
    if first.convolution_kernel:
        words.append(f"kernel {storable(first.convolution_kernel)[:_KERNEL_CHARACTERS]}")
    if any(one.contrast_agent is not None for one in decoded.slices):
        words.append("contrast agent given")
    return ", ".join(words) or "another series"
