"""Sends the results of the outbox: C-STORE to each destination, and a request for storage commitment where it is asked.

An object counts as delivered when it is committed, or, at a destination without commitment, when it was accepted. What
fails stays in the outbox and is tried again, unless the disk damaged it: then it is given up. A destination that is
away keeps no other one waiting.
"""

import io
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association

from hemoscope.checksums import ChecksumError
from hemoscope.pacs.commitment import Commitments
from hemoscope.store.background import described
from hemoscope.store.node_settings import Destination, NodeSettings
from hemoscope.store.outbox import Outbox, OutgoingObject

_log = logging.getLogger("hemoscope.pacs")
# SOP class and well-known instance of the storage commitment push model, PS3.4 J.3.5.
_COMMITMENT, _COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1"), UID("1.2.840.10008.1.20.1.1")
_REQUEST_COMMITMENT = 1  # action type of N-ACTION, PS3.4 J.3.2
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_REPORT_SECONDS = 5.0
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
        commitments: Commitments,
    ) -> None:
        """Prepare; ``tls`` returns the context of the moment, and ``commitments`` takes reports on our association."""
        self._outbox = outbox
        self._destination = destination
        self._title = settings.node.ae_title
        self._tls = tls if destination.tls else None
        self._commitments = commitments
        self._away = False

    def step(self) -> None:
        """Send what is due.

        Raises:
            StoreError: the database is away; what was sent meanwhile is sent again, under the same UIDs.
        """
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
            causes = [self._store(association, *one) for one in claimed]
            for cause, count in Counter(filter(None, causes)).items():
                _log.warning("%d results for %s were not sent: %s", count, self._destination.name, cause)
            stored = [one for one, cause in zip(claimed, causes, strict=True) if cause is None]
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
        if self._destination.commitment:
            options["evt_handlers"] = [(evt.EVT_N_EVENT_REPORT, self._commitments.of(self._destination))]
        place = self._destination.host, self._destination.port
        return entity.associate(*place, ae_title=self._destination.ae_title, **options)

    def _store(self, association: Association, object_id: int, outgoing: OutgoingObject) -> str | None:
        """Send one object, and note in the outbox what came of it; return why it was not accepted, None if it was."""
        try:
            cause = self._refusal(association, outgoing)
        except ChecksumError:
            self._outbox.damaged(object_id)
            return f"the stored file of object {outgoing.sop_instance_uid} is damaged. Send its study again"
        if cause is not None:
            self._outbox.failed(object_id, cause)
        elif self._destination.commitment:
            self._outbox.sent(object_id)
        else:
            self._outbox.delivered(object_id)
        return cause

    def _refusal(self, association: Association, outgoing: OutgoingObject) -> str | None:
        """Send one object; return why it was not accepted, None if it was. Raises ChecksumError if it is damaged."""
        sop_class = UID(outgoing.sop_class_uid)
        if association.is_established and all(
            one.abstract_syntax != sop_class for one in association.accepted_contexts
        ):
            return f"it does not accept {sop_class.name}"
        try:
            answer = association.send_c_store(dcmread(io.BytesIO(self._outbox.read(outgoing))))
        except ChecksumError:
            raise
        except Exception as error:  # noqa: BLE001 - no file, no association any more, no DICOM: the others are sent
            return described(error)
        # No status: the peer accepted the association and then aborted. Warnings (Bxxx) mean stored too, PS3.4 B.2.3.
        status = answer.get("Status")
        if status is None:
            return "no answer"
        return None if status == 0x0000 or status >> 12 == 0xB else f"status {status:04X}"

    def _ask_commitment(self, association: Association, stored: Sequence[_Claimed]) -> None:
        """Ask the destination to commit itself (PS3.4 J.3.2).

        Its answer comes on this association, for which it is kept open a moment, or on one of its own (PS3.4 J.3.3).
        """
        request = Dataset()
        request.TransactionUID = generate_uid(prefix=None)  # of its own for each request (PS3.4 J.3.2.1)
        request.ReferencedSOPSequence = [_reference(one) for _, one in stored]
        try:
            answer, _ = association.send_n_action(request, _REQUEST_COMMITMENT, _COMMITMENT, _COMMITMENT_INSTANCE)
            accepted = answer.get("Status") == 0x0000
        except (ValueError, RuntimeError):
            accepted = False
        if accepted:
            self._commitments.wait(str(request.TransactionUID), timeout_s=_REPORT_SECONDS)
        else:
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
