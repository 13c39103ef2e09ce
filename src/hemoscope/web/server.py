"""The application on a socket: uvicorn with our log, our limits, and a shutdown that event streams do not delay."""

import asyncio
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from hemoscope.errors import ConfigError
from hemoscope.store.settings import Settings
from hemoscope.web.connections import Connections
from hemoscope.web.reloading import Reloading
from hemoscope.web.request_checks import bracketed
from hemoscope.web.tls import tls_context

_SHUTDOWN_TIMEOUT_S = 5
_KEEP_ALIVE_S = 30
_OTHER_FILES = 500  # files of studies, connections to the database, pipes to workers

_log = logging.getLogger(__name__)


class ReadingRoomServer(uvicorn.Server):
    """Reports when it answers requests, and ends event streams before it shuts down."""

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, connections: Connections, started: Callable[[], None]
    ) -> None:
        """Serve ``app``; ``started`` is called once, when requests are answered."""
        super().__init__(config)
        self._state = app.state.app_state
        self._reloading = Reloading(self._state, connections)
        self._on_started = started
        self._terminal = os.isatty(0)
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the server; uvicorn would raise them again before our workers have exited.

        SIGHUP reloads.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            ignore_hang_up()  # a reload during the shutdown must not end it
            for one, handler in before.items():
                signal.signal(one, handler)

    def _hang_up(self) -> None:
        """Reload; or stop, if the signal came because the terminal that the server was started from was closed."""
        if self._terminal and not os.isatty(0):
            self.handle_exit(signal.SIGHUP, None)
            return
        task = asyncio.get_running_loop().create_task(self._reloading.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``started``."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams, then the other requests."""
        self._state.closing.set()
        await super().shutdown(sockets)


def ignore_hang_up() -> None:
    """Ignore SIGHUP, which would end this process: before and after the server runs there is nothing to reload."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def run_server(app: FastAPI, settings: Settings, *, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: made by ``create_app`` with the same settings.
        settings: the address, and certificate and key if it is served over TLS.
        started: gets the server's URL once it answers.

    Raises:
        ConfigError: the address cannot be bound, or the certificate and key cannot be used.

    """
    connections = Connections(settings, tls_context(*settings.tls) if settings.tls else None)
    listening = _bind(settings)
    port = listening.getsockname()[1]
    url = f"{'https' if settings.tls else 'http'}://{bracketed(settings.host)}:{port}"
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http=connections.protocol(),
        ws="none",
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
        _allow_descriptors(settings.connections)
        ReadingRoomServer(config, app, connections, lambda: started(url)).run(sockets=[listening])


def _allow_descriptors(connections: int) -> None:
    """Raise this process's limit of open files, so that connections alone cannot use it up; log if it stays too low."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        _log.warning(
            "--connections %d needs %d open files, this user may open %d: raise ulimit -n", connections, needed, hard
        )


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
