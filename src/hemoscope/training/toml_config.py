"""Reads TOML into frozen dataclasses; unknown keys are errors. No heavy imports: sites read their file per message."""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import Preprocessing

Record = TypeVar("Record")

# What the package ships: experiments, and federations, which name one of them.
SHIPPED = Path(__file__).parents[1] / "experiments"


def shipped(kind: str) -> dict[str, str]:
    """The files that the package ships, by name, with their descriptions; ``kind`` is experiment or federation."""
    found = {path.stem: tomllib.loads(path.read_text()) for path in sorted(SHIPPED.glob("*.toml"))}
    federations = {name for name, data in found.items() if "experiment" in data}
    chosen = federations if kind == "federation" else found.keys() - federations
    return {name: str(data.get("description", "")) for name, data in found.items() if name in chosen}


def find_file(named: Path, *, folder: Path = Path()) -> Path:
    """The file that was named: a path from ``folder``, or the bare name of a shipped file, such as ``paper``.

    A file of that very name wins over a shipped one. If there is neither, the path comes back for ``read_tables`` to
    refuse.
    """
    path = folder / named
    bare = named.name == str(named) and not named.suffix
    own = SHIPPED / f"{named}.toml"
    return own if bare and _is_file(own) and not path.exists() else path


def read_tables(path: Path, changes: Sequence[str] = (), *, kind: str = "experiment") -> dict[str, Any]:
    """Read the tables of a TOML file and apply changes; ``kind`` names the kind of file in errors.

    Raises:
        ConfigError: the file is missing or not TOML, or a change is malformed.
    """
    if not _is_file(path):
        names = ", ".join(shipped(kind)) if kind in ("experiment", "federation") else ""
        shipping = f", or the name of one that ships: {names}" if names else ""
        msg = f"{path.name}: no such {kind} file. Give its path{shipping}"
        raise ConfigError(msg)
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # invalid TOML, bytes that are not text, deep nesting
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{path.name}: not a readable {kind} file ({reason})"
        raise ConfigError(msg) from error
    for change in changes:
        _apply(data, change)
    return data


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a name that is too long for one names none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        msg = f"--set needs key=value, got {change!r}"
        raise ConfigError(msg)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    set_key(data, key.strip(), value, where=f"--set {change}")


def set_key(data: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set ``section.key`` in plain tables. Raises ConfigError if a section is not a table."""
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            msg = f"{where}: {section} is not a table"
            raise ConfigError(msg)
    data[name] = value


def build_record(kind: type[Record], data: Mapping[str, Any], *, where: str) -> Record:
    """Build a dataclass of dataclasses from plain values; ``where`` starts every error message.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or range.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        msg = f"{where} must be a table, got {data!r}"
        raise ConfigError(msg)
    unknown = sorted(set(data) - set(fields))
    if unknown:
        msg = f"{where}: unknown key {', '.join(unknown)}. Known here: {', '.join(fields)}"
        raise ConfigError(msg)
    hints = typing.get_type_hints(kind)
    try:
        if kind is Preprocessing:
            return typing.cast("Record", Preprocessing.from_json({**Preprocessing().to_json(), **data}))
        return kind(**{name: _value(hints[name], value, where=f"{where}: {name}") for name, value in data.items()})
    except (TypeError, ValueError, OverflowError) as error:  # an integer may be too large for a float
        msg = f"{where}: {error}"
        raise ConfigError(msg) from error


def _value(hint: Any, value: Any, *, where: str) -> Any:
    """Convert a plain value to its field's type; with several types, to the first that fits."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for kind in kinds:
        if _fits(kind, value):
            return _converted(kind, value, where=where)
    msg = f"{where} must be {' or '.join(_named(kind) for kind in kinds if kind is not type(None))}, got {value!r}"
    raise ConfigError(msg)


def _fits(kind: Any, value: Any) -> bool:
    if dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping)
    origin = typing.get_origin(kind)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if kind is Path:
        return isinstance(value, str)
    if origin is typing.Literal:  # the record itself checks its literals
        return isinstance(value, str)
    return type(value) is kind or (kind is float and type(value) is int)


def _converted(kind: Any, value: Any, *, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build_record(typing.cast("type[Any]", kind), value, where=where)
    if typing.get_origin(kind) is tuple:
        return tuple(_value(typing.get_args(kind)[0], item, where=where) for item in value)
    return kind(value) if kind in (float, Path) else value


def _named(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return "a table"
    if typing.get_origin(kind) is tuple:
        return "a list"
    if kind is Path:
        return "a path"
    return "a word" if typing.get_origin(kind) is typing.Literal else str(kind.__name__)
