"""The answers of archives to requests for storage commitment: N-EVENT-REPORT (PS3.4 J.3.3)."""

import logging
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pynetdicom import evt

from hemoscope.pacs.calling_title import calling_title
from hemoscope.store.node_settings import Destination
from hemoscope.store.outbox import Outbox

_log = logging.getLogger("hemoscope.pacs")
_PROCESSING_FAILURE = 0x0110


class Commitments:
    """Notes in the outbox what an archive has committed itself to keep, and what not."""

    def __init__(self, outbox: Outbox, destinations: Sequence[Destination]) -> None:
        """Take reports of these destinations alone."""
        self._outbox = outbox
        self._destinations = tuple(one for one in destinations if one.commitment)

    def report(self, event: evt.Event) -> tuple[int, None]:
        """Handle EVT_N_EVENT_REPORT; an exception would lose the report, so a fault is answered and asked for again."""
        try:
            self._note(event.event_information, calling_title(event))
        except Exception as error:  # noqa: BLE001 - a report may hold anything; the archive must get an answer
            _log.warning("a report of storage commitment was not understood: %s", type(error).__name__)
            return _PROCESSING_FAILURE, None
        return 0x0000, None

    def _note(self, report: Dataset, sender: str) -> None:
        for destination in self._destinations:
            if destination.ae_title != sender:
                continue
            for one in report.get("ReferencedSOPSequence") or ():
                self._outbox.committed(destination.name, str(one.ReferencedSOPInstanceUID))
            failed = report.get("FailedSOPSequence") or ()
            for one in failed:
                self._outbox.not_committed(destination.name, str(one.ReferencedSOPInstanceUID))
            if failed:
                _log.warning("%s did not commit itself to %d results", destination.name, len(failed))
