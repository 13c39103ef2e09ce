"""What a site chooses about its structured reports, and what a later reading says about the earlier one."""

from dataclasses import dataclass, field
from datetime import datetime

from hemoscope.labels import LABEL_CODES, LabelCode, PerLabel
from hemoscope.reports.dicom_results.evidence import Reference

_LONGEST_DESCRIPTION = 64  # of VR LO, PS3.5 6.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What a site chooses about its reports.

    Attributes:
        report_absent: report an established label below its threshold as absent. Off by default: at a sensitivity of
            0.9, one "Absent" in ten of those who bleed is a false rule-out. Labels that are not established are never
            reported as absent.
        codes: of the six labels, for sites that may not use SNOMED CT.
    """

    report_absent: bool = False
    codes: PerLabel[LabelCode] = field(default_factory=lambda: LABEL_CODES)


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
