"""Asks a site's fork server to run an application; see ``fork_server``.

The caller lives as long as its application does: when it is killed, the fork server kills the application.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ADDRESS = "fork-server"  # in the folder of Flower's own files (FLWR_HOME)
_SAID = "no-fork-server"  # beside it: that there is none was said
LONGEST_MESSAGE = 1 << 16
_OUTPUTS = (1, 2)  # standard output and standard error


def run_forked(folder: Path, arguments: Sequence[str]) -> int | None:
    """Run an application to its end, with this process's outputs.

    Args:
        folder: of Flower's own files.
        arguments: the name of one of Flower's programs, and what follows it on its command line.

    Returns:
        Its exit code, negative for a signal; 1 where the fork server ended with it; None where no fork server listens,
        and nothing was run, which is said once on standard error until one listens again.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            with short_path(folder) as address:
                connection.connect(address)
        except OSError as error:
            _say_once(folder, error)
            return None
        with suppress(OSError):
            (folder / _SAID).unlink()
        try:
            socket.send_fds(connection, [json.dumps(list(arguments)).encode()], _OUTPUTS)
            said = connection.recv(LONGEST_MESSAGE)
        except ConnectionError:
            said = b""
    return int(said) if said else 1


def _say_once(folder: Path, error: OSError) -> None:
    """Each application is a process of its own, so a file remembers what was said; without one, it is said again."""
    try:
        (folder / _SAID).touch(exist_ok=False)
    except FileExistsError:
        return
    except OSError:
        pass  # such as a full disk, which must not end the application
    print(  # noqa: T201 - the site's log
        f"hemoscope: no fork server answers ({os.strerror(error.errno or 0)}): each round of this site imports "
        "again what it needs, which takes seconds. hemoscope federated status says whether the fork server runs",
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """The address of a folder's fork server, by a descriptor: Linux has 108 bytes for the path of a socket."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{ADDRESS}"
    finally:
        os.close(descriptor)
