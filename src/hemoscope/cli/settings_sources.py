"""Where the settings of ``hemoscope serve`` come from: the command line, the environment, a TOML file, the defaults.

Each option of ``store.settings.Settings`` is looked for in this order: on the command line, in the environment
(``HEMOSCOPE_`` and the name in capitals), in the file of ``--config``, else its default counts.
"""

import argparse
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hemoscope.errors import ConfigError
from hemoscope.store.settings import Settings, option_name

_PREFIX = "HEMOSCOPE_"
_KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting as users give it: ``read`` turns text into its value, ``many`` collects several, ``flag`` has none.

    Attributes:
        name: of the field of ``Settings``.
        help: one line, with the default.
        metavar: of the value in the help.
        read: the type of a single value.
    """

    name: str
    help: str
    metavar: str
    read: Callable[[str], Any]
    many: bool
    flag: bool

    @property
    def option(self) -> str:
        """As on the command line."""
        return option_name(self.name)

    @property
    def variable(self) -> str:
        """As in the environment."""
        return _PREFIX + self.name.upper()


def options() -> tuple[Option, ...]:
    """Every setting that users may give, in the order of ``Settings``."""
    types = get_type_hints(Settings)
    return tuple(_option(one, types[one.name]) for one in fields(Settings) if "help" in one.metadata)


def _option(one: "Field[Any]", annotation: Any) -> Option:
    """Describe a field; its type without None is what its text is read as."""
    return Option(
        name=one.name,
        help=one.metadata["help"] + _default_text(one.default),
        metavar=one.metadata["metavar"],
        read=next(kind for kind in (*get_args(annotation), annotation) if kind is not type(None)),
        many=get_origin(annotation) is tuple,
        flag=annotation is bool,
    )


def _default_text(default: Any) -> str:
    if default is None or isinstance(default, bool | tuple):
        return ""
    return f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"


def add_options(parser: argparse.ArgumentParser, *, names: Collection[str] = ()) -> None:
    """Add every option, or those named, and ``--config``; what is not given is missing from the parsed arguments."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file with the options below as keys, such as retention_days"
    )
    for one in options():
        if names and one.name not in names:
            continue
        if one.flag:
            parser.add_argument(one.option, action="store_true", default=argparse.SUPPRESS, help=one.help)
            continue
        action = "append" if one.many else "store"
        parser.add_argument(one.option, action=action, metavar=one.metavar, default=argparse.SUPPRESS, help=one.help)


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Read every option from where it was given.

    Raises:
        ConfigError: a value cannot be read or is out of range, or the file is missing, not TOML, or has an unknown key.
    """
    file = _file(arguments.config) if arguments.config is not None else {}
    values = {}
    for one in options():
        if hasattr(arguments, one.name):
            values[one.name] = _read(one, getattr(arguments, one.name), one.option)
        elif one.variable in environment:
            values[one.name] = _from_text(one, environment[one.variable])
        elif one.name in file:
            values[one.name] = _read(one, file[one.name], f"{one.name} in {arguments.config.name}")
    return Settings(**values)


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
        msg = f"{where} is {_KINDS.get(one.read, 'a text')}, got {value!r}"
        raise ConfigError(msg) from error


def _file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        msg = f"cannot read {path.name}: {error.strerror}. Give a TOML file with --config"
        raise ConfigError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path.name} is not TOML: {error}. Write it as: port = 8000"
        raise ConfigError(msg) from error
    known = {one.name for one in options()}
    if unknown := sorted(set(content) - known):
        msg = f"{path.name} has unknown keys: {', '.join(unknown)}. Known are: {', '.join(sorted(known))}"
        raise ConfigError(msg)
    return content
