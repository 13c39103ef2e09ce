"""What a worker process is told when it starts: one line of JSON on its standard input, never on its command line."""

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from hemoscope.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How workers read.

    Attributes:
        url, storage: of the store, as given to ``open_store``.
        model: folder of a bundle, None for the one that ships.
        threads: of each worker, None for all processors it may use.
        keep_identity: store patient name and ID beside a study.
        deidentify: read and keep a de-identified copy only.
        keep_source: keep the files as uploaded.
        lease_s, attempts: as in ``open_store``.
        memory_bytes: the most a worker may allocate for a study, on top of the loaded model (Linux); beyond it the
            study fails instead of the machine. None sets no limit.
        poll_s: pause between two looks into an empty queue.
    """

    url: str
    storage: Path
    model: Path | None = None
    threads: int | None = None
    keep_identity: bool = False
    deidentify: bool = False
    keep_source: bool = False
    lease_s: float = 15.0
    attempts: int = 3
    memory_bytes: int | None = None
    poll_s: float = 0.05

    def __post_init__(self) -> None:
        """Reject settings that contradict each other or that no worker could keep."""
        if self.keep_identity and self.deidentify:
            msg = "identity cannot be shown and removed at once. Choose one of the two"
            raise ConfigError(msg)
        if (
            self.lease_s <= 0
            or self.attempts < 1
            or self.poll_s <= 0
            or (self.threads is not None and self.threads < 1)
        ):
            msg = (
                f"lease_s and poll_s must be above 0, attempts and threads at least 1, got {self.lease_s}, "
                f"{self.poll_s}, {self.attempts} and {self.threads}"
            )
            raise ConfigError(msg)

    @property
    def lease(self) -> timedelta:
        """How long a worker that no longer beats keeps its job."""
        return timedelta(seconds=self.lease_s)

    def to_line(self, worker_id: str) -> bytes:
        """One line of JSON for the worker of this name."""
        fields = asdict(self) | {"storage": str(self.storage), "model": None if self.model is None else str(self.model)}
        return json.dumps({"worker_id": worker_id, "settings": fields}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> tuple[str, "WorkerSettings"]:
        """Read what ``to_line`` wrote: the worker's name and its settings."""
        told = json.loads(line)
        fields = told["settings"]
        model = None if fields["model"] is None else Path(fields["model"])
        return told["worker_id"], cls(**fields | {"storage": Path(fields["storage"]), "model": model})
