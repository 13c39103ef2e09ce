"""The TLS context of the node, read again when its files change, so that renewed certificates need no restart.

Both sides show a certificate (PS3.15 B.12, BCP 195 RFC 8996 and 9325): TLS 1.2 or 1.3, and peers are verified.
"""

import logging
import ssl
from pathlib import Path
from threading import Lock

from hemoscope.errors import ConfigError
from hemoscope.store.node_settings import Tls

_log = logging.getLogger("hemoscope.pacs")


class Certificates:
    """Gives TLS contexts for connections that come in and for those that go out."""

    def __init__(self, tls: Tls) -> None:
        """Read the files. Raises ConfigError if they are no certificate with its key."""
        self._tls = tls
        self._lock = Lock()
        self._stamps = self._stamp()
        self._server, self._client = _contexts(tls)

    def server(self) -> ssl.SSLContext:
        """The context for a connection that comes in."""
        self._renew()
        return self._server

    def client(self) -> ssl.SSLContext:
        """The context for a connection that goes out; the peer's name is not checked, its authority is."""
        self._renew()
        return self._client

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._tls.certificate, self._tls.key, self._tls.authorities))

    def _renew(self) -> None:
        """Read changed files; if they cannot be used, perhaps yet, the old ones stay in use."""
        with self._lock:
            stamps = self._stamp()
            if stamps == self._stamps:
                return
            try:
                self._server, self._client = _contexts(self._tls)
            except ConfigError as error:
                _log.error("the certificates in use stay in use: %s", error)
            else:
                _log.warning("the certificates were read again")
            self._stamps = stamps


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _contexts(tls: Tls) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    contexts = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in contexts:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(tls.certificate, tls.key)
            context.load_verify_locations(tls.authorities)
        except (OSError, ValueError) as error:
            cause = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            msg = f"the files of [tls] cannot be used ({cause}). Give PEM files that belong together"
            raise ConfigError(msg) from error
    return contexts
