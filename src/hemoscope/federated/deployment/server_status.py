"""What a server or a site waits for, and which of its programs are not well: sentences for people."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hemoscope.errors import FederationError
from hemoscope.evaluation.flow import counted
from hemoscope.federated.deployment.run_progress import RunProgress, read_progress
from hemoscope.federated.deployment.runs import ConnectedSite, ControlClient, RunStatus, ServerAwayError, read_state
from hemoscope.federated.deployment.supervisor import PROCESSES
from hemoscope.federated.settings.names import WAITING_FOR_SITES


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is waited for, in a sentence."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Lines about a server or a site, and whether all is well."""

    lines: tuple[str, ...]
    well: bool


def waiting_for(client: ControlClient, status: RunStatus, job: str) -> Waiting:
    """What a run waits for. Raises ServerAwayError where the server is away."""
    progress = read_progress(client.state.jobs, job)
    if status.over:
        return Waiting(text=f"the run is {status.sub_status}")
    if progress is None:
        return Waiting(text=f"the run is {status.status}: waiting for the server's application to begin")
    return Waiting(text=_progress_line(progress, client.sites()))


def server_report(folder: Path) -> Report:
    """A server's programs, its sites, and its last run. Raises FederationError where the folder is no server's."""
    state = read_state(folder)
    programs = programs_report(folder)
    try:
        with ControlClient(state=state) as client:
            sites, run = client.sites(), client.latest()
            waiting = None if run is None or run.status.over else waiting_for(client, run.status, run.job)
    except ServerAwayError as error:
        return Report(lines=(*programs.lines, str(error)), well=False)
    here = sum(site.online for site in sites)
    lines = [*programs.lines, f"sites: {here} of {len(sites)} connected", *map(_site_line, sites)]
    if run is not None:
        said = run.status.sub_status if run.status.over else run.status.status
        lines.append(f"last run: {said}" + (f"; {run.status.details}" if run.status.details else ""))
    if waiting is not None:
        lines.append(waiting.text)
    return Report(lines=tuple(lines), well=programs.well)


def programs_report(folder: Path) -> Report:
    """The programs that a supervisor keeps alive, by its ``processes.json``.

    Raises:
        FederationError: no supervisor was started with this folder, or it has ended.
    """
    try:
        described = json.loads((folder / PROCESSES).read_text())
    except FileNotFoundError as error:
        msg = (
            f"no server or site runs with the folder {folder.name}. Start it: hemoscope federated server, "
            "or hemoscope federated site"
        )
        raise FederationError(msg) from error
    if not _alive(described["supervisor"]):
        msg = f"the server or site of {folder.name} was killed. Start it again"
        raise FederationError(msg)
    programs: list[dict[str, Any]] = described["programs"]
    return Report(lines=tuple(map(_program_line, programs)), well=all(one["pid"] is not None for one in programs))


def _program_line(one: dict[str, Any]) -> str:
    since = datetime.fromtimestamp(one["since"], tz=UTC).isoformat(timespec="seconds")
    state = "not running" if one["pid"] is None else "running"
    again = "" if not one["restarts"] else f", started again {counted(one['restarts'], 'times')}"
    last = "" if not one["last_end"] else f"; the last one {one['last_end']}"
    return f"{one['name']}: {state} since {since}{again}{last}"


def _site_line(site: ConnectedSite) -> str:
    if not site.since:
        return f"  {site.name}: was never connected"
    return f"  {site.name}: {'connected' if site.online else 'away'} since {site.since}"


def _progress_line(progress: RunProgress, sites: Sequence[ConnectedSite]) -> str:
    seconds = f"for {max(0.0, time.time() - progress.since):.0f} s"
    unit = "connected" if progress.stage == WAITING_FOR_SITES else "done"
    stage = progress.stage + (f" ({progress.done} of {progress.total} {unit})" if progress.total else "")
    if progress.waiting:
        names = {site.node: site.name for site in sites}
        away = {site.node for site in sites if not site.online}
        said = [
            names.get(node, "a site that was removed") + (" (away)" if node in away else "")
            for node in progress.waiting
        ]
        return f"{stage}: waiting {seconds} for the reply of {', '.join(sorted(said))}"
    missing = [site.name for site in sites if not site.online]
    absent = f"; not connected: {', '.join(missing)}" if missing else ""
    return f"{stage}, {seconds}{absent}"


def _alive(pid: int) -> bool:
    with suppress(PermissionError):  # it lives, and is somebody else's
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
