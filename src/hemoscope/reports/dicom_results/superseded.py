"""What the results of a later reading of a study say about those of the earlier one."""

from dataclasses import dataclass
from datetime import datetime

from hemoscope.reports.dicom_results.evidence import Reference

_LONGEST_DESCRIPTION = 64  # of VR LO, PS3.5 6.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """The object of an earlier reading of the same study that a result takes the place of.

    Attributes:
        reference: to it.
        reading: its number, from 1.
        at: when it was made.
        by: the number of the reading that takes its place.
    """

    reference: Reference
    reading: int
    at: datetime
    by: int

    @property
    def sentence(self) -> str:
        """For readers, in the time of this machine, as all times of results."""
        return f"Reading {self.by}, supersedes reading {self.reading} of {self.at.astimezone():%Y-%m-%d %H:%M}"


def series_description(what: str, superseded: Superseded | None) -> str:
    """Return the Series Description of a result.

    Examples:
        >>> series_description("findings", None)
        'Hemoscope findings (research use only)'
    """
    plain = f"Hemoscope {what} (research use only)"
    if superseded is None:
        return plain
    return f"{plain} reading {superseded.by} supersedes {superseded.reading}"[:_LONGEST_DESCRIPTION]
