"""Readings of one study that came over the DICOM network: the newest takes the place of the earlier ones.

A study is known again by its Study Instance UID, which is trusted only if the DICOM node received it: uploaded files
may be of several patients and have one UID, since some programs that remove identity write the same one everywhere.
"""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.store import tables
from hemoscope.store.values import StudyState

_studies = tables.studies


def number(connection: Connection, study_id: str, study_instance_uid: str | None) -> int:
    """Return the number of a reading among those of its study, from 1."""
    if not study_instance_uid:
        return 1
    received = sa.select(_studies.c.received_at).where(_studies.c.study_id == study_id).scalar_subquery()
    earlier = (
        _studies.c.study_instance_uid == study_instance_uid,
        _studies.c.study_id != study_id,
        _studies.c.received_at <= received,
    )
    return (
        int(
            connection.execute(
                sa.select(sa.func.coalesce(sa.func.max(_studies.c.reading), 0)).where(*earlier)
            ).scalar_one()
        )
        + 1
    )


def settle(connection: Connection, study_instance_uid: str | None, version: int) -> None:
    """Name the newest reading that is done in all earlier ones that ended; call it when one ends or is deleted."""
    if not study_instance_uid:
        return
    ended = _studies.c.state.in_((StudyState.DONE, StudyState.FAILED))
    asked = sa.select(_studies.c.study_id, _studies.c.state, _studies.c.superseded_by)
    ordered = asked.where(_studies.c.study_instance_uid == study_instance_uid, ended)
    rows = connection.execute(ordered.order_by(_studies.c.received_at.desc(), _studies.c.study_id)).all()
    newest: str | None = None
    for row in rows:
        if row.superseded_by != newest:
            changed = {"superseded_by": newest, "version": version}
            connection.execute(_studies.update().where(_studies.c.study_id == row.study_id).values(**changed))
        if newest is None and row.state == StudyState.DONE:
            newest = row.study_id


def is_superseded(connection: Connection, study_id: str) -> bool:
    """Whether a later reading of the study was done before this one."""
    asked = sa.select(_studies.c.superseded_by).where(_studies.c.study_id == study_id)
    return connection.execute(asked).scalar() is not None


def earlier(connection: Connection, study_id: str) -> tuple[str, ...]:
    """Return the readings that a reading took the place of, the newest first."""
    asked = sa.select(_studies.c.study_id).where(_studies.c.superseded_by == study_id)
    return tuple(connection.execute(asked.order_by(_studies.c.received_at.desc(), _studies.c.study_id)).scalars())
