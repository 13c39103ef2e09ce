"""Which row is which of the studies that an attempt found in the files of an upload.

A row is known again by a digest of what its study was found as. Its place among the studies does not tell: if one study
is lost between two attempts while another one appears, every place is of another study.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.dicom.refusals import REMEDIES
from hemoscope.store import tables
from hemoscope.store.jobs import FINAL, JobFailure, fail, fail_studies
from hemoscope.store.uploads import new_study
from hemoscope.store.values import StudyState

if TYPE_CHECKING:
    from hemoscope.dicom.series import Study

_studies, _deletions = tables.studies, tables.deletions
_LOST = JobFailure(
    code="lost_upload",
    message="files of this study were lost between two attempts to read the upload",
    remedy=REMEDIES["lost_upload"],
)
_UNCERTAIN = replace(
    _LOST, message="a file of the upload was lost between two attempts to read it, and with it which study is which"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStudy:
    """A study as an attempt found it.

    Attributes:
        instances: number of slices.
        study_instance_uid: None if no study was found.
        source_sha256: digest of what tells it from the others, None if no study was found.
    """

    instances: int
    study_instance_uid: str | None = None
    source_sha256: str | None = None


def found_studies(studies: "Sequence[Study]", upload_id: str) -> tuple[FoundStudy, ...]:
    """Describe the studies of an upload; one without slices if there are none, since its row says why."""
    uids = Counter(study.study_instance_uid for study in studies)
    found = tuple(
        FoundStudy(
            instances=max(len(series) for series in study.series),
            study_instance_uid=study.study_instance_uid,
            source_sha256=_digest(study, upload_id, shared=uids[study.study_instance_uid] > 1),
        )
        for study in studies
    )
    return found or (FoundStudy(instances=0),)


def _digest(study: "Study", upload_id: str, *, shared: bool) -> str:
    """SHA-256 of its UID alone, so that a study that lost a file is still known; of its files too if UIDs are shared.

    Studies of several patients can have one UID. Which of them lost a file is not certain then. With the id of the
    upload, so that digests tell nobody that two uploads are of one study.
    """
    headers = (header for series in study.series for header in (*series.headers, *series.left_out))
    files = sorted({(one.sop_instance_uid, one.frame, one.source) for one in headers}) if shared else []
    return hashlib.sha256(json.dumps([upload_id, study.study_instance_uid, files]).encode()).hexdigest()


class StudyRows:
    """The rows of an upload's studies, in one transaction; those deleted since are remembered."""

    def __init__(self, connection: Connection, upload_id: str, version: int) -> None:
        """Read the rows; ``version`` is that of the transaction."""
        self._connection = connection
        self._upload_id = upload_id
        self._version = version
        asked = _studies.c.study_id, _studies.c.ordinal, _studies.c.state, _studies.c.source_sha256
        rows = sa.select(*asked).where(_studies.c.upload_id == upload_id)
        self._rows: Sequence[Any] = connection.execute(rows).all()
        gone = sa.select(_deletions.c.study_id, _deletions.c.source_sha256).where(_deletions.c.upload_id == upload_id)
        self._deleted: Sequence[Any] = connection.execute(gone).all()

    def begin(self, found: Sequence[FoundStudy]) -> tuple[str | None, ...]:
        """Return the row of each study, made if it is new; None for those done or deleted before; () if uncertain."""
        known = {row.source_sha256 for row in (*self._rows, *self._deleted)}
        certain = None not in known | {one.source_sha256 for one in found}
        return self._by_digest(found) if certain else self._by_place(found)

    def _by_place(self, found: Sequence[FoundStudy]) -> tuple[str | None, ...]:
        """Number the studies of a first attempt; rows of an earlier version are known by their number alone."""
        if len(self._rows) + len(self._deleted) not in {1, len(found)}:
            fail(self._connection, self._upload_id, _UNCERTAIN)
            return ()
        rows, deleted = {row.ordinal: row for row in self._rows}, {one.study_id for one in self._deleted}
        begun = list[str | None]()
        for ordinal, one in enumerate(found):
            if ordinal in rows:
                begun.append(self._again(rows[ordinal], one))
            elif ordinal == 0 or further_study_id(self._upload_id, ordinal) in deleted:
                begun.append(None)
            else:
                begun.append(self._new(ordinal, one))
        return tuple(begun)

    def _by_digest(self, found: Sequence[FoundStudy]) -> tuple[str | None, ...]:
        """Fail what is no longer found, and number what was not found before after all others."""
        rows, deleted = {row.source_sha256: row for row in self._rows}, {one.source_sha256 for one in self._deleted}
        if lost := rows.keys() - {one.source_sha256 for one in found}:
            fail_studies(self._connection, self._upload_id, _LOST, _studies.c.source_sha256.in_(lost))
        after = max([len(rows) + len(deleted), *(row.ordinal + 1 for row in self._rows)])
        begun = list[str | None]()
        for one in found:
            if one.source_sha256 in rows:
                begun.append(self._again(rows[one.source_sha256], one))
            elif one.source_sha256 in deleted:
                begun.append(None)
            else:
                begun.append(self._new(after, one))
                after += 1
        return tuple(begun)

    def _again(self, row: Any, found: FoundStudy) -> str | None:
        if row.state in FINAL:
            return None
        values = {"state": StudyState.READING, "instances": found.instances, "version": self._version}
        values["source_sha256"] = row.source_sha256 or found.source_sha256
        self._connection.execute(_studies.update().where(_studies.c.study_id == row.study_id).values(**values))
        return str(row.study_id)

    def _new(self, ordinal: int, found: FoundStudy) -> str:
        study_id = further_study_id(self._upload_id, ordinal)
        asked = sa.select(tables.uploads).where(tables.uploads.c.upload_id == self._upload_id)
        upload = self._connection.execute(asked).one()
        columns = new_study(study_id, self._upload_id, ordinal, self._version)
        columns |= {"received_at": upload.accepted_at, "submitted_by": upload.submitted_by}
        columns |= {"state": StudyState.READING, "instances": found.instances, "source_sha256": found.source_sha256}
        self._connection.execute(_studies.insert().values(**columns))
        return study_id


def further_study_id(upload_id: str, ordinal: int) -> str:
    """The id of an upload's second and later studies: the same in every attempt, and unguessable.

    Examples:
        >>> further_study_id("0" * 32, 1)
        'ce4b620fa96723c34ca24766fd671bf9'
    """
    return hashlib.sha256(f"{upload_id}/{ordinal}".encode()).hexdigest()[:32]
