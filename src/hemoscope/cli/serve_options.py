"""The settings of ``hemoscope serve``: each is an option, an environment variable and a key of a TOML file.

The command line takes precedence, then the environment (``HEMOSCOPE_`` and the option's name in capitals),
then the file of ``--config``, then the default.
"""

import argparse
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemoscope.errors import ConfigError

_PREFIX = "HEMOSCOPE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting; ``read`` turns text into its value, ``many`` gathers a tuple of them, ``flag`` takes no value."""

    name: str
    help: str
    read: Callable[[str], Any] = str
    metavar: str = ""
    default: Any = None
    many: bool = False
    flag: bool = False

    @property
    def option(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As in the environment."""
        return _PREFIX + self.name.upper()


def whole(text: str) -> int:
    """A whole number; ConfigError's words are added by whoever knows the option."""
    return int(text, 10)


def data_folder() -> Path:
    """Where a user's studies lie by default: ``$XDG_DATA_HOME/hemoscope``, else ``~/.local/share/hemoscope``."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "hemoscope"


OPTIONS: tuple[Option, ...] = (
    Option(name="host", metavar="ADDRESS", default="127.0.0.1", help="listen on this address (default: 127.0.0.1)"),
    Option(name="port", metavar="N", read=whole, default=8000, help="listen on this port (default: 8000; 0: any)"),
    Option(name="storage", metavar="DIR", read=Path, help="private folder for pixels (default: your data folder)"),
    Option(
        name="database",
        metavar="URL",
        help="sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME (default: SQLite in the storage folder)",
    ),
    Option(name="model", metavar="BUNDLE", read=Path, help="a model's folder (default: the one that ships)"),
    Option(name="workers", metavar="N", read=whole, default=1, help="processes that read studies (default: 1)"),
    Option(name="threads", metavar="N", read=whole, help="processors that each worker uses (default: all)"),
    Option(name="worker_memory_mib", metavar="N", read=whole, help="the most memory that a worker may take"),
    Option(name="time_limit_minutes", metavar="N", read=whole, default=15, help="of one upload (default: 15)"),
    Option(name="users", metavar="FILE", read=Path, help="users who may log in; created by: hemoscope users add"),
    Option(name="token_file", metavar="FILE", read=Path, help="tokens of programs; created by: hemoscope users token"),
    Option(name="session_hours", metavar="N", read=float, default=12.0, help="how long a login lasts (default: 12)"),
    Option(name="tls_cert", metavar="FILE", read=Path, help="certificate with its chain, PEM"),
    Option(name="tls_key", metavar="FILE", read=Path, help="its key, PEM"),
    Option(
        name="allowed_host", metavar="NAME", many=True, default=(), help="a name that browsers may use; may be repeated"
    ),
    Option(
        name="trusted_proxy",
        metavar="ADDRESS",
        many=True,
        default=(),
        help="a proxy whose X-Forwarded headers count; may be repeated",
    ),
    Option(name="retention_days", metavar="N", read=whole, help="delete studies after this time (default: never)"),
    Option(name="deidentify", flag=True, default=False, help="keep de-identified copies alone"),
    Option(name="keep_source", flag=True, default=False, help="keep the uploaded files after they are read"),
    Option(name="show_identity", flag=True, default=False, help="store and show patient name and ID"),
    Option(name="prevalence", metavar="P", read=float, help="share of studies with a bleed here, such as 0.1"),
    Option(name="upload_mib", metavar="N", read=whole, default=4096, help="size of one upload (default: 4096)"),
    Option(name="upload_files", metavar="N", read=whole, default=20_000, help="files in one upload (default: 20000)"),
    Option(name="requests_per_minute", metavar="N", read=whole, default=6000, help="of one client (default: 6000)"),
    Option(name="logins_per_minute", metavar="N", read=whole, default=10, help="of one client (default: 10)"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option, and ``--config``; an option that is not given is absent from the parsed arguments."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file with the options below as keys, such as retention_days"
    )
    for one in OPTIONS:
        if one.flag:
            parser.add_argument(one.option, action="store_true", default=argparse.SUPPRESS, help=one.help)
            continue
        action = "append" if one.many else "store"
        parser.add_argument(one.option, action=action, metavar=one.metavar, default=argparse.SUPPRESS, help=one.help)


def gather(arguments: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every option by name.

    Raises:
        ConfigError: a value cannot be read, or the file is missing, no TOML, or holds a key that is no option.

    """
    file = _file(arguments.config) if arguments.config is not None else {}
    values = {}
    for one in OPTIONS:
        if hasattr(arguments, one.name):
            values[one.name] = _read(one, getattr(arguments, one.name), one.option)
        elif one.variable in environment:
            values[one.name] = _from_text(one, environment[one.variable])
        elif one.name in file:
            values[one.name] = _read(one, file[one.name], f"{one.name} in {arguments.config.name}")
        else:
            values[one.name] = one.default
    return values


def _from_text(one: Option, text: str) -> Any:
    """A variable: several values are separated by commas, a flag is 1, true, 0 or false."""
    if one.flag:
        if text.lower() not in {"1", "true", "0", "false", ""}:
            msg = f"{one.variable} is 1 or 0, got {text!r}"
            raise ConfigError(msg)
        return text.lower() in {"1", "true"}
    return _read(one, [part.strip() for part in text.split(",") if part.strip()] if one.many else text, one.variable)


def _read(one: Option, value: Any, where: str) -> Any:
    """Turn an option's text or a TOML value into what the option holds."""
    if one.flag:
        if not isinstance(value, bool):
            msg = f"{where} is true or false, got {value!r}"
            raise ConfigError(msg)
        return value
    if one.many:
        if not isinstance(value, list):
            msg = f"{where} is a list of texts, got {value!r}"
            raise ConfigError(msg)
        return tuple(str(part) for part in value)
    if isinstance(value, bool | list | dict):
        msg = f"{where} is one value, got {value!r}"
        raise ConfigError(msg)
    try:
        return one.read(str(value))
    except ValueError as error:
        kind = "a whole number" if one.read is whole else "a number"

        msg = f"{where} is {kind}, got {value!r}"
        raise ConfigError(msg) from error


def _file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        msg = f"cannot read {path.name}: {error.strerror}. Give a TOML file with --config"
        raise ConfigError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path.name} is no TOML: {error}. Write it as: port = 8000"
        raise ConfigError(msg) from error
    known = {one.name for one in OPTIONS}
    if unknown := sorted(set(content) - known):
        msg = f"{path.name} has unknown keys: {', '.join(unknown)}. Known are: {', '.join(sorted(known))}"
        raise ConfigError(msg)
    return content
