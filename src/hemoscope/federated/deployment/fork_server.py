"""Starts a site's applications in milliseconds: a process that has imported what they need, and forks for each.

Flower starts a process for each message, and importing PyTorch and the rest takes seconds of processor time. This is
``multiprocessing``'s fork server for processes that somebody else starts: Flower's executor runs our launcher
(``processes``), which asks here (``fork_client``), hands its outputs over, and waits.

An application dies with its launcher and with this process. It holds nothing of the application before it: this process
imports, and never reads a message. What was imported is shared memory, not a second copy.
"""

import contextlib
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from hemoscope.federated.deployment.fork_client import ADDRESS, LONGEST_MESSAGE, short_path
from hemoscope.federated.deployment.processes import APPLICATION, end_process, load_program, run_program, tie_to_parent

# What a site's application imports for a round, beside Flower's program.
PRELOADED = (
    "hemoscope.federated.deployment.deployed_apps",
    "hemoscope.federated.site.site_task",
    "hemoscope.federated.site.secure_site",
)
_PATIENCE = 10.0  # seconds for a launcher, which is on this machine, to say what it wants


@dataclass(slots=True, kw_only=True)
class _Child:
    """An application, its launcher's connection, and what tells of its end."""

    pid: int
    connection: socket.socket
    ended: int
    lives: bool = True


class ForkServer:
    """Forks for each connection to a listener."""

    def __init__(self, listener: socket.socket) -> None:
        """Serve this listener."""
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> NoReturn:
        """Until a signal ends this process."""
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(_PATIENCE)
        try:
            text, outputs, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, 2)
            arguments = json.loads(text)
        except (OSError, ValueError):  # a launcher that was killed
            connection.close()
            return
        here = os.getpid()
        if (pid := os.fork()) == 0:
            connection.close()
            self._become(arguments, outputs, here)
        for output in outputs:
            os.close(output)
        child = _Child(pid=pid, connection=connection, ended=os.pidfd_open(pid))
        self._selector.register(child.ended, selectors.EVENT_READ, partial(self._ended, child))
        self._selector.register(connection, selectors.EVENT_READ, partial(self._left, child))

    def _left(self, child: _Child) -> None:
        """The launcher is gone: so is its application."""
        if child.lives:
            self._selector.unregister(child.connection)
            signal.pidfd_send_signal(child.ended, signal.SIGKILL)

    def _ended(self, child: _Child) -> None:
        child.lives = False
        self._selector.unregister(child.ended)
        os.close(child.ended)
        _, status = os.waitpid(child.pid, 0)
        with contextlib.suppress(KeyError):  # the launcher was gone before
            self._selector.unregister(child.connection)
        with contextlib.suppress(OSError):
            child.connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        child.connection.close()

    def _become(self, arguments: Sequence[str], outputs: Sequence[int], parent: int) -> NoReturn:
        """The application, in the forked process."""
        code: object = 1
        try:
            tie_to_parent(parent)
            for wanted, output in enumerate(outputs, start=1):
                os.dup2(output, wanted)
                os.close(output)
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
                else:
                    os.close(key.fd)
            self._selector.close()
            # Else all applications would draw the same.
            random.seed()
            np.random.seed()  # noqa: NPY002  Flower draws from this one
            code = run_program(arguments)
        except BaseException:  # noqa: BLE001  this process has no other end
            sys.excepthook(*sys.exc_info())
        end_process(code)


def listen(folder: Path) -> socket.socket:
    """A listener in a folder of this user's; it takes the place of an earlier one."""
    (folder / ADDRESS).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with short_path(folder) as address:
        listener.bind(address)
    (folder / ADDRESS).chmod(0o600)
    listener.listen()
    return listener


def main() -> NoReturn:
    """``python -P -m hemoscope.federated.deployment.fork_server``: a program of a site's supervisor."""
    tie_to_parent()
    load_program(APPLICATION)
    for name in PRELOADED:
        importlib.import_module(name)
    ForkServer(listen(Path(os.environ["FLWR_HOME"]))).serve()


if __name__ == "__main__":
    sys.exit(main())
