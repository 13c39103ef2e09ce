"""What torture has counted so far, over all its runs: kept as JSON, shown as one table."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from hemoscope.files import write_text


@dataclass(slots=True, kw_only=True)
class Count:
    """Numbers of one kind of torture.

    Attributes:
        done: executions, rounds, steps or requests.
        found: inputs and rounds that broke the contract of the kind.
        lost: accepted studies that are gone or never ended.
        failed: studies that ended in a named failure, such as three workers killed while they read it.
        doubled: studies that nobody uploaded, and results beyond one.
        slowest_s: the longest time until a server was ready again.
    """

    done: int = 0
    found: int = 0
    lost: int = 0
    doubled: int = 0
    failed: int = 0
    slowest_s: float = 0.0

    def add(self, other: "Count") -> None:
        """Add another count."""
        self.done += other.done
        self.found += other.found
        self.lost += other.lost
        self.doubled += other.doubled
        self.failed += other.failed
        self.slowest_s = max(self.slowest_s, other.slowest_s)

    @property
    def clean(self) -> bool:
        """Whether nothing was found, lost or doubled."""
        return not (self.found or self.lost or self.doubled)


# The counts that the documentation shows.
RECORDED = Path(__file__).resolve().parents[2] / "experiments" / "results" / "torture.json"


def read_counts(file: Path) -> dict[str, Count]:
    """The counts in a file; none if there is no such file."""
    return {kind: Count(**count) for kind, count in json.loads(file.read_text()).items()} if file.exists() else {}


class Tally:
    """The counts by kind, and what was broken, in a folder that further runs add to."""

    def __init__(self, folder: Path, recorded: Path = RECORDED) -> None:
        """Go on from the counts of earlier runs in the folder, or else from those that are recorded."""
        self.folder = folder
        self.counts: defaultdict[str, Count] = defaultdict(Count)
        self.now: defaultdict[str, Count] = defaultdict(Count)
        file = folder / "tally.json"
        self.counts.update(read_counts(file if file.exists() else recorded))

    def add(self, kind: str, count: Count) -> None:
        """Add what a part of this run counted, and write the file: a run may be killed at any time."""
        for counts in (self.counts, self.now):
            counts[kind].add(count)
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {name: asdict(one) for name, one in sorted(self.counts.items()) if one.done}
        write_text(self.folder / "tally.json", json.dumps(document, indent=2) + "\n")

    def keep(self, kind: str, name: str, content: bytes) -> Path:
        """Keep a failing input or the log of a failing round; returns its file."""
        place = self.folder / "found" / kind.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        return place / name

    @property
    def clean(self) -> bool:
        """Whether this run found nothing."""
        return all(count.clean for count in self.now.values())


def table(counts: dict[str, Count]) -> str:
    """The counts as a Markdown table, which the documentation shows as it is."""
    lines = [
        "| kind | executions or rounds | found | lost | doubled | named failures | ready again within |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, one in sorted(counts.items()):
        if not one.done:
            continue
        ready = f"{one.slowest_s:.0f} s" if one.slowest_s else ""
        lines.append(
            f"| {kind} | {one.done:,} | {one.found} | {one.lost} | {one.doubled} | {one.failed or ''} | {ready} |"
        )
    return "\n".join(lines)
