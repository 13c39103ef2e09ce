"""The certificate and key of a server that speaks TLS itself."""

import ssl
from pathlib import Path

from hemoscope.errors import ConfigError


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Read both files for a server.

    Raises:
        ConfigError: a file is missing, is not PEM, or the key is not the certificate's.

    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        msg = (
            f"--tls-cert and --tls-key cannot be used: {reason}. "
            "Give the certificate with its chain and its unencrypted key, both in PEM, readable by this user"
        )
        raise ConfigError(msg) from error
    return context
