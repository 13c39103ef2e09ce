"""The server's rounds on disk: what a stopped federation goes on from. Safetensors and JSON, whole or not at all.

``PART/rounds/0003/`` holds ``trained``, ``statistics``, ``fixed`` and ``strategy`` (``.safetensors``), ``state.json``
and, of what happened in it, ``report.json``, with their ``SHA256SUMS``; ``PART/rounds.jsonl`` has one line a round,
void ones too. The last two rounds are kept.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from hemoscope.checksums import SUMS, ChecksumError, read_checked, read_sums, warn_unchecked, write_sums
from hemoscope.errors import FederationError
from hemoscope.federated.exchange.weights import Arrays
from hemoscope.files import append_line, publish

__all__ = [
    "ROUNDS",
    "ROUND_LOG",
    "RoundReport",
    "RoundState",
    "append_round_log",
    "last_report",
    "latest_round",
    "numbered",
    "save_round",
]

ROUNDS, ROUND_LOG = "rounds", "rounds.jsonl"
_STATE, _REPORT, _SCHEMA = "state.json", "report.json", 1
_FILES = ("trained", "statistics", "fixed", "strategy")
_KEPT = 2
_BETWEEN = "/"  # of a moment's name and a weight's name; names of weights have dots


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """All that the next round needs.

    Attributes:
        number: of the last round that is in these weights; 0 before the first.
        trained: weights after it; see ``hemoscope.federated.exchange.weights.Exchange`` for these three.
        statistics: see ``trained``.
        fixed: see ``trained``.
        strategy: what the strategy remembers, by its name for it (FedAdam: ``m_t`` and ``v_t``).
        accountant: state of Flower's privacy accountant, plain values; None without differential privacy.
        sites: site numbers 1..n by Flower's node id, in decimal.
    """

    number: int = 0
    trained: Arrays
    statistics: Arrays = field(default_factory=dict)
    fixed: Arrays = field(default_factory=dict)
    strategy: dict[str, Arrays] = field(default_factory=dict)
    accountant: dict[str, Any] | None = None
    sites: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """What happened in a round; sites by their numbers.

    Attributes:
        number: of the round, from 1; a void one is tried again under the same number.
        asked: sites that were sent the round's weights.
        used: sites whose updates are in the new weights; none where the round is void.
        refused: sites whose replies were left out, and why.
        lost: sites that did not answer in time.
        suspicious: sites whose updates were anomalous (also those that were refused or void), and why.
        losses: of training, of the sites that say so.
        norms: of the updates that were not refused, as they came (before clipping).
        void: whether the weights are those of the round before; ``reason`` says why.
        reason: see ``void``; empty otherwise.
        epsilon: spent so far, with differential privacy.
        seconds: from asking to having aggregated.
    """

    number: int
    asked: tuple[int, ...] = ()
    used: tuple[int, ...] = ()
    refused: dict[int, str] = field(default_factory=dict)
    lost: tuple[int, ...] = ()
    suspicious: dict[int, tuple[str, ...]] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    norms: dict[int, float] = field(default_factory=dict)
    void: bool = False
    reason: str = ""
    epsilon: float | None = None
    seconds: float = 0.0

    def with_suspicion(self, found: Mapping[int, tuple[str, ...]]) -> "RoundReport":
        """The same with more reasons to suspect sites."""
        sites = {*self.suspicious, *found}
        both = {site: (*self.suspicious.get(site, ()), *found.get(site, ())) for site in sorted(sites)}
        return dataclasses.replace(self, suspicious=both)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``append_round_log``."""
        return dataclasses.asdict(self)


def numbered(sites: Mapping[str, int], nodes: Iterable[int]) -> dict[str, int]:
    """Site numbers by Flower's node id: known ones stay, new ones follow in the order of their ids."""
    found = dict(sites)
    for node in sorted(set(nodes)):
        found.setdefault(str(node), max(found.values(), default=0) + 1)
    return found


