"""The answers of archives to requests for storage commitment: N-EVENT-REPORT (PS3.4 J.3.3)."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition

from pydicom.dataset import Dataset
from pynetdicom import evt

from hemoscope.pacs.calling_title import calling_title
from hemoscope.store.node_settings import Destination
from hemoscope.store.outbox import Outbox

_log = logging.getLogger("hemoscope.pacs")
_PROCESSING_FAILURE = 0x0110
_REMEMBERED = 1000  # requests whose report came


class Commitments:
    """Notes in the outbox what an archive has committed itself to keep, and what not."""

    def __init__(self, outbox: Outbox, destinations: Sequence[Destination]) -> None:
        """Take reports of these destinations alone; there may be others later."""
        self._outbox = outbox
        self.destinations = tuple(destinations)
        self._reported: deque[str] = deque(maxlen=_REMEMBERED)
        self._changed = Condition()

    def wait(self, transaction_uid: str, *, timeout_s: float) -> bool:
        """Wait for the report of a request, on whatever association it comes; return whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: transaction_uid in self._reported, timeout_s)

    def of(self, destination: Destination) -> Callable[[evt.Event], tuple[int, None]]:
        """Return a handler of reports that a destination sends on the association on which it was asked."""
        return lambda event: self._taken(event, destination.ae_title)

    def report(self, event: evt.Event) -> tuple[int, None]:
        """Handle a report on an association that an archive opened."""
        return self._taken(event, calling_title(event))

    def _taken(self, event: evt.Event, sender: str) -> tuple[int, None]:
        """Handle EVT_N_EVENT_REPORT; an exception would lose the report, so a fault is answered and asked for again."""
        try:
            self._note(event.event_information, sender)
        except Exception as error:  # noqa: BLE001 - a report may hold anything; the archive must get an answer
            _log.warning("a report of storage commitment was not understood: %s", type(error).__name__)
            return _PROCESSING_FAILURE, None
        return 0x0000, None

    def _note(self, report: Dataset, sender: str) -> None:
        for destination in self.destinations:
            if destination.ae_title != sender or not destination.commitment:
                continue
            for one in report.get("ReferencedSOPSequence") or ():
                self._outbox.committed(destination.name, str(one.ReferencedSOPInstanceUID))
            failed = report.get("FailedSOPSequence") or ()
            for one in failed:
                self._outbox.not_committed(destination.name, str(one.ReferencedSOPInstanceUID))
            if failed:
                _log.warning("%s did not commit itself to %d results", destination.name, len(failed))
        with self._changed:
            self._reported.append(str(report.get("TransactionUID", "")))
            self._changed.notify_all()
