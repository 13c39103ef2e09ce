"""A table of an evaluation's page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Text, a score with its interval, or None where there is none.
Cell = str | Mapping[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the page under its title: a note above it, ``reasons`` for its dashes below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    reasons: Sequence[str] = ()
    words: bool = False
