"""The hash chain of the audit log: every entry holds the hash of the entry before it and its own.

An entry's hash covers its number, time, user, action and detail, the digest of its study's ID, and the hash before it.
The ID itself is not hashed but its SHA-256 with a random salt of the study: a deletion removes ID and salt, the digest
stays, and so does the chain. Whoever rewrites the whole log can make a new chain; an anchor kept elsewhere shows that.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from hemoscope.errors import ConfigError
from hemoscope.store.values import ChainedAuditEntry

DELETE = "delete"
_ANCHOR = re.compile(r"(?P<audit_id>\d{1,18}):(?P<hash>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """An entry's number and hash, kept outside the database; as text ``NUMBER:HASH``."""

    audit_id: int
    entry_hash: str

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read ``NUMBER:HASH``. Raises ConfigError for anything else."""
        found = _ANCHOR.fullmatch(text)
        if found is None:
            msg = "an anchor is NUMBER:HASH with 64 hexadecimal digits. Give one that hemoscope audit verify printed"
            raise ConfigError(msg)
        return cls(audit_id=int(found["audit_id"]), entry_hash=found["hash"])

    def __str__(self) -> str:
        """As ``from_text`` reads it."""
        return f"{self.audit_id}:{self.entry_hash}"


BEFORE_FIRST = Anchor(audit_id=0, entry_hash="0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCheck:
    """What ``check`` found: the number of sound entries, the last of them, and the first fault if there is one."""

    entries: int
    last: Anchor
    fault: str | None


def study_digest(salt: str, study_id: str) -> str:
    """What stands for a study's ID in the chain."""
    return hashlib.sha256(f"{salt}{study_id}".encode()).hexdigest()


def entry_hash(
    *, previous: str, audit_id: int, at: datetime, user: str, action: str, digest: str | None, detail: str
) -> str:
    """The hash of an entry; the same on every database."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(json.dumps([previous, audit_id, moment, user, action, digest, detail]).encode()).hexdigest()


def check(
    entries: Iterable[ChainedAuditEntry], *, anchor: Anchor | None = None, end: Anchor | None = None
) -> ChainCheck:
    """Follow the chain to its first fault.

    Args:
        entries: in the order of their numbers, from the first.
        anchor: an entry of which the hash is known from elsewhere.
        end: the last entry, as the database noted it apart from the log.
    """
    count, last = 0, BEFORE_FIRST
    unnamed: dict[str, int] = {}  # digests whose ID is gone, until the entry of the deletion
    for entry in entries:
        fault = _fault(entry, last, anchor)
        if fault is not None:
            return ChainCheck(entries=count, last=last, fault=f"entry {entry.audit_id} {fault}")
        if entry.study_digest is not None and entry.study_id is None:
            if entry.action == DELETE:
                unnamed.pop(entry.study_digest, None)
            else:
                unnamed.setdefault(entry.study_digest, entry.audit_id)
        count, last = count + 1, Anchor(audit_id=entry.audit_id, entry_hash=entry.entry_hash)
    return ChainCheck(entries=count, last=last, fault=_fault_of_end(last, anchor, end, unnamed))


def _fault(entry: ChainedAuditEntry, last: Anchor, anchor: Anchor | None) -> str | None:
    """What is wrong with an entry that should follow ``last``."""
    if entry.previous_hash != last.entry_hash or entry.audit_id <= last.audit_id:
        return f"does not follow entry {last.audit_id}: entries between them were removed, or their order was changed"
    expected = entry_hash(
        previous=entry.previous_hash,
        audit_id=entry.audit_id,
        at=entry.at,
        user=entry.user,
        action=entry.action,
        digest=entry.study_digest,
        detail=entry.detail,
    )
    named = entry.study_id is not None
    salted = study_digest(entry.study_salt or "", entry.study_id or "")
    if entry.entry_hash != expected or (named and entry.study_digest != salted):
        return "was changed"
    if anchor is not None and entry.audit_id == anchor.audit_id and entry.entry_hash != anchor.entry_hash:
        return "is not that of the anchor: the log was rewritten"
    return None


def _fault_of_end(last: Anchor, anchor: Anchor | None, end: Anchor | None, unnamed: dict[str, int]) -> str | None:
    """What is wrong with a log whose entries follow each other to ``last``."""
    if unnamed:
        return (
            f"entry {min(unnamed.values())} was changed: its study's ID is gone, and no entry says that it was deleted"
        )
    if (end is not None and last != end) or (anchor is not None and last.audit_id < anchor.audit_id):
        return f"entries after {last.audit_id} were removed"
    return None
