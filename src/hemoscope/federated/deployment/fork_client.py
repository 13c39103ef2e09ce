"""Asks a site's fork server to run an application; see ``fork_server``.

The caller lives as long as its application does: when it is killed, the fork server kills the application.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "fork-server"  # in the folder of Flower's own files (FLWR_HOME)
LONGEST_MESSAGE = 1 << 16
_OUTPUTS = (1, 2)  # standard output and standard error


def run_forked(folder: Path, arguments: Sequence[str]) -> int | None:
    """Run an application to its end, with this process's outputs.

    Args:
        folder: of Flower's own files.
        arguments: the name of one of Flower's programs, and what follows it on its command line.

    Returns:
        Its exit code, negative for a signal; 1 where the fork server ended with it; None where no fork server listens,
        and nothing was run.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            with short_path(folder) as address:
                connection.connect(address)
        except OSError:
            return None
        try:
            socket.send_fds(connection, [json.dumps(list(arguments)).encode()], _OUTPUTS)
            said = connection.recv(LONGEST_MESSAGE)
        except ConnectionError:
            said = b""
    return int(said) if said else 1


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """The address of a folder's fork server, by a descriptor: Linux has 108 bytes for the path of a socket."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{ADDRESS}"
    finally:
        os.close(descriptor)
