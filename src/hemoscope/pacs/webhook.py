"""Notifies another program of the site that an urgent study was read: a signed HTTP request without identity.

The signature is HMAC-SHA256 over the time, a full stop and the body, with a secret that both sides have; the receiver
checks it, and refuses old times, so that a request cannot be forged or repeated.
"""

import hashlib
import hmac
import http.client
import logging
import ssl
import time
from urllib.parse import urlsplit

from hemoscope.checksums import ChecksumError
from hemoscope.errors import ConfigError
from hemoscope.store.node_settings import WEBHOOK, Webhook
from hemoscope.store.outbox import Outbox

_log = logging.getLogger("hemoscope.pacs")
_TIMEOUT_S = 10.0
_LEAST_SECRET_BYTES = 16


def signature(secret: bytes, moment: int, body: bytes) -> str:
    """Return the value of the header ``X-Hemoscope-Signature``.

    Examples:
        >>> signature(b"0123456789abcdef", 1767225600, b"{}")[:24]
        't=1767225600,v1=99902517'
    """
    digest = hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


class WebhookSender:
    """Sends what is due; ``step`` is called again and again."""

    def __init__(self, outbox: Outbox, webhook: Webhook) -> None:
        """Read the secret. Raises ConfigError if there is none, or if it is short."""
        self._outbox = outbox
        self._webhook = webhook
        try:
            self._secret = webhook.secret_file.read_bytes().strip()
        except OSError as error:
            msg = f"the secret of [webhook] cannot be read: {error.strerror}. Write 32 random characters into its file"
            raise ConfigError(msg) from error
        if len(self._secret) < _LEAST_SECRET_BYTES:
            msg = f"the secret of [webhook] has less than {_LEAST_SECRET_BYTES} characters. Write 32 random ones"
            raise ConfigError(msg)

    def step(self) -> None:
        """Send what is due. Raises StoreError if the database is away."""
        for object_id, outgoing in self._outbox.claim(WEBHOOK):
            try:
                status = self._post(self._outbox.read(outgoing))
            except ChecksumError:
                _log.error("the webhook was not delivered: the stored file of a notification is damaged")
                self._outbox.damaged(object_id)
                continue
            except (OSError, http.client.HTTPException) as error:
                self._failed(object_id, type(error).__name__)
                continue
            if 200 <= status < 300:
                self._outbox.delivered(object_id)
            else:
                self._failed(object_id, f"status {status}")

    def _failed(self, object_id: int, cause: str) -> None:
        _log.warning("the webhook was not delivered: %s", cause)
        self._outbox.failed(object_id, cause)

    def _post(self, body: bytes) -> int:
        """Post to the URL, and return the status; redirects are not followed."""
        place = urlsplit(self._webhook.url)
        assert place.hostname is not None, "the settings were checked"
        connection: http.client.HTTPConnection
        if place.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(place.hostname, place.port, timeout=_TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=_TIMEOUT_S)
        try:
            headers = {
                "Content-Type": "application/json",
                "X-Hemoscope-Signature": signature(self._secret, int(time.time()), body),
            }
            connection.request("POST", place._replace(scheme="", netloc="").geturl() or "/", body, headers)
            return connection.getresponse().status
        finally:
            connection.close()
