"""A site of a federation: Flower's SuperNode, which fetches work from the server; nobody connects to a site.

It is kept alive, and with it the executor of its applications. A server counts a site that was killed as present until
its heartbeat has been missing for a minute, and admits no second one under its key meanwhile; Flower's SuperNode then
gives up at once, and is started again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hemoscope.errors import ConfigError
from hemoscope.federated.deployment.keys import SiteKeys
from hemoscope.federated.deployment.processes import (
    LOOPBACK,
    flower_program,
    free_port,
    launch_command,
    superexec_command,
)
from hemoscope.federated.deployment.supervisor import Pids, Program, Supervisor

SUPERNODE, SUPEREXEC, FORK_SERVER = "supernode", "superexec", "fork-server"
PATIENCE = 600.0  # seconds of being refused, after which the site gives up: its key is not, or no longer, registered
_REFUSED = frozenset({1})  # Flower's exit code where the first request fails; later failures end with another


def supernode_command(site: Path, keys: SiteKeys, *, server: str) -> list[str]:
    """The command line of Flower's SuperNode for a site, but for the port where the site's own processes reach it.

    The path of the site's file is in it and stays on this machine: a node's configuration is never sent.

    Args:
        site: the site's file; it is what the client app reads first.
        keys: the site's keys.
        server: ``HOST:PORT``.

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
        *("--isolation", "process"),  # its executor is started and watched by our supervisor
        *("--host", LOOPBACK),
    ]


def site_programs(command: Sequence[str], *, patience: float = PATIENCE) -> tuple[Program, ...]:
    """The SuperNode, the executor that asks it for work, and what the executor's applications are forked from.

    The executor ends with the SuperNode: its work is nobody's then. Each start of the SuperNode takes another free port
    of loopback: the one before may be somebody else's by now, an outgoing connection's for instance, for hours.

    Args:
        command: of ``supernode_command``.
        patience: seconds of being refused after which the site gives up.
    """
    program, *arguments = command
    port = 0

    def node() -> list[str]:
        nonlocal port
        port = free_port()
        return launch_command(Path(program).name, [*arguments, "--port", str(port)])

    def executor() -> list[str]:
        return superexec_command(f"{LOOPBACK}:{port}", authority=None)

    def forks() -> list[str]:
        return [sys.executable, "-P", "-m", "hemoscope.federated.deployment.fork_server"]

    supernode = Program(name=SUPERNODE, command=node, refused=_REFUSED, patience=patience)
    superexec = Program(name=SUPEREXEC, command=executor, after=_has_supernode, ends_with=SUPERNODE)
    return supernode, superexec, Program(name=FORK_SERVER, command=forks)


def _has_supernode(pids: Pids) -> bool:
    return SUPERNODE in pids


def main() -> int:
    """``python -P -m hemoscope.federated.deployment.supernode``: what ``hemoscope federated site`` becomes."""
    parser = argparse.ArgumentParser(prog="hemoscope.federated.deployment.supernode")
    parser.add_argument("--status", type=Path, required=True, help="folder for processes.json")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds of being refused")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    return Supervisor(site_programs(given.command, patience=given.patience), given.status).run()


if __name__ == "__main__":
    sys.exit(main())
