"""The row of one study, by an id that came from outside."""

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.store import tables
from hemoscope.store.refusals import refusal

_STUDY_ID = re.compile(r"[0-9a-f]{32}")
_studies = tables.studies


def find_study(connection: Connection, study_id: str) -> Any:
    """Return the row of a study. Raises StoreError ``no_such_study``, also for a malformed id."""
    known = _STUDY_ID.fullmatch(study_id) and sa.select(_studies).where(_studies.c.study_id == study_id)
    row = connection.execute(known).first() if known is not None else None
    if row is None:
        raise refusal("no_such_study", "there is no such study")
    return row
