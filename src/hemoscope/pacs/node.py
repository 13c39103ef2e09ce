"""The node as a whole: listener, spool, hand-over and senders, and whether all of them work."""

from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from hemoscope.errors import StoreError
from hemoscope.pacs.arrivals import Arrivals
from hemoscope.pacs.certificates import Certificates
from hemoscope.pacs.commitment import Commitments
from hemoscope.pacs.listener import Listener
from hemoscope.pacs.sender import Sender
from hemoscope.pacs.spool import Spool
from hemoscope.pacs.webhook import WebhookSender
from hemoscope.store.background import BackgroundLoop
from hemoscope.store.node_settings import WEBHOOK, WEBHOOK_DAYS, Destination, NodeSettings
from hemoscope.store.store import Store

# Of what is parsed here, up to the UIDs: this process serves all associations. Workers parse the rest.
MOST_HEADER_ELEMENTS = 50_000
_LOOK_EVERY_S = 0.5
_STUCK_AFTER_S = 120.0
_SEND_EVERY_S = 1.0
_TIDY_EVERY_S = 60.0
_SENDING_S = 1800.0  # a hundred objects over a slow network


class DicomNode:
    """``with DicomNode(store, settings) as node: node.address``: it listens until the block ends."""

    def __init__(self, store: Store, settings: NodeSettings) -> None:
        """Prepare everything. Raises ConfigError if certificates or the webhook's secret cannot be used."""
        self._store = store
        self._held = ExitStack()
        self._spool = spool = Spool(store.folder.received)
        limits = replace(store.read_limits, elements=min(store.read_limits.elements, MOST_HEADER_ELEMENTS))
        self._arrivals = arrivals = Arrivals(spool, store, settings, limits=limits)
        self._certificates = None if settings.tls is None else Certificates(settings.tls)
        self._loop = BackgroundLoop(
            "studies that arrived", arrivals.step, every_s=_LOOK_EVERY_S, stuck_after_s=_STUCK_AFTER_S
        )
        commitments = Commitments(store.outbox, settings.destinations)
        keep_days = {WEBHOOK: WEBHOOK_DAYS, **{one.name: one.keep_days for one in settings.destinations}}
        self._tidying = BackgroundLoop(
            "outbox", lambda: store.outbox.tidy(keep_days), every_s=_TIDY_EVERY_S, stuck_after_s=_STUCK_AFTER_S
        )
        self._senders = [self._sender(store, one, settings) for one in settings.destinations]
        if settings.webhook is not None:
            step = WebhookSender(store.outbox, settings.webhook).step
            self._senders.append(BackgroundLoop("webhook", step, every_s=_SEND_EVERY_S, stuck_after_s=_SENDING_S))
        self._listener = Listener(
            settings,
            spool,
            limits=limits,
            tls=None if self._certificates is None else self._certificates.server,
            fault=self.fault,
            report=commitments.report if any(one.commitment for one in settings.destinations) else None,
        )
        self.address = ("", 0)

    def _sender(self, store: Store, destination: Destination, settings: NodeSettings) -> BackgroundLoop:
        tls = None if self._certificates is None else self._certificates.client
        sender = Sender(store.outbox, destination, settings, tls=tls)
        name = f"results for {destination.name}"
        return BackgroundLoop(name, sender.step, every_s=_SEND_EVERY_S, stuck_after_s=_SENDING_S)

    @property
    def _loops(self) -> tuple[BackgroundLoop, ...]:
        return (self._loop, self._tidying, *self._senders)

    def __enter__(self) -> Self:
        """Listen. Raises ConfigError if the address cannot be listened on, or another node uses the storage."""
        with ExitStack() as held:
            held.enter_context(self._spool.held())
            self.address = self._listener.start()
            self._held = held.pop_all()
        for loop in self._loops:
            loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End associations, then the hand-over; what is in the spool stays for the next start."""
        self._listener.stop()
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            loop.join()
        self._held.close()

    def fault(self) -> str | None:
        """What is wrong with the node, None if nothing is: a C-ECHO fails then."""
        for loop in self._loops:
            if loop.vitals.fault is not None:
                return f"{loop.vitals.name}: {loop.vitals.fault}"
        if self._arrivals.fault is not None:
            return f"{self._loop.vitals.name}: {self._arrivals.fault}"
        try:
            self._store.check_storage()
            self._store.check_database()
        except StoreError as error:
            return error.code
        return None
