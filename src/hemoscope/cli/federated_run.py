"""``hemoscope federated run`` and ``status``: a run over the connected sites, and what it waits for."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.federated_rounds import round_line
from hemoscope.errors import ConfigError, FederationError
from hemoscope.progress import StageProgress

if TYPE_CHECKING:
    from hemoscope.federated.deployment.following import PartTraining, Started
    from hemoscope.federated.deployment.runs import RunStatus
    from hemoscope.federated.settings.federation import Federation

_KEPT = "The finished rounds are kept: repeat the command with --resume"


def register_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.add_argument("federation", type=Path, metavar="FEDERATION", help="a TOML file, or a shipped one's name")
    parser.add_argument("--server", type=Path, required=True, metavar="STATE", help="the folder of the running server")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as rounds=2")
    parser.add_argument("--part", help="split, final, fold-0, ... (default: all of the experiment, one by one)")
    parser.add_argument("--resume", action="store_true", help="go on after the last round that was finished")
    parser.set_defaults(run=run_run)


def register_status(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``status``."""
    parser.add_argument(
        "folder", type=Path, metavar="STATE", help="the folder of a server, or the work folder of a site"
    )
    parser.set_defaults(run=run_status)


def run_run(arguments: argparse.Namespace) -> int:
    """Start each part, follow it, and end with its status."""
    from hemoscope.cli.progress import progress_bar
    from hemoscope.federated.deployment.processes import flower_environment
    from hemoscope.federated.settings.federation import read_federation

    federation = read_federation(arguments.federation, arguments.set)
    parts = _asked_parts(federation, arguments.part)
    # Before Flower is imported: it reads its switches then.
    os.environ.update(flower_environment(arguments.server / "flower"))
    from hemoscope.federated.deployment.following import PartTraining
    from hemoscope.federated.deployment.runs import ControlClient, read_state

    state = read_state(arguments.server)
    for part in parts:
        job = {
            "federation": federation.to_local_json(),
            "part": part,
            "output": str(arguments.output.absolute()),
            "sites": state.sites,
            "resume": arguments.resume,
        }
        rounds = arguments.output / part / "rounds.jsonl"
        with ControlClient(state=state) as client, progress_bar() as show:
            training = PartTraining(client=client, job=job, rounds=rounds)
            status = _follow(training, part, federation.rounds, show)
        if not status.completed:
            sys.stderr.write(f"{part}: {status.sub_status}: {status.details or 'the log of the server says why'}\n")
            sys.stderr.write(f"{_KEPT}\n")
            return ExitCode.FAILED
        print(f"{part}: completed; {arguments.output / part}")
    print(f"finished: {arguments.output}. Next: hemoscope federated export {arguments.output} --output BUNDLE")
    return ExitCode.OK


def run_status(arguments: argparse.Namespace) -> int:
    """Print what runs, who is connected and what is waited for; an error where a program is not well."""
    from hemoscope.federated.deployment.server_status import programs_report, server_report

    is_server = (arguments.folder / "server.json").is_file()
    report = (server_report if is_server else programs_report)(arguments.folder)
    print("\n".join(report.lines))
    return ExitCode.OK if report.well else ExitCode.FAILED


def part_names(federation: "Federation") -> list[str]:
    """The parts of the experiment, as ``training.data_splits`` names them."""
    run = federation.experiment.run
    return [*(f"fold-{fold}" for fold in range(run.folds)), "final"] if run.split == "folds" else ["split"]


def _asked_parts(federation: "Federation", part: str | None) -> list[str]:
    """All parts, or the one that was asked for. Raises ConfigError before a site is asked to train what is none."""
    there = part_names(federation)
    if part is not None and part not in there:
        msg = f"no such part: {part}. This experiment has {', '.join(there)}"
        raise ConfigError(msg)
    return there if part is None else [part]


def _follow(training: "PartTraining", part: str, total: int, show: StageProgress) -> "RunStatus":
    # Whoever ends this command ends the run: it would go on at the sites, beside the next.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _report(training, part, total, show)
    except KeyboardInterrupt:
        training.stop()
        raise
    except FederationError as error:
        raise FederationError(f"{error}. {_KEPT}") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(training: "PartTraining", part: str, total: int, show: StageProgress) -> "RunStatus":
    """Say each event in a line; the status that ended the part."""
    from hemoscope.federated.deployment.following import Started
    from hemoscope.federated.deployment.runs import RunStatus
    from hemoscope.federated.deployment.server_status import Waiting

    show("rounds", 0, total)
    for event in training.events():
        if isinstance(event, RunStatus):
            return event
        if isinstance(event, Waiting):
            line = f"{part}: {event.text}" if not event.text.startswith(part) else event.text
        elif isinstance(event, Started):
            line = _started_line(training, part, event)
        else:
            line = round_line(part, event, total)
            if not event.get("void"):
                show("rounds", int(event.get("number", 0)), total)
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    msg = "the run has no end"  # the last event is always a status
    raise FederationError(msg)


def _started_line(training: "PartTraining", part: str, event: "Started") -> str:
    if event.again:
        because = event.details or "no reason given"
        return f"{part}: the server's application ended ({because}); started again after the last finished round"
    return f"{part}: started; {event.online} of {training.client.state.sites} sites are connected"
