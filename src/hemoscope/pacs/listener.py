"""The listening side: C-ECHO, and C-STORE of CT images into the spool, acknowledged once they are on the disk."""

import errno
import logging
import re
import ssl
import sys
from collections.abc import Callable
from threading import Thread
from time import sleep
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    StorageCommitmentPushModel,
    Verification,
)

from hemoscope.dicom import tags
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.transfer_syntaxes import DEFLATED, SYNTAXES
from hemoscope.errors import ConfigError, DicomReadError
from hemoscope.pacs.association_server import BoundedAssociationServer
from hemoscope.pacs.bounded_sockets import Budget
from hemoscope.pacs.calling_title import calling_title
from hemoscope.pacs.spool import Spool
from hemoscope.store.background import Backoff, described
from hemoscope.store.node_settings import NodeSettings

_log = logging.getLogger("hemoscope.pacs")
# Its messages quote what peers send, and its errors are logged here by their kind.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
# A deflated data set would be inflated in this process, to a thousand times what the limit on messages lets in.
_SYNTAXES = sorted(SYNTAXES - {DEFLATED})
_MOST_PDU = 128 << 10
_UID = re.compile("[0-9.]{1,64}")  # scanners write zeros before digits, which PS3.5 9.1 forbids
# Statuses of the Storage service (PS3.4 B.2.3) and of any service (PS3.7 C).
SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND, PROCESSING_FAILURE = 0x0000, 0xA700, 0xA900, 0xC000, 0x0110


