"""The node as a whole: listener, spool and hand-over, and whether all of them work."""

from types import TracebackType
from typing import Self

from hemoscope.errors import StoreError
from hemoscope.pacs.arrivals import Arrivals
from hemoscope.pacs.certificates import Certificates
from hemoscope.pacs.listener import Listener
from hemoscope.pacs.node_settings import NodeSettings
from hemoscope.pacs.spool import Spool
from hemoscope.store.background import BackgroundLoop
from hemoscope.store.store import Store

_SPOOL = ".received"
_LOOK_EVERY_S = 0.5
_STUCK_AFTER_S = 120.0


class DicomNode:
    """``with DicomNode(store, settings) as node: node.address``: it listens until the block ends."""

    def __init__(self, store: Store, settings: NodeSettings) -> None:
        """Prepare everything. Raises ConfigError if certificates cannot be used."""
        self._store = store
        spool = Spool(store.folder.root / _SPOOL)
        arrivals = Arrivals(spool, store, settings, limits=store.read_limits)
        self._certificates = None if settings.tls is None else Certificates(settings.tls)
        self._loop = BackgroundLoop(
            "studies that arrived", arrivals.step, every_s=_LOOK_EVERY_S, stuck_after_s=_STUCK_AFTER_S
        )
        self._listener = Listener(
            settings,
            spool,
            limits=store.read_limits,
            tls=None if self._certificates is None else self._certificates.server,
            fault=self.fault,
        )
        self.address = ("", 0)

    def __enter__(self) -> Self:
        """Listen. Raises ConfigError if the address cannot be listened on."""
        self.address = self._listener.start()
        self._loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End associations, then the hand-over; what is in the spool stays for the next start."""
        self._listener.stop()
        self._loop.stop()
        self._loop.join()

    def fault(self) -> str | None:
        """What is wrong with the node, None if nothing is: a C-ECHO fails then."""
        if self._loop.vitals.fault is not None:
            return f"{self._loop.vitals.name}: {self._loop.vitals.fault}"
        try:
            self._store.check_storage()
            self._store.check_database()
        except StoreError as error:
            return error.code
        return None
