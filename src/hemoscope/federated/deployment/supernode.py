"""A site of a federation: Flower's SuperNode, which fetches work from the server; nobody connects to a site.

A server counts a site that was killed as present until its heartbeat has been missing for a minute, and admits no
second one under its key meanwhile; Flower's SuperNode then gives up at once. So it is started again for a while.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from hemoscope.errors import ConfigError
from hemoscope.federated.deployment import processes
from hemoscope.federated.deployment.keys import SiteKeys
from hemoscope.federated.deployment.processes import flower_program, free_port

TIMEOUT = 150.0  # seconds of being refused, after which the site gives up
RETRY_DELAY = 10.0


def supernode_command(site: Path, keys: SiteKeys, *, server: str, port: int | None = None) -> list[str]:
    """The command line of Flower's SuperNode for a site.

    The path of the site's file is in it and stays on this machine: a node's configuration is never sent.

    Args:
        site: the site's file; it is what the client app reads first.
        keys: the site's keys.
        server: ``HOST:PORT``.
        port: where the site's own processes reach the SuperNode, on loopback; a free one if None.

    Raises:
        ConfigError: the server's address has no port, or the site's path cannot be written in Flower's configuration.
        FederationError: Flower is not installed.

    """
    host, _, number = server.rpartition(":")
    if not host or not number.isdigit():
        raise ConfigError(f"--server {server} has no port. Give HOST:PORT, such as server.example:9092")
    path = str(site.absolute())
    if '"' in path or "'" in path or "\\" in path:
        raise ConfigError(f"{site.name} lies under a name with a quotation mark or a backslash. Move it elsewhere.")
    return [
        str(flower_program("flower-supernode")),
        *("--superlink", server),
        *("--root-certificates", str(keys.authority.absolute())),
        *("--auth-supernode-private-key", str(keys.private_key.absolute())),
        *("--trusted-entities", str(keys.trusted.absolute())),
        *("--node-config", f'site="{path}"'),
        *("--host", "127.0.0.1"),
        *("--port", str(port or free_port())),
    ]


def keep_connected(command: Sequence[str], *, timeout: float = TIMEOUT, retry_delay: float = RETRY_DELAY) -> int:
    """Run Flower's SuperNode until it is stopped, and again where it is refused; gives its exit code.

    Args:
        command: of ``supernode_command``.
        timeout: seconds of being refused after which this ends.
        retry_delay: seconds between two tries.

    """
    tied = [sys.executable, "-m", processes.__name__, Path(command[0]).name, *command[1:]]
    end = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        code, stopped = _run_until_ended(tied)
        now = time.monotonic()
        if now - began > timeout:  # it had been connected
            end = now + timeout
        if stopped or code == 0 or now > end:
            return 0 if stopped else code
        sys.stderr.write(f"not admitted, or no longer; trying again in {retry_delay:g} s\n")
        sys.stderr.flush()
        time.sleep(retry_delay)


def _run_until_ended(command: Sequence[str]) -> tuple[int, bool]:
    """The exit code of a program, and whether it was this process's signal that ended it."""
    stopped = False
    # A group of its own: the terminal's Ctrl-C is for this process, which then ends that one, once.
    with subprocess.Popen(command, process_group=0) as child:  # noqa: S603  the command is ours, without a shell

        def stop(_number: int, _frame: FrameType | None) -> None:
            nonlocal stopped
            if not stopped:
                stopped = True
                child.terminate()

        kept = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        code = child.wait()
        for number, handler in kept.items():
            signal.signal(number, handler)
    return code, stopped


if __name__ == "__main__":
    sys.exit(keep_connected(sys.argv[1:]))
