"""``hemoscope federated keys``, ``sign``, ``server`` and ``site``: a federation of real hospitals."""

import argparse
import sys
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode

PORT = 9092


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
    from hemoscope.evaluation.flow import counted
    from hemoscope.federated.deployment.keys import read_site_keys
    from hemoscope.federated.deployment.processes import become, flower_environment
    from hemoscope.federated.deployment.supernode import supernode_command
    from hemoscope.federated.settings.site import read_site

    site = read_site(arguments.site)
    patients = site.cache().manifest["patient_id"].nunique()
    command = supernode_command(arguments.site, read_site_keys(arguments.keys), server=arguments.server)
    site.work.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"{site.name}: {counted(patients, 'patients')} stay here; connecting to {arguments.server}\n")
    module = [sys.executable, "-P", "-m", "hemoscope.federated.deployment.supernode"]
    kept = [*module, "--status", str(site.work.absolute()), *command]
    become(kept, flower_environment(site.work / "flower"))
