"""A federation's server as two programs that are kept alive: Flower's SuperLink, and the executor of its applications.

The executor is not the SuperLink's child, so an application that runs survives a SuperLink that is started again.
"""

import argparse
import json
import sys
from pathlib import Path

from hemoscope.federated.deployment.processes import CANNOT_RUN, LOOPBACK, free_port, superexec_command
from hemoscope.federated.deployment.supervisor import Pids, Program, Supervisor

SUPERLINK, SUPEREXEC = "superlink", "superexec"
STATE = "server.json"


def server_programs(
    keys: Path, folder: Path, *, host: str, port: int, app: Path | None = None
) -> tuple[Program, Program]:
    """The SuperLink, and the executor that asks it for work.

    Args:
        keys: the server's part of the keys.
        folder: the state.
        host: where sites connect.
        port: the port.
        app: what sites run; our stub if None.
    """
    command = [sys.executable, "-P", "-m", "hemoscope.federated.deployment.superlink", "--keys", str(keys)]
    command += ["--folder", str(folder), "--host", host, "--port", str(port)]
    command += [] if app is None else ["--app", str(app)]

    def listens(pids: Pids) -> bool:
        """Whether our SuperLink is there: another server's executor would take work from a run of that one."""
        try:
            pid = json.loads((folder / STATE).read_text())["pid"]
        except (OSError, ValueError, KeyError):
            return False
        return bool(pids.get(SUPERLINK) == pid)

    superlink = Program(name=SUPERLINK, command=lambda: command, final=frozenset({CANNOT_RUN}))
    asks = superexec_command(f"{LOOPBACK}:{port}", authority=keys / "ca.crt")
    return superlink, Program(name=SUPEREXEC, command=lambda: asks, after=listens)


def main() -> int:
    """``python -P -m hemoscope.federated.deployment.server_processes``: what ``hemoscope federated server`` becomes."""
    parser = argparse.ArgumentParser(prog="hemoscope.federated.deployment.server_processes")
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--app", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    programs = server_programs(given.keys, given.folder, host=given.host, port=given.port or free_port(), app=given.app)
    code = Supervisor(programs, given.folder).run()
    if code == 0:
        sys.stderr.write("stopped\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
