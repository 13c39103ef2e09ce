"""How many processors this process may use: fewer than the machine has, in a container or a service with a limit."""

import math
import os
from pathlib import Path

__all__ = ["available_processors"]

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def available_processors() -> int:
    """Return the number of processors available to this process: by its affinity, and by its control group's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # missing on macOS and Windows
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota())))


def _quota() -> float:
    """Return the processors that ``cpu.max`` of the control group (v2) allows, or of one above it: the least counts."""
    try:
        lines = _OWN_GROUP.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return math.inf
    own = next((line[3:] for line in lines if line.startswith("0::/")), "/")
    folders = [_GROUPS.joinpath(*own.strip("/").split("/")[:depth]) for depth in range(own.count("/") + 1)]
    return min(map(_allowed, folders))


def _allowed(folder: Path) -> float:
    """Return the processors that one ``cpu.max`` allows; infinite without one (the machine's own group has none)."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
