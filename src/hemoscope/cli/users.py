"""``hemoscope users``: manages users and tokens of the reading room. Passwords are prompted for, never arguments."""

import argparse
import sys
from getpass import getpass
from pathlib import Path

from hemoscope.cli.exit_codes import ExitCode
from hemoscope.errors import ConfigError

_ROLES = ("reader", "admin")


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own subcommands."""
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    add = kinds.add_parser("add", help="add a user, or give one a new password or role")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--users", type=Path, required=True, metavar="FILE", help="the file that serve --users reads")
    add.add_argument("--role", choices=_ROLES, default="reader", help="default: reader; an admin may also delete")
    add.set_defaults(run=run_add)
    token = kinds.add_parser("token", help="make a token for a program, and print it once")
    token.add_argument("name", metavar="NAME")
    token.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="the file of serve --token-file")
    token.add_argument("--role", choices=_ROLES, default="reader", help="default: reader")
    token.set_defaults(run=run_token)
    remove = kinds.add_parser(
        "remove", help="remove a user or a token; it counts when the server reloads (SIGHUP) or starts"
    )
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--users", type=Path, metavar="FILE", help="the file of users")
    remove.add_argument("--token-file", type=Path, metavar="FILE", help="the file of tokens")
    remove.set_defaults(run=run_remove)


def run_add(arguments: argparse.Namespace) -> int:
    """Ask for the password (twice at a terminal, one line from a pipe) and write the entry."""
    from hemoscope.store.users import check_password, hash_password
    from hemoscope.store.values import Role
    from hemoscope.web.credentials import write_entry

    password = _ask()
    check_password(password)
    write_entry(arguments.users, arguments.name, Role(arguments.role), hash_password(password))
    sys.stdout.write(
        f"{arguments.name} may log in as {arguments.role} when the server has reloaded (SIGHUP) or restarted\n"
    )
    return ExitCode.OK


def run_token(arguments: argparse.Namespace) -> int:
    """Make a token, keep its hash, print the token alone on stdout."""
    import secrets

    from hemoscope.store.values import Role
    from hemoscope.web.credentials import hash_token, write_entry

    token = secrets.token_urlsafe(32)
    write_entry(arguments.token_file, arguments.name, Role(arguments.role), hash_token(token))
    sys.stdout.write(f"{token}\n")
    sys.stderr.write(
        "Keep it safe: it is shown this once. It counts when the server has reloaded (SIGHUP) or restarted\n"
    )
    return ExitCode.OK


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove a name from the files that are given."""
    from hemoscope.web.credentials import remove_entry

    files = [file for file in (arguments.users, arguments.token_file) if file is not None]
    if not files:
        msg = "from which file? Give --users FILE or --token-file FILE"
        raise ConfigError(msg)
    for file in files:
        remove_entry(file, arguments.name)
    sys.stdout.write(f"{arguments.name} is removed when the server has reloaded (SIGHUP) or restarted\n")
    return ExitCode.OK


def _ask() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    from hemoscope.store.users import SHORTEST_PASSWORD

    password = getpass(f"Password ({SHORTEST_PASSWORD} characters or more): ")
    if getpass("Again: ") != password:
        msg = "the two passwords differ. Try again"
        raise ConfigError(msg)
    return password