class Listener:
    """The network side of the node. ``start`` listens; ``stop`` ends all associations."""

    def __init__(
        self,
        settings: NodeSettings,
        spool: Spool,
        *,
        limits: ReadLimits,
        tls: Callable[[], ssl.SSLContext] | None = None,
        fault: Callable[[], str | None] = lambda: None,
        report: Callable[[evt.Event], tuple[int, None]],
    ) -> None:
        """Prepare to listen.

        Args:
            settings: of the node.
            spool: where images go.
            limits: of parsing what arrives.
            tls: the TLS context of the moment, None for no TLS.
            fault: what is wrong with the rest of the node, None if nothing: C-ECHO then fails.
            report: takes reports of storage commitment.
        """
        self._settings = settings
        self._spool = spool
        self._limits = limits
        self._tls = tls
        self._fault = fault
        self._report = report
        self._entity = _entity(settings)
        # The archive opens the association and proposes to stay the provider (PS3.4 J.3.3, PS3.7 D.3.3.4).
        self._entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        self._server: BoundedAssociationServer | None = None

    def apply(self, settings: NodeSettings) -> None:
        """Take other peers and another number of associations; what is open stays open."""
        self._settings = settings
        self._entity.require_calling_aet = _titles(settings)

    def start(self) -> tuple[str, int]:
        """Listen in a thread; return address and port. Raises ConfigError if the address cannot be listened on."""
        node = self._settings.node
        handlers: list[Any] = [
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_N_EVENT_REPORT, self._report),
        ]
        try:
            server = self._entity.make_server(
                (node.host, node.port),
                evt_handlers=handlers,
                server_class=BoundedAssociationServer,
                tls=self._tls,
                admits=self._admits,
                most_bytes=node.most_image_mib << 20,
                budget=Budget(node.most_receiving_mib << 20),
            )
        except OSError as error:
            msg = f"cannot listen on {node.host}, port {node.port}: {error.strerror}. Choose another in [node]"
            raise ConfigError(msg) from error
        assert isinstance(server, BoundedAssociationServer), "as was asked for"
        self._server = server
        Thread(target=self._serve, args=(server,), name="dicom listener", daemon=True).start()
        host, port = server.server_address[:2]
        return str(host), int(port)

    def _serve(self, server: BoundedAssociationServer) -> None:
        """Accept connections until ``stop``, whatever error one of them causes."""
        backoff = Backoff()
        while True:
            try:
                server.serve_forever()
            except Exception as error:  # noqa: BLE001 - the site depends on this loop; the fault may pass
                _log.error("the listener goes on after %s", described(error))
                sleep(backoff.next_pause_s())
            if self._server is not server:
                return

    def stop(self) -> None:
        """Stop to listen, and end every association."""
        if self._server is not None:
            server, self._server = self._server, None
            server.end()
        self._entity.shutdown()

    def _admits(self, address: str) -> bool:
        """Whether any peer may have this address."""
        return any(peer.comes_from(address) for peer in self._settings.peers)

    def _requested(self, event: evt.Event) -> None:
        """Abort an association whose AE title comes from the address of another, and reject one that is one too many.

        pynetdicom rejects unknown titles.
        """
        own = [peer for peer in self._settings.peers if peer.ae_title == calling_title(event)]
        if own and not any(peer.comes_from(event.assoc.requestor.address) for peer in own):
            _log.warning("an association was aborted: its AE title is that of a peer at another address")
            event.assoc.abort()
            return
        if self._server is not None:
            self._server.associate(event, most=self._settings.node.most_associations)

    def _rejected(self, event: evt.Event) -> None:
        """Log why pynetdicom rejected an association; AE titles name systems, not patients."""
        request, node = event.assoc.requestor.primitive, self._settings.node
        called = "" if request is None else str(request.called_ae_title).strip()
        if called != node.ae_title:
            cause = f"it calls {called!r}, and this node is {node.ae_title!r}"
        elif calling_title(event) not in {peer.ae_title for peer in self._settings.peers}:
            cause = f"{calling_title(event)!r} is the AE title of no peer"
        else:
            cause = "its user identity is not accepted"
        _log.warning("an association was rejected: %s", cause)

    def _echo(self, _event: evt.Event) -> int:
        fault = self._fault()
        if fault is not None:
            _log.warning("C-ECHO answered with a failure: %s", fault)
            return PROCESSING_FAILURE
        return SUCCESS

    def _store(self, event: evt.Event) -> int:
        """Store one image; an exception here would become 0xC211, so every outcome has its own status."""
        try:
            return self._stored(event)
        except DicomReadError as error:
            _log.warning("an image was refused: %s", error.code)
            return CANNOT_UNDERSTAND
        except OSError as error:
            _log.error("an image was refused, for it cannot be stored: %s", errno.errorcode.get(error.errno or 0, "?"))
            return OUT_OF_RESOURCES
        except Exception as error:  # noqa: BLE001 - the sender must get an answer, and keep its image
            _log.error("an image was refused: %s", type(error).__name__)
            return PROCESSING_FAILURE

    def _stored(self, event: evt.Event) -> int:
        content = event.encoded_dataset()
        elements = parse(content, source="image", limits=self._limits, until=tags.STUDY_INSTANCE_UID).elements
        study, instance = elements.text(tags.STUDY_INSTANCE_UID), elements.text(tags.SOP_INSTANCE_UID)
        if not _UID.fullmatch(study) or not _UID.fullmatch(instance):
            _log.warning("an image was refused: its Study or SOP Instance UID is missing or no UID")
            return CANNOT_UNDERSTAND
        request: Any = event.request
        if (elements.text(tags.SOP_CLASS_UID), instance) != (
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
        ):
            _log.warning("an image was refused: its UIDs are not those of the request")
            return MISMATCH
        self._spool.store(content, study=study, instance=instance, sender=calling_title(event))
        self._spool.note_origin(study, f"{calling_title(event)} at {event.assoc.requestor.address}")
        return SUCCESS


def _entity(settings: NodeSettings) -> AE:
    node = settings.node
    entity = AE(ae_title=node.ae_title)
    entity.require_called_aet = True
    entity.require_calling_aet = _titles(settings)
    entity.maximum_associations = sys.maxsize  # the server counts
    entity.maximum_pdu_size = _MOST_PDU
    entity.acse_timeout = node.negotiation_seconds
    entity.dimse_timeout = entity.network_timeout = node.idle_seconds
    entity.add_supported_context(Verification)
    for sop_class in _CLASSES:
        entity.add_supported_context(sop_class, _SYNTAXES)
    return entity


def _titles(settings: NodeSettings) -> list[str]:
    return sorted({peer.ae_title for peer in settings.peers})
