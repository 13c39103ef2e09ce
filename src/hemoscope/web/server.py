"""The application on a socket: uvicorn, with our log, our limits, and an end that open event streams do not hold up."""

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
from hemoscope.web.settings import WebSettings, bracketed

_LAST_ANSWERS_S = 5
_KEEP_ALIVE_S = 30


class ReadingRoomServer(uvicorn.Server):
    """Tells when it answers, and tells event streams to end before it waits for them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, started: Callable[[], None]) -> None:
        """Serve ``app``; ``started`` is called once, when requests are answered."""
        super().__init__(config)
        self._room = app.state.room
        self._tell = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the server; uvicorn would raise them again, before our workers have ended."""
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
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then the rest."""
        self._room.closing.set()
        await super().shutdown(sockets)


def run_server(
    app: FastAPI, settings: WebSettings, *, tls: tuple[Path, Path] | None, started: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: made by ``create_app`` with the same settings.
        settings: the address.
        tls: certificate chain and key in PEM, or None.
        started: gets the server's URL once it answers.

    Raises:
        ConfigError: the address cannot be bound, or the certificate and key cannot be used.

    """
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
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
    with listening:
        ReadingRoomServer(config, app, lambda: started(url)).run(sockets=[listening])


def check_certificate(certificate: Path, key: Path) -> None:
    """Refuse what uvicorn would fail on.

    Raises:
        ConfigError: a file is missing, is no PEM, or the key is not the certificate's.

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


def _bind(settings: WebSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=2048)
    except OSError as error:
        msg = (
            f"cannot listen on {bracketed(settings.host)}:{settings.port}: {error.strerror}. "
            "End what listens there, or choose another --port"
        )
        raise ConfigError(msg) from error
