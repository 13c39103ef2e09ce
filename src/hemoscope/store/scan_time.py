"""Scan time and, if the site asks for it, patient identity of a study, from the header of one of its files."""

import re
from datetime import UTC, datetime, timedelta, timezone

from hemoscope.dicom.archive import Archive
from hemoscope.dicom.part10 import parse
from hemoscope.reports.identity import patient_identity
from hemoscope.store.database import storable
from hemoscope.store.values import Identity

# PS3.6: Study Date, Study Time, Timezone Offset From UTC.
_DATE, _TIME, _OFFSET = 0x00080020, 0x00080030, 0x00080201


def acquired_at(archive: Archive, source: str) -> datetime | None:
    """Return Study Date and Time as UTC, or None if the file has no valid date.

    Times without (0008,0201) are in the scanner's time zone, assumed to be that of this machine (PS3.3 C.12.1.1.8).

    Raises:
        DicomReadError: the file can no longer be read.
    """
    elements = parse(archive.load(source), source=source, limits=archive.limits).elements
    return moment(elements.text(_DATE), elements.text(_TIME), elements.text(_OFFSET))


def identity(archive: Archive, source: str) -> Identity:
    """Return the patient's name and ID. Raises DicomReadError if the file can no longer be read."""
    patient = patient_identity(archive.load(source), source=source, limits=archive.limits)
    return Identity(name=storable(patient.name)[:256], id=storable(patient.id)[:64])


def moment(date: str, time: str, offset: str) -> datetime | None:
    """Turn a DA, a TM (PS3.5 6.2; it may be cut short) and ``&ZZXX`` into UTC; None if the date is not valid.

    Examples:
        >>> moment("20260102", "1530", "+0200").isoformat()
        '2026-01-02T13:30:00+00:00'
    """
    digits = (re.sub(r"\D", "", time.split(".", maxsplit=1)[0]) + "000000")[:6]
    zone = re.fullmatch(r"([+-])(\d\d)(\d\d)", offset)
    try:
        local = datetime.strptime(re.sub(r"\D", "", date) + digits, "%Y%m%d%H%M%S")
        if zone:
            ahead = timedelta(hours=int(zone[2]), minutes=int(zone[3])) * (1 if zone[1] == "+" else -1)
            local = local.replace(tzinfo=timezone(ahead))
        return local.astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # dates that no calendar has, or beyond the clock of the platform
        return None
