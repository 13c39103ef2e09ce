"""Reads the TOML file of the network node, and checks it."""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints
from urllib.parse import urlsplit

from hemoscope.errors import ConfigError
from hemoscope.inference.findings import URGENCIES
from hemoscope.labels import LABELS
from hemoscope.store.node_settings import (
    IGNORE,
    OUTPUTS,
    READ,
    WEBHOOK,
    Destination,
    Node,
    NodeSettings,
    Peer,
    ResultOptions,
    Rule,
    SiteCode,
    Tls,
    Webhook,
)
from hemoscope.store.settings import Settings, is_loopback

_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
T = TypeVar("T")
_MOST_PORT, _MOST_DAYS = 65535, 3650
_MOST_HOLD_S = 3600
_LEAST = {
    "port": 0,
    "quiet_seconds": 0.1,
    "late_minutes": 0,
    "most_associations": 1,
    "most_image_mib": 1,
    "most_receiving_mib": 1,
    "idle_seconds": 1,
    "negotiation_seconds": 1,
}


def read_node_settings(path: Path) -> NodeSettings:
    """Read the file.

    Raises:
        ConfigError: it cannot be read, or a key is unknown, missing, of the wrong type or out of range; the message
            names the file and the key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        msg = f"{path.name} cannot be read: {cause}. Give a TOML file"
        raise ConfigError(msg) from error
    return _settings(document, path)


def sending_node(settings: Settings) -> NodeSettings | None:
    """Return the node of a site that sends anything, None without ``--node``, destination and webhook.

    Raises:
        ConfigError: as ``read_node_settings``, or there are destinations, and ``--deidentify``.
    """
    node = None if settings.node is None else read_node_settings(settings.node)
    if node is None or not (node.destinations or node.webhook):
        return None
    if settings.deidentify and node.destinations:
        msg = "--deidentify forbids to send results: they carry identity. Remove [[destination]], or --deidentify"
        raise ConfigError(msg)
    return node


def destination_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the destinations in the file of ``--node``. Raises ConfigError as ``read_node_settings``."""
    return () if settings.node is None else tuple(one.name for one in read_node_settings(settings.node).destinations)


def _settings(document: Mapping[str, Any], path: Path) -> NodeSettings:
    known = {"node", "peer", "tls", "rule", "destination", "results", "code", "webhook"}
    if unknown := sorted(set(document) - known):
        msg = f"{path.name}: no such table: {', '.join(unknown)}. Tables are: {', '.join(sorted(known))}"
        raise ConfigError(msg)
    tls, webhook = document.get("tls"), document.get("webhook")
    settings = NodeSettings(
        node=_table(Node, document.get("node", {}), f"{path.name}, node"),
        peers=_tables(Peer, document, "peer", path),
        tls=None if tls is None else _table(Tls, tls, f"{path.name}, tls", folder=path.parent),
        rules=_tables(Rule, document, "rule", path),
        destinations=_tables(Destination, document, "destination", path),
        results=_table(ResultOptions, document.get("results", {}), f"{path.name}, results"),
        codes=_tables(SiteCode, document, "code", path),
        webhook=None if webhook is None else _table(Webhook, webhook, f"{path.name}, webhook", folder=path.parent),
    )
    _check(settings, path.name)
    return settings


def _tables(kind: type[T], document: Mapping[str, Any], name: str, path: Path) -> tuple[T, ...]:
    found = document.get(name, [])
    if not isinstance(found, list):
        msg = f"{path.name}: {name} may stand there several times. Write [[{name}]]"
        raise ConfigError(msg)
    return tuple(_table(kind, one, f"{path.name}, {name} {number}") for number, one in enumerate(found, 1))