def save_round(part_folder: Path, state: RoundState, report: "RoundReport | None" = None) -> Path:
    """Write a round, then delete those before the last two. Returns the round's folder.

    All of it is on the disk before this returns, also where the power fails: the next message to a site shows these
    weights, and what an accountant counted must not be forgotten then.
    """
    rounds = part_folder / ROUNDS
    folder = rounds / f"{state.number:04d}"
    begun = folder.with_name(folder.name + ".part")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    for name, arrays in _tensors(state).items():
        rows = {weight: np.asarray(array, order="C") for weight, array in arrays.items()}  # all that the format knows
        save_file(rows, begun / f"{name}.safetensors")
    record = {"schema": _SCHEMA, "number": state.number, "accountant": state.accountant, "sites": state.sites}
    (begun / _STATE).write_text(json.dumps(record, indent=1) + "\n")
    if report is not None:
        (begun / _REPORT).write_text(json.dumps(report.to_json()) + "\n")
    write_sums(begun, [path.name for path in begun.iterdir()])
    if folder.exists():  # the same round again, after a resume from the round before
        shutil.rmtree(folder)
    publish(begun, folder)
    for old in _round_folders(rounds)[:-_KEPT]:
        shutil.rmtree(old)
    return folder


def last_report(part_folder: Path) -> dict[str, Any] | None:
    """What happened in the last round that was written whole, as ``RoundReport.to_json``; None where nobody said.

    Raises:
        FederationError: the file is damaged.
    """
    folders = _round_folders(part_folder / ROUNDS)
    path = folders[-1] / _REPORT if folders else None
    if path is None or not path.is_file():
        return None
    with _damage_named(path.parent):
        report: dict[str, Any] = json.loads(read_checked(path, read_sums(path.parent / SUMS)))
    return report


def latest_round(part_folder: Path) -> RoundState | None:
    """The last round that was written whole; None where there is none yet.

    Raises:
        FederationError: its files are damaged.
    """
    folders = _round_folders(part_folder / ROUNDS)
    if not folders:
        return None
    with _damage_named(folders[-1]):
        return _read_round(folders[-1])


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turn the errors of a damaged round into a FederationError that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        # What a round released is spent, though the round before it knows nothing of that.
        reason = error if isinstance(error, ChecksumError) else type(error).__name__
        remedy = f"Delete {ROUNDS}/{folder.name} to go on from the round before it; with privacy, begin a new run"
        msg = f"{folder.parents[1].name}/{ROUNDS}/{folder.name} cannot be read ({reason}). {remedy}"
        raise FederationError(msg) from error


def append_round_log(part_folder: Path, record: Mapping[str, Any]) -> None:
    """Add one line of JSON to the log of rounds."""
    part_folder.mkdir(parents=True, exist_ok=True)
    append_line(part_folder / ROUND_LOG, json.dumps(record))


def _tensors(state: RoundState) -> dict[str, Arrays]:
    moments = {
        _BETWEEN.join((kind, name)): array for kind, named in state.strategy.items() for name, array in named.items()
    }
    return {"trained": state.trained, "statistics": state.statistics, "fixed": state.fixed, "strategy": moments}


def _read_round(folder: Path) -> RoundState:
    sums = read_sums(folder / SUMS)
    if sums is None:
        warn_unchecked(f"The round {folder.name}", "The next one will have them")
    record = json.loads(read_checked(folder / _STATE, sums))
    if record["schema"] != _SCHEMA:
        raise ValueError(record["schema"])
    strategy: dict[str, Arrays] = {}
    arrays = {name: load(read_checked(folder / f"{name}.safetensors", sums)) for name in _FILES}
    for name, array in arrays["strategy"].items():
        kind, _, weight = name.partition(_BETWEEN)
        strategy.setdefault(kind, {})[weight] = array
    return RoundState(
        number=record["number"],
        trained=arrays["trained"],
        statistics=arrays["statistics"],
        fixed=arrays["fixed"],
        strategy=strategy,
        accountant=record["accountant"],
        sites=record["sites"],
    )


def _round_folders(rounds: Path) -> list[Path]:
    """Whole rounds, oldest first."""
    if not rounds.is_dir():
        return []
    return sorted((path for path in rounds.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
