"""The node as a whole: listener, spool, hand-over and senders, and whether all of them work."""

import logging
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

from hemoscope.errors import StoreError
from hemoscope.pacs.arrivals import Arrivals, longest_hold_s
from hemoscope.pacs.certificates import Certificates
from hemoscope.pacs.commitment import Commitments
from hemoscope.pacs.listener import Listener
from hemoscope.pacs.sender import Sender
from hemoscope.pacs.spool import Spool
from hemoscope.pacs.webhook import WebhookSender
from hemoscope.store.background import BackgroundLoop
from hemoscope.store.node_settings import WEBHOOK, WEBHOOK_DAYS, NodeSettings
from hemoscope.store.store import Store

# Of what is parsed here, up to the UIDs: this process serves all associations. Workers parse the rest.
MOST_HEADER_ELEMENTS = 50_000
_log = logging.getLogger("hemoscope.pacs")
# Keys of [node] that only a start can change.
_AT_THE_START = ("ae_title", "host", "port", "most_image_mib", "idle_seconds", "negotiation_seconds")
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
        self._settings = settings
        self._held = ExitStack()
        self._spool = spool = Spool(store.folder.received)
        limits = replace(store.read_limits, elements=min(store.read_limits.elements, MOST_HEADER_ELEMENTS))
        self._arrivals = arrivals = Arrivals(spool, store, settings, limits=limits)
        self._certificates = None if settings.tls is None else Certificates(settings.tls)
        self._loop = BackgroundLoop(
            "studies that arrived", arrivals.step, every_s=_LOOK_EVERY_S, stuck_after_s=_STUCK_AFTER_S
        )
        self._commitments = Commitments(store.outbox, settings.destinations)
        self._tidying = BackgroundLoop("outbox", self._tidy, every_s=_TIDY_EVERY_S, stuck_after_s=_STUCK_AFTER_S)
        self._senders = self._senders_of(settings)
        self._retired: list[BackgroundLoop] = []
        self._keep(settings)
        self._listener = Listener(
            settings,
            spool,
            limits=limits,
            tls=None if self._certificates is None else self._certificates.server,
            fault=self.fault,
            report=self._commitments.report,
        )
        self.address = ("", 0)

    def _senders_of(self, settings: NodeSettings) -> list[BackgroundLoop]:
        outbox = self._store.outbox
        tls = None if self._certificates is None else self._certificates.client
        steps = {
            f"results for {one.name}": Sender(outbox, one, settings, tls=tls, commitments=self._commitments).step
            for one in settings.destinations
        }
        if settings.webhook is not None:
            steps["webhook"] = WebhookSender(outbox, settings.webhook).step
        return [
            BackgroundLoop(name, step, every_s=_SEND_EVERY_S, stuck_after_s=_SENDING_S) for name, step in steps.items()
        ]

    def _keep(self, settings: NodeSettings) -> None:
        self._keep_days = {WEBHOOK: WEBHOOK_DAYS, **{one.name: one.keep_days for one in settings.destinations}}
        self._store.outbox.keep_ended = timedelta(days=settings.results.resend_days)
        self._store.outbox.longest_hold = timedelta(seconds=longest_hold_s(settings))

    def _tidy(self) -> None:
        self._store.outbox.tidy(self._keep_days)

    def apply(self, settings: NodeSettings) -> None:
        """Work by other settings from now on; associations that are open stay open.

        What only a start can change stays as it is, and the log names it.

        Raises:
            ConfigError: the webhook's secret cannot be used; nothing has changed then.
        """
        old = self._settings
        fixed = {name: getattr(old.node, name) for name in _AT_THE_START}
        later = [name for name in _AT_THE_START if fixed[name] != getattr(settings.node, name)]
        later += ["[tls]"] if settings.tls != old.tls else []
        if later:
            _log.warning("%s: restart hemoscope listen for this change", ", ".join(later))
        settings = replace(settings, node=replace(settings.node, **fixed), tls=old.tls)
        if old.tls is None:  # without a certificate nothing can be sent over TLS
            unsent = [one.name for one in settings.destinations if one.tls]
            if unsent:
                _log.warning("%s: results wait for a restart of hemoscope listen", ", ".join(unsent))
            settings = replace(settings, destinations=tuple(one for one in settings.destinations if not one.tls))
        senders = self._senders_of(settings)
        self._settings = settings
        self._commitments.destinations = settings.destinations
        self._keep(settings)
        self._listener.apply(settings)
        self._arrivals.apply(settings)
        retired, self._senders = self._senders, senders
        for loop in retired:  # it ends after what it is sending now; what it claimed is not claimed twice
            loop.stop()
        self._retired += retired
        for loop in senders:
            loop.start()

    @property
    def _loops(self) -> tuple[BackgroundLoop, ...]:
        return (self._loop, self._tidying, *self._senders)

    def __enter__(self) -> Self:
        """Listen. Raises ConfigError if the address cannot be listened on, or another node uses the storage."""
        with ExitStack() as held:
            held.enter_context(self._spool.held())
            self._store.outbox.release_claims()
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
        for loop in (*self._loops, *self._retired):
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