def _table(kind: type[T], values: Any, where: str, *, folder: Path | None = None) -> T:
    """Turn one table into its class; paths are relative to ``folder``."""
    if not isinstance(values, dict):
        msg = f"{where} is no table. Write [{where.rpartition(' ')[2]}] and its keys below"
        raise ConfigError(msg)
    types, known = get_type_hints(kind), {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        msg = f"{where}: no such key: {', '.join(unknown)}. Keys are: {', '.join(known)}"
        raise ConfigError(msg)
    required = [name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        msg = f"{where}: {', '.join(missing)} is missing. Add it"
        raise ConfigError(msg)
    return kind(**{name: _value(value, types[name], f"{where}, {name}", folder) for name, value in values.items()})


def _value(value: Any, kind: Any, where: str, folder: Path | None) -> Any:
    if kind is Path and isinstance(value, str):
        return (folder or Path()) / value
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    accepted: dict[type, type | tuple[type, ...]] = {bool: bool, int: int, float: (int, float), str: str}
    for wanted, types in accepted.items():
        if kind in (wanted, wanted | None) and isinstance(value, types) and isinstance(value, bool) == (wanted is bool):
            return value
    names = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    expected = next((name for wanted, name in names.items() if kind in (wanted, wanted | None)), None)
    msg = f"{where} is {expected or ('a list of texts' if kind == tuple[str, ...] else 'a text')}, got {value!r:.40}"
    raise ConfigError(msg)


def _check(settings: NodeSettings, name: str) -> None:
    titles = [settings.node.ae_title, *(one.ae_title for one in settings.peers)]
    titles += [one.ae_title for one in settings.destinations]
    for title in titles:
        if not _AE_TITLE.fullmatch(title):
            msg = f"{name}: {title!r:.40} is no AE title: 1 to 16 printable ASCII characters without backslash"
            raise ConfigError(msg)
    _check_node(settings.node, name)
    for peer in settings.peers:
        _check_addresses(peer, name)
    _check_sending(settings, name)
    for rule in settings.rules:
        _check_rule(rule, name)


def _check_sending(settings: NodeSettings, name: str) -> None:
    for destination in settings.destinations:
        _check_destination(destination, settings, f"{name}, destination {destination.name}")
    results = settings.results
    if not 0 <= results.hold_incomplete_seconds <= _MOST_HOLD_S or not 0 <= results.resend_days <= _MOST_DAYS:
        limits = f"hold_incomplete_seconds is 0 to {_MOST_HOLD_S}, and resend_days 0 to {_MOST_DAYS}"
        msg = f"{name}, results: {limits}. Correct them"
        raise ConfigError(msg)
    if settings.webhook is not None:
        _check_webhook(settings.webhook, name)
    for code in settings.codes:
        _check_code(code, name)
    names = {WEBHOOK, *(one.name for one in settings.destinations)}
    if len(names) != len(settings.destinations) + 1:
        msg = f"{name}: two destinations have one name, or one is called {WEBHOOK}. Give each a name of its own"
        raise ConfigError(msg)


def _check_node(node: Node, name: str) -> None:
    for key, limit in _LEAST.items():
        if not getattr(node, key) >= limit:
            msg = f"{name}, node: {key} is at least {limit}, got {getattr(node, key)}"
            raise ConfigError(msg)
    if node.port > _MOST_PORT:
        msg = f"{name}, node: port is at most {_MOST_PORT}, got {node.port}"
        raise ConfigError(msg)
    if node.most_receiving_mib < node.most_image_mib:
        msg = f"{name}, node: most_receiving_mib is at least most_image_mib = {node.most_image_mib}. Raise it"
        raise ConfigError(msg)


def _check_destination(destination: Destination, settings: NodeSettings, where: str) -> None:
    if unknown := sorted(set(destination.outputs) - set(OUTPUTS)):
        msg = f"{where}: no such output: {', '.join(unknown)}. There are: {', '.join(OUTPUTS)}"
        raise ConfigError(msg)
    if destination.tls and settings.tls is None:
        msg = f"{where}: tls needs this node's certificate. Add the table [tls]"
        raise ConfigError(msg)
    if not 1 <= destination.port <= _MOST_PORT or not 0 < destination.keep_days <= _MOST_DAYS:
        msg = f"{where}: port is 1 to {_MOST_PORT}, and keep_days above 0, at most {_MOST_DAYS}. Correct them"
        raise ConfigError(msg)
    if destination.commitment and destination.ae_title not in {one.ae_title for one in settings.peers}:
        msg = f"{where}: {destination.ae_title} reports commitment on a connection of its own. Add it as [[peer]]"
        raise ConfigError(msg)


def _check_webhook(webhook: Webhook, name: str) -> None:
    place = urlsplit(webhook.url)
    own = place.hostname is not None and is_loopback(place.hostname)
    if not place.hostname or place.scheme not in ("https", "http") or (place.scheme == "http" and not own):
        msg = f"{name}, webhook: url is https://..., or http:// to this machine"
        raise ConfigError(msg)
    if unknown := sorted(set(webhook.urgencies) - set(URGENCIES)):
        msg = f"{name}, webhook: no urgency {', '.join(unknown)}. There are: {', '.join(URGENCIES)}"
        raise ConfigError(msg)


def _check_code(code: SiteCode, name: str) -> None:
    if code.label not in list(LABELS):
        msg = f"{name}, code: no label {code.label!r:.40}. Labels are: {', '.join(LABELS)}"
        raise ConfigError(msg)
    # Results are in any character set, of which ASCII is a part; PS3.5 6.2 limits the lengths.
    for text, most in ((code.value, 16), (code.scheme, 16), (code.meaning, 64)):
        if not (text.isascii() and text.isprintable() and 0 < len(text) <= most):
            msg = f"{name}, code of {code.label}: {text!r:.80} is not 1 to {most} printable ASCII characters"
            raise ConfigError(msg)


def _check_addresses(peer: Peer, name: str) -> None:
    for address in peer.addresses:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError as error:
            named = f"{name}, peer {peer.ae_title}: {address!r:.60}"
            msg = f"{named} is no address or network. Write it as 10.1.2.3 or 10.1.0.0/16"
            raise ConfigError(msg) from error


def _check_rule(rule: Rule, name: str) -> None:
    if rule.action not in (READ, IGNORE):
        msg = f"{name}: a rule's action is {READ} or {IGNORE}, got {rule.action!r:.40}"
        raise ConfigError(msg)
    try:
        re.compile(rule.description or "")
    except re.error as error:
        msg = f"{name}: a rule's description is no regular expression: {error}"
        raise ConfigError(msg) from error
