"""``hemoscope federated keys``, ``sign``, ``server``, ``site`` and ``run``: a federation of real hospitals."""

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
    from hemoscope.federated.deployment.runs import ControlClient, RunStatus
    from hemoscope.federated.settings.federation import Federation

PORT = 9092
_KEPT = "The finished rounds are kept: repeat the command with --resume"


def register_keys(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``keys``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder; nothing is ever overwritten")
    parser.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="NAME_OR_IP",
        help="by which sites reach it; may be repeated",
    )
    parser.add_argument("--sites", required=True, metavar="NAME,NAME,...", help="small letters, digits and hyphens")
    parser.set_defaults(run=run_keys)


def register_sign(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sign``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of `keys`, with its authority folder in it")
    parser.set_defaults(run=run_sign)


def register_server(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``server``."""
    parser.add_argument("--keys", type=Path, required=True, metavar="FOLDER", help="the server's folder of keys")
    parser.add_argument("--folder", type=Path, required=True, metavar="STATE", help="keeps the database and the jobs")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 for all (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    parser.set_defaults(run=run_server)


def register_site(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``site``."""
    parser.add_argument("site", type=Path, metavar="SITE.toml")
    parser.add_argument("--keys", type=Path, required=True, metavar="FOLDER", help="this site's folder of keys")
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.set_defaults(run=run_site)


def register_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.add_argument("federation", type=Path, metavar="FEDERATION", help="a TOML file, or a shipped one's name")
    parser.add_argument("--server", type=Path, required=True, metavar="STATE", help="the folder of the running server")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, as rounds=2")
    parser.add_argument("--part", help="split, final, fold-0, ... (default: all of the experiment, one by one)")
    parser.add_argument("--resume", action="store_true", help="go on after the last round that was finished")
    parser.set_defaults(run=run_run)


def run_keys(arguments: argparse.Namespace) -> int:
    """Make the keys and say where each folder goes."""
    from hemoscope.federated.deployment.authority import make_keys

    sites = [name.strip() for name in arguments.sites.split(",") if name.strip()]
    make_keys(arguments.folder, servers=arguments.server, sites=sites)
    print(f"{arguments.folder}/server goes to the server.")
    print(f"{arguments.folder}/authority: keep offline, and never on the server. It signs what runs at the sites.")
    for name in sites:
        print(
            f"{arguments.folder}/sites/{name} goes to {name} alone, by a way fit for a password; then delete it here."
        )
    return ExitCode.OK


def run_sign(arguments: argparse.Namespace) -> int:
    """Sign the installed hemoscope's app and say where the signature goes."""
    from hemoscope.federated.deployment.authority import sign_again

    print(f"{sign_again(arguments.folder)}: copy it into the server's folder of keys, and start the server again.")
    return ExitCode.OK


def run_server(arguments: argparse.Namespace) -> int:
    """Check the keys, then become the server's supervisor: its environment is set from its first instruction on."""
    from hemoscope.federated.deployment.keys import read_server_keys
    from hemoscope.federated.deployment.processes import JOBS_VARIABLE, become, flower_environment

    read_server_keys(arguments.keys)
    state = arguments.folder.absolute()
    # Flower would write a line for every question that ``run`` asks, one a second.
    chosen = {JOBS_VARIABLE: str(state / "jobs"), "FLWR_LOG_LEVEL": "WARNING"}
    environment = flower_environment(state / "flower") | chosen
    command = [sys.executable, "-P", "-m", "hemoscope.federated.deployment.server_processes"]
    command += ["--keys", str(arguments.keys.absolute()), "--folder", str(state)]
    command += ["--host", arguments.host, "--port", str(arguments.port)]
    become(command, environment)


def run_site(arguments: argparse.Namespace) -> int:
    """Check the site's file, data and keys, then become the supervisor of Flower's SuperNode and its executor."""
    from hemoscope.federated.deployment.keys import read_site_keys
    from hemoscope.federated.deployment.processes import become, flower_environment
    from hemoscope.federated.deployment.supernode import supernode_command
    from hemoscope.federated.settings.site import read_site

    site = read_site(arguments.site)
    patients = site.cache().manifest["patient_id"].nunique()
    command = supernode_command(arguments.site, read_site_keys(arguments.keys), server=arguments.server)
    site.work.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"{site.name}: {patients:,} patients stay here; connecting to {arguments.server}\n")
    module = [sys.executable, "-P", "-m", "hemoscope.federated.deployment.supernode"]
    kept = [*module, "--status", str(site.work.absolute()), *command]
    become(kept, flower_environment(site.work / "flower"))


def run_run(arguments: argparse.Namespace) -> int:
    """Start each part, follow it, and end with its status."""
    from hemoscope.cli.progress import progress_bar
    from hemoscope.federated.deployment.processes import flower_environment
    from hemoscope.federated.settings.federation import read_federation

    federation = read_federation(arguments.federation, arguments.set)
    parts = _asked_parts(federation, arguments.part)
    # Before Flower is imported: it reads its switches then.
    os.environ.update(flower_environment(arguments.server / "flower"))
    from hemoscope.federated.deployment.runs import ControlClient, read_state, write_job

    state = read_state(arguments.server)
    for part in parts:
        job = {
            "federation": federation.to_local_json(),
            "part": part,
            "output": str(arguments.output.absolute()),
            "sites": state.sites,
            "resume": arguments.resume,
        }
        with ControlClient(state=state) as client, progress_bar() as show:
            run = client.start(write_job(state.folder, job))
            sys.stderr.write(f"{part}: started; {client.online()} of {state.sites} sites are connected\n")
            show("rounds", 0, federation.rounds)
            status = _follow(client, run, arguments.output / part, federation.rounds, show)
        if not status.completed:
            sys.stderr.write(f"{part}: {status.sub_status}: {status.details or 'the log of the server says why'}\n")
            sys.stderr.write(f"{_KEPT}\n")
            return ExitCode.FAILED
        print(f"{part}: completed; {arguments.output / part}")
    print(f"finished: {arguments.output}. Next: hemoscope federated export {arguments.output} --output BUNDLE")
    return ExitCode.OK


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


def _follow(client: "ControlClient", run: int, folder: Path, total: int, show: StageProgress) -> "RunStatus":
    from hemoscope.federated.deployment.runs import RunStatus, follow

    # Whoever ends this command ends the run: it would go on at the sites, beside the next.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for event in follow(client, run, folder / "rounds.jsonl"):
            if isinstance(event, RunStatus):
                status = event
            else:
                sys.stderr.write(round_line(folder.name, event, total) + "\n")
                show("rounds", int(event.get("number", 0)), total)
    except KeyboardInterrupt:
        client.stop(run)
        raise
    except FederationError as error:
        raise FederationError(f"{error}. {_KEPT}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    return status
