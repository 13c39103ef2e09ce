"""What Flower's processes may do and how long they live: a fixed environment, and an end when their parent ends.

Flower starts its applications (``flwr-serverapp``, ``flwr-clientapp``) by name, and leaves some behind when their
parent is killed. So the first folder of their PATH is one of ours, with a small program of each name: it asks Linux to
kill it when its parent dies (prctl(2), PR_SET_PDEATHSIG) and then runs Flower's own program. Every descendant inherits
the same environment.

Flower's servers and executors can lose the thread that does their work and stay alive: ``flower-supernode`` keeps its
HTTP server after its connection has ended, can fall out of step with its server, and waits for ever for the reply of an
application that is dead (``reply_watch``). Such a program ends here as a whole, so that its supervisor starts it again.

A site's application is forked by a process that has imported what it needs, where there is one (``fork_server``).
"""

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.fork_client import run_forked
from hemoscope.federated.deployment.reply_watch import watch_replies, working
from hemoscope.federated.flower_internals import OUT_OF_STEP
from hemoscope.files import write_text

APPLICATION, NODE = "flwr-clientapp", "flower-supernode"  # of a site
LAUNCHED = ("flwr-serverapp", APPLICATION)
SUPERVISED = (NODE, "flower-superexec")
LOOPBACK = "127.0.0.1"
JOBS_VARIABLE = "HEMOSCOPE_FEDERATED_JOBS"

CANNOT_RUN = 78  # exit code where starting again would not help (sysexits.h, EX_CONFIG)
BROKEN = 70  # exit code of a supervised program that lost its connection or a thread (sysexits.h, EX_SOFTWARE)

EXECUTOR_POLL = "0.25"  # seconds between an executor's questions for work, on this machine; Flower's own is 1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_WITHOUT_PROXY = ("localhost", LOOPBACK, "::1")


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
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": EXECUTOR_POLL,
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
        script = f'#!/bin/sh\nexec {_quoted(sys.executable)} -P -m {__name__} {name} "$@"\n'
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


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port that nobody listens on just now."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def launch_command(name: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs one of Flower's programs tied to its parent; -P: nothing from the current folder."""
    return [sys.executable, "-P", "-m", __name__, name, *arguments]


def superexec_command(address: str, *, authority: Path | None) -> list[str]:
    """The command line of Flower's executor, which starts applications.

    Args:
        address: of the SuperLink or SuperNode that it asks for work, on loopback.
        authority: the certificate that signs the other's; None where that is without TLS.
    """
    trust = ["--insecure"] if authority is None else ["--root-certificates", str(authority)]
    ours = ["--runtime-api-address", address, "--parent-pid", str(os.getpid())]
    return launch_command("flower-superexec", [*trust, *ours])


def main(arguments: Sequence[str]) -> None:
    """``python -P -m hemoscope.federated.deployment.processes flwr-serverapp ...``: tie, then run Flower's program."""
    name, *rest = arguments
    claimed = int(rest[rest.index("--parent-pid") + 1]) if "--parent-pid" in rest else None
    tie_to_parent(claimed)
    if name == APPLICATION:
        _run_application(arguments)
    if name not in SUPERVISED:
        run_program(arguments)
        return
    sys.excepthook, threading.excepthook = _end_with_error, _end_with_thread
    logging.getLogger("flwr").addFilter(_end_out_of_step)
    if name == NODE:
        watch_replies(Path(os.environ["FLWR_HOME"]), lambda: os.kill(os.getpid(), signal.SIGTERM))
    code = run_program(arguments)
    end_process(BROKEN if code is None else code)  # whoever returns has lost its connection


def run_program(arguments: Sequence[str]) -> object:
    """Run one of Flower's programs in this process: None where it returned, else what it gave to ``sys.exit``."""
    program = load_program(arguments[0])
    sys.argv = list(arguments)
    try:
        program()
    except SystemExit as error:
        return 0 if error.code is None else error.code
    return None


def load_program(name: str) -> Callable[[], object]:
    """One of Flower's programs, imported."""
    (program,) = entry_points(group="console_scripts", name=name)
    loaded: Callable[[], object] = program.load()
    return loaded


def _run_application(arguments: Sequence[str]) -> NoReturn:
    """Run a site's application, forked where that is possible, under the lock that says that it lives."""
    folder = Path(os.environ["FLWR_HOME"])
    with working(folder) as say_in_order:
        code: object = run_forked(folder, arguments)
        if code is None:
            code = run_program(arguments)
        if code == 0:
            say_in_order()
    end_process(code)


def _end_out_of_step(record: logging.LogRecord) -> bool:
    """End a SuperNode that fell out of step; on SIGTERM it takes its leave, so that it is admitted again at once."""
    if OUT_OF_STEP in record.getMessage():
        signal.raise_signal(signal.SIGTERM)
    return True


def _end_with_error(*error: Any) -> None:
    sys.__excepthook__(*error)
    end_process(BROKEN)


def _end_with_thread(failed: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(failed)
    end_process(BROKEN)


def end_process(code: object) -> NoReturn:
    """End now, whatever other threads do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _without_proxy(given: str) -> str:
    hosts = [host for host in given.split(",") if host]
    return ",".join([*hosts, *(host for host in _WITHOUT_PROXY if host not in hosts)])


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    main(sys.argv[1:])
