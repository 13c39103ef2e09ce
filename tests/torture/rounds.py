"""Rounds of faults: uploads, a fault, uploads; the fault ends, and all that was accepted must end too."""

import random
import sys
import time
import traceback

from .faults import CLOCK, faults_of, have_postgresql
from .site import FAKETIME, Site, running_site
from .tally import Count, Tally

_ENDS = "sites compared at their end"
_BEGIN = random.randrange(100)  # short runs begin with different sites
# Whether over PostgreSQL, and whether the servers' clock can be set: one site after the other.
_SITES = ((False, False), (True, False), (False, True))


def run_faults(tally: Tally, seconds: float) -> None:
    """Run rounds on one site until the time is up; each call takes the next kind of site that can be had here."""
    sites = [
        (postgresql, faketime)
        for postgresql, faketime in _SITES
        if (not postgresql or have_postgresql()) and (not faketime or FAKETIME is not None)
    ]
    turn = _BEGIN + tally.now[_ENDS].done
    postgresql, faketime = sites[turn % len(sites)]
    chance = random.Random(time.time_ns())
    with running_site(postgresql=postgresql, faketime=faketime, chance=chance) as site:
        end = time.monotonic() + seconds
        _add(tally, "fault: none", site, _first(site))
        while time.monotonic() < end:
            names = chance.sample(sorted(faults_of(site)), k=3)
            name = min(names, key=lambda one: tally.counts[f"fault: {one}"].done)
            if faketime and site.chance.random() < 0.5:
                name = CLOCK
            _add(tally, f"fault: {name}", site, _round(site, name))
        last = site.close()
        tally.add(_ENDS, Count(done=1, found=last.found, lost=last.lost, doubled=last.doubled))
        if not last.clean:
            _keep(tally, _ENDS, site, last)
    database = "PostgreSQL" if postgresql else "SQLite"
    sys.stderr.write(
        f"{database}: {len(site.accepted)} accepted, {site.undecided} undecided, refused: {site.refused or 'none'}\n"
    )


def _first(site: Site) -> Count:
    """A round without a fault: what follows is due to faults. The start is not measured."""
    site.upload(2)
    count = site.settle()
    count.slowest_s, count.found = 0.0, 0
    return count


def _round(site: Site, name: str) -> Count:
    try:
        with faults_of(site)[name](site):
            site.upload(site.chance.randrange(3))
    except Exception:  # noqa: BLE001 - a round that cannot go on is found, and the next one begins
        sys.stderr.write(f"{name}: {traceback.format_exc()}\n")
        count = site.settle()
        count.found += 1
        return count
    return site.settle()


def _add(tally: Tally, kind: str, site: Site, count: Count) -> None:
    tally.add(kind, count)
    if not count.clean:
        _keep(tally, kind, site, count)
        site.forgive()


def _telling(log: str) -> str:
    """Return the end of a log, and what surrounds its first traceback, which may lie rounds before.

    Without the requests: the harness itself made them, ten a second while it waited.
    """
    log = "".join(line for line in log.splitlines(keepends=True) if " hemoscope.access: " not in line)
    place = log.find("Traceback")
    return ("" if place < 0 else log[max(place - 2000, 0) : place + 10000] + "\n...\n") + log[-20000:]


def _keep(tally: Tally, kind: str, site: Site, count: Count) -> None:
    logs = "\n".join(_telling(server.log.read_text(errors="replace")) for server in site.servers)
    kept = tally.keep(kind, f"{time.time_ns()}.log", logs.encode())
    sys.stderr.write(f"{kind}: {count}, see {kept}\n")
