"""The application on a socket: uvicorn with our log, our limits, and a shutdown that event streams do not delay."""

import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from hemoscope.errors import ConfigError
from hemoscope.store.settings import Settings
from hemoscope.web.request_checks import bracketed

_SHUTDOWN_TIMEOUT_S = 5
_KEEP_ALIVE_S = 30


class ReadingRoomServer(uvicorn.Server):
    """Reports when it answers requests, and ends event streams before it shuts down."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, started: Callable[[], None]) -> None:
        """Serve ``app``; ``started`` is called once, when requests are answered."""
        super().__init__(config)
        self._state = app.state.app_state
        self._on_started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the server; uvicorn would raise them again before our workers have exited."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``started``."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams, then the other requests."""
        self._state.closing.set()
        await super().shutdown(sockets)


def run_server(app: FastAPI, settings: Settings, *, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: made by ``create_app`` with the same settings.
        settings: the address, and certificate and key if it is served over TLS.
        started: gets the server's URL once it answers.

    Raises:
        ConfigError: the address cannot be bound, or the certificate and key cannot be used.

    """
    tls = settings.tls
    if tls is not None:
        check_certificate(*tls)
    listening = _bind(settings)
    port = listening.getsockname()[1]
    url = f"{'https' if tls else 'http'}://{bracketed(settings.host)}:{port}"
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        proxy_headers=bool(settings.trusted_proxy),
        forwarded_allow_ips=list(settings.trusted_proxy),
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
    )
    with listening:
        ReadingRoomServer(config, app, lambda: started(url)).run(sockets=[listening])


def check_certificate(certificate: Path, key: Path) -> None:
    """Check the certificate and key before uvicorn does, for a clear error.

    Raises:
        ConfigError: a file is missing, is not PEM, or the key is not the certificate's.

    """
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        msg = (
            f"--tls-cert and --tls-key cannot be used: {reason}. "
            "Give the certificate with its chain and its unencrypted key, both in PEM, readable by this user"
        )
        raise ConfigError(msg) from error


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=2048)
    except OSError as error:
        msg = (
            f"cannot listen on {bracketed(settings.host)}:{settings.port}: {error.strerror}. "
            "Stop the program that listens there, or choose another --port"
        )
        raise ConfigError(msg) from error
