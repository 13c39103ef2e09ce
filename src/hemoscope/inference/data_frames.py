"""Findings as pandas tables, for those who have pandas: it is in the extra ``study``."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hemoscope.errors import MissingExtraError
from hemoscope.inference.findings import StudyFindings
from hemoscope.labels import LABELS

if TYPE_CHECKING:
    import pandas as pd

_SLICE_COLUMNS = ("sop_instance_uid", "frame", "source", "position_mm", *(label.value for label in LABELS))
_STUDY_COLUMNS = (
    "study_instance_uid",
    "series_instance_uid",
    "triage",
    "slices",
    *(label.value for label in LABELS),
    *(f"{label.value}_present" for label in LABELS),
    "state",
)


def slice_rows(study: StudyFindings) -> "pd.DataFrame":
    """One row a slice in anatomical order; the row index is that of the slice in its series."""
    rows = [
        (one.ref.sop_instance_uid, one.ref.frame, one.source, one.position_mm, *one.probabilities.values)
        for one in study.slices
    ]
    return _pandas().DataFrame(rows, columns=_SLICE_COLUMNS)


def study_rows(studies: Iterable[StudyFindings]) -> "pd.DataFrame":
    """One row a study: its probabilities, which labels are present, and whether the head was read in full."""
    rows = [
        (
            study.study_instance_uid,
            study.series_instance_uid,
            study.triage.value,
            len(study.slices),
            *study.probabilities.values,
            *(finding.present for finding in study.findings),
            study.state,
        )
        for study in studies
    ]
    return _pandas().DataFrame(rows, columns=_STUDY_COLUMNS)


def _pandas() -> Any:
    if find_spec("pandas") is None:
        raise MissingExtraError(package="pandas", extra="study")
    import pandas as pd

    return pd
