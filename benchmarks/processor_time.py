"""Processor time of a process and its children, also of those that still run."""

import os
import resource
from pathlib import Path


def processor_s() -> float:
    """Return user and system seconds of this process, the children that ended, and those that live (Linux)."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in found) + sum(_living())


def _living() -> list[float]:
    ticks, seconds = os.sysconf("SC_CLK_TCK"), []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if int(values[1]) == os.getpid():
            seconds.append((int(values[11]) + int(values[12])) / ticks)
    return seconds


def children_s() -> float:
    """Return user and system seconds of all living processes below this one, with their ended children (Linux)."""
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        found[int(path.parent.name)] = int(values[1]), sum(map(int, values[11:15])) / ticks
    below = {os.getpid()}
    while new := {one for one, (parent, _) in found.items() if parent in below} - below:
        below |= new
    return sum(found[one][1] for one in below - {os.getpid()})
