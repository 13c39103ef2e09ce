"""What a site chooses about its structured reports."""

from dataclasses import dataclass, field

from hemoscope.labels import LABEL_CODES, LabelCode, PerLabel


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
