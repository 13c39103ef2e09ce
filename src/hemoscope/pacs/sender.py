"""Sends the results of the outbox: C-STORE to each destination, and a request for storage commitment where it is asked.

An object counts as delivered when it is committed, or, at a destination without commitment, when it was accepted. What
fails stays in the outbox and is tried again. A destination that is away keeps no other one waiting.
"""

import io
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.store.background import described
from hemoscope.store.node_settings import Destination, NodeSettings
from hemoscope.store.outbox import Outbox, OutgoingObject

_log = logging.getLogger("hemoscope.pacs")
# SOP class and well-known instance of the storage commitment push model, PS3.4 J.3.5.
_COMMITMENT, _COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1"), UID("1.2.840.10008.1.20.1.1")
_REQUEST_COMMITMENT = 1  # action type of N-ACTION, PS3.4 J.3.2
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_Claimed = tuple[int, OutgoingObject]


class Sender:
    """Sends to one destination; ``step`` is called again and again."""

    def __init__(
        self,
        outbox: Outbox,
        destination: Destination,
        settings: NodeSettings,
        *,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        """Prepare; ``tls`` returns the context of the moment."""
        self._outbox = outbox
        self._destination = destination
        self._title = settings.node.ae_title
        self._tls = tls if destination.tls else None
        self._away = False

    def step(self) -> None:
        """Send what is due.

        Raises:
            StoreError: the database is away; what was sent meanwhile is sent again, under the same UIDs.
        """
        self._outbox.tidy(keep_days=self._destination.keep_days)
        claimed = self._outbox.claim(self._destination.name)
        if claimed:
            self._send(claimed)

    def _send(self, claimed: Sequence[_Claimed]) -> None:
        association = self._associate({one.sop_class_uid for _, one in claimed})
        if not association.is_established:
            self._say_away("it rejects the association" if association.is_rejected else "it does not answer")
            for object_id, _ in claimed:
                self._outbox.failed(object_id, "no association")
            return
        try:
            self._away = False
            stored = [one for one in claimed if self._store(association, *one)]
            if self._destination.commitment and stored:
                self._ask_commitment(association, stored)
        finally:
            association.release()

    def _associate(self, classes: set[str]) -> Association:
        entity = AE(ae_title=self._title)
        entity.connection_timeout = entity.acse_timeout = _CONNECT_SECONDS
        entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
        for sop_class in sorted(classes):
            entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
        if self._destination.commitment:
            entity.add_requested_context(_COMMITMENT)
        options: dict[str, Any] = {} if self._tls is None else {"tls_args": (self._tls(), None)}
        place = self._destination.host, self._destination.port
        return entity.associate(*place, ae_title=self._destination.ae_title, **options)

    def _store(self, association: Association, object_id: int, outgoing: OutgoingObject) -> bool:
        """Send one object; return whether it was accepted."""
        try:
            answer = association.send_c_store(dcmread(io.BytesIO(self._outbox.read(outgoing))))
            status = answer.get("Status")
        except (OSError, ValueError, RuntimeError) as error:  # the file is gone, no context, or no association any more
            self._outbox.failed(object_id, described(error))
            return False
        # Warnings (Bxxx) mean stored too, PS3.4 B.2.3. No status: the peer accepted the association and then aborted.
        if status is None or (status != 0x0000 and status >> 12 != 0xB):
            cause = "no answer" if status is None else f"status {status:04X}"
            _log.warning("%s refused a result: %s", self._destination.name, cause)
            self._outbox.failed(object_id, cause)
            return False
        if self._destination.commitment:
            self._outbox.sent(object_id)
        else:
            self._outbox.delivered(object_id)
        return True

    def _ask_commitment(self, association: Association, stored: Sequence[_Claimed]) -> None:
        """Ask the destination to commit itself (PS3.4 J.3.2); its answer comes in an association of its own."""
        request = Dataset()
        request.TransactionUID = derived_uid("commitment", *(one.sop_instance_uid for _, one in stored))
        request.ReferencedSOPSequence = [_reference(one) for _, one in stored]
        try:
            answer, _ = association.send_n_action(request, _REQUEST_COMMITMENT, _COMMITMENT, _COMMITMENT_INSTANCE)
            accepted = answer.get("Status") == 0x0000
        except (ValueError, RuntimeError):
            accepted = False
        if not accepted:
            _log.warning("%s does not take requests for storage commitment", self._destination.name)

    def _say_away(self, how: str) -> None:
        """Log once that a destination is away, until it is back."""
        if not self._away:
            _log.warning("results for %s wait: %s", self._destination.name, how)
        self._away = True


def _reference(outgoing: OutgoingObject) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = outgoing.sop_class_uid
    reference.ReferencedSOPInstanceUID = outgoing.sop_instance_uid
    return reference
