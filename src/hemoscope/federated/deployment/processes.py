"""What Flower's processes may do and how long they live: a fixed environment, and an end when their parent ends.

Flower starts its helpers (``flower-superexec``, ``flwr-serverapp``, ``flwr-clientapp``) by name, in sessions of their
own, and leaves some behind when their parent is killed. So the first folder of their PATH is one of ours, with a small
program of each name: it asks Linux to kill it when its parent dies (prctl(2), PR_SET_PDEATHSIG, which stays in force
across execve) and then becomes Flower's own program. Every descendant inherits the same environment.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hemoscope.errors import FederationError
from hemoscope.files import write_text

LAUNCHED = ("flower-superexec", "flwr-serverapp", "flwr-clientapp")
JOBS_VARIABLE = "HEMOSCOPE_FEDERATED_JOBS"

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def flower_environment(home: Path, *, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process of Flower's and of all that it starts: nothing leaves, nothing is installed.

    Settings of Flower's own that were inherited are dropped, so that none (an address, a login plug-in, a switch that
    opens further ports) comes in from a shell's profile.

    Args:
        home: a folder for Flower's own files and for the launchers; made if absent.
        inherited: the environment to start from; this process's if None.

    """
    kept = {key: value for key, value in (inherited or os.environ).items() if not key.startswith("FLWR_")}
    home = home.absolute()
    return kept | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_HOME": str(home),
        "PATH": os.pathsep.join([str(write_launchers(home / "bin")), kept.get("PATH", os.defpath)]),
        # A proxy may stand between a site and the server, never between two processes of one machine.
        **{name: _without_proxy(kept.get(name, "")) for name in ("NO_PROXY", "no_proxy")},
    }


def write_launchers(folder: Path) -> Path:
    """Write a program of each name that Flower starts; it ties itself to its parent before it becomes Flower's.

    Raises:
        FederationError: Flower's programs are not beside this interpreter.

    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in LAUNCHED:
        flower_program(name)
        script = f'#!/bin/sh\nexec {_quoted(sys.executable)} -m {__name__} {name} "$@"\n'
        write_text(folder / name, script, mode=0o700)
    return folder


def flower_program(name: str) -> Path:
    """One of Flower's programs in this interpreter's environment.

    Raises:
        FederationError: it is not there.

    """
    program = Path(sys.executable).parent / name
    if not program.is_file():
        raise FederationError(f"{name} is not beside this Python. Make the environment: make setup-federated")
    return program


def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by another program, with exactly this environment from its first instruction on."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], list(command), dict(environment))  # noqa: S606  the command is ours, without a shell


def tie_to_parent(parent: int | None = None) -> None:
    """Let Linux kill this process when its parent dies; elsewhere Flower's own watch on its parent must do.

    Args:
        parent: the process id that the parent must have; if it died before this call, so does this process.

    Raises:
        OSError: the kernel refuses.

    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on just now."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def main(arguments: Sequence[str]) -> NoReturn:
    """``python -m hemoscope.federated.deployment.processes flwr-serverapp ...``: tie, then become Flower's program."""
    name, *rest = arguments
    claimed = int(rest[rest.index("--parent-pid") + 1]) if "--parent-pid" in rest else None
    tie_to_parent(claimed)
    become([sys.executable, str(flower_program(name)), *rest], os.environ)


def _without_proxy(given: str) -> str:
    hosts = [host for host in given.split(",") if host]
    return ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    main(sys.argv[1:])
