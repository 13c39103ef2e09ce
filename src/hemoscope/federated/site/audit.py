"""The site's own record of what came in and what left, one line of JSON a message, written before the message leaves.

A line names the kind of message and, for each record in it, how many entries and bytes it has and the SHA-256 that
Flower knows it by. Of histograms it counts the cells, and those that hold rows of one patient alone. Neither values nor
paths nor anybody's identity stand in it; who holds a copy of a message can check whether it is the one that left, and
nobody learns more.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hemoscope.files import append_line

if TYPE_CHECKING:
    from hemoscope.federated.exchange.histograms import CellCounts

_MOST_GROUP = 20  # characters: it is the server's word, and should be a number
Direction = Literal["in", "out"]


class _Inflatable(Protocol):
    """What Flower's records have in common: they know their bytes, their parts and their hash."""

    @property
    def object_id(self) -> str: ...

    @property
    def children(self) -> Mapping[str, Any] | None: ...

    def deflate(self) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFacts:
    """One record of a message.

    Attributes:
        name: its key in the message.
        kind: Flower's class of it.
        entries: names in it.
        bytes: of it and its parts, as Flower writes them on the wire, before HTTP and TLS.
        sha256: Flower's object id, the SHA-256 of what it writes; it covers the record's parts.
    """

    name: str
    kind: str
    entries: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """A file of JSON lines, only ever appended to."""

    path: Path

    def record(
        self,
        direction: Direction,
        *,
        run: int,
        group: str,
        kind: str,
        content: Mapping[str, Any] | None,
        reason: str | None = None,
        cells: "CellCounts | None" = None,
    ) -> None:
        """Append a message.

        Args:
            direction: whether it came in or leaves.
            run: Flower's number of the run.
            group: Flower's group of the message, which is the round.
            kind: what it is, such as ``train`` or ``train: setup``.
            content: its records by name; None for an error.
            reason: of the error that leaves, one of our own sentences.
            cells: of the histograms that leave.

        Raises:
            OSError: nothing could be written; then nothing may leave.
        """
        records = [record_facts(name, record) for name, record in (content or {}).items()]
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "run": str(run),
            "round": group[:_MOST_GROUP],
            "direction": direction,
            "kind": kind,
            "bytes": sum(facts.bytes for facts in records),
            "records": [asdict(facts) for facts in records],
        }
        if cells is not None:
            line |= {"cells": cells.cells, "cells_of_one_patient": cells.of_one_patient}
        self._append(line if reason is None else {**line, "error": reason})

    def _append(self, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # On the disk before the message leaves: the line outlives a crash in the moment after.
        append_line(self.path, json.dumps(line), mode=0o600)


def record_facts(name: str, record: Any) -> RecordFacts:
    """How large a record is on the wire, and its hash."""
    return RecordFacts(
        name=name,
        kind=type(record).__name__,
        entries=len(record),
        bytes=_size(record, {}),
        sha256=record.object_id,
    )


def _size(item: _Inflatable, seen: dict[str, None]) -> int:
    """Bytes of an object and its parts; equal parts go over the wire once."""
    if item.object_id in seen:
        return 0
    seen[item.object_id] = None
    return len(item.deflate()) + sum(_size(part, seen) for part in (item.children or {}).values())
