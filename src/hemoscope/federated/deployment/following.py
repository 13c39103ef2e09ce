"""A part's training, followed to its end: over a server that is away for a while and an application that crashed.

What the application itself gave up (``ID.error``) is final. Whatever else ended it (it was killed, the server was
started again, its connection broke) is not: another run continues after the last finished round.
"""

import functools
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hemoscope.federated.deployment.run_progress import read_error
from hemoscope.federated.deployment.runs import ControlClient, RunStatus, ServerAwayError, write_job
from hemoscope.federated.deployment.server_status import Waiting, waiting_for

POLL = 1.0  # seconds
SILENCE = 15.0  # seconds after which it is said again what is waited for
PATIENCE = 600.0  # seconds without the server
RESTARTS = 3  # without a finished round between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A run was started over the sites that are connected, or again after a crash, whose details are given."""

    run: int
    again: int
    online: int
    details: str = ""


T = TypeVar("T")
Event = Started | dict[str, Any] | Waiting | RunStatus


@dataclass(slots=True, kw_only=True)
class PartTraining:
    """One part's training.

    Attributes:
        client: of the server.
        job: of ``deployed_apps``.
        rounds: ``RUN/PART/rounds.jsonl``; what it holds already is not reported again.
        poll: seconds between two looks.
        silence: seconds without an event after which what is waited for is one.
        patience: seconds without the server after which following ends.
        restarts: how often in a row a crashed application is started again.
    """

    client: ControlClient
    job: Mapping[str, Any]
    rounds: Path
    poll: float = POLL
    silence: float = SILENCE
    patience: float = PATIENCE
    restarts: int = RESTARTS
    _run: int | None = field(default=None, init=False)
    _job_id: str = field(default="", init=False)
    _place: int = field(default=0, init=False)
    _crashes: int = field(default=0, init=False)
    _caller: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1), init=False)

    def events(self) -> Iterator[Event]:
        """What happens, until a status that is over; that is the last. Something happens every 20 s.

        Raises:
            FederationError: the server is not there at the beginning, or for too long; or it refuses.
        """
        self._place = self.rounds.stat().st_size if self.rounds.exists() else 0
        yield from self._begin(self.job, patience=0.0)
        while True:
            status = yield from self._follow()
            if not self._crashed(status) or self._crashes >= self.restarts:
                yield self._with_reason(status)
                return
            self._crashes += 1
            yield from self._begin({**self.job, "resume": True}, patience=self.patience, details=status.details)

    def stop(self) -> None:
        """End the run. Raises FederationError where the server is away."""
        if self._run is not None:
            self.client.stop(self._run)

    @property
    def _started(self) -> int:
        assert self._run is not None
        return self._run

    def _begin(self, job: Mapping[str, Any], *, patience: float, details: str = "") -> Iterator[Event]:
        self._job_id = write_job(self.client.state.folder, job)
        self._run = yield from self._patiently(lambda: self.client.start(self._job_id), patience=patience)
        online = yield from self._patiently(self.client.online, patience=self.patience)
        yield Started(run=self._run, again=self._crashes, details=details, online=online)

    def _follow(self) -> Generator[dict[str, Any] | Waiting, None, RunStatus]:
        """Rounds and waits of the present run; gives the status that ended it."""
        heard = time.monotonic()
        while True:
            status = yield from self._patiently(lambda: self.client.status(self._started), patience=self.patience)
            for record in self._new_records():
                yield record
                self._crashes = self._crashes if record.get("void") else 0
                heard = time.monotonic()
            if status.over:
                return status
            if time.monotonic() - heard >= self.silence:
                yield (yield from self._patiently(functools.partial(self._waiting, status), patience=self.patience))
                heard = time.monotonic()
            time.sleep(self.poll)

    def _waiting(self, status: RunStatus) -> Waiting:
        return waiting_for(self.client, status, self._job_id)

    def _patiently(self, call: Callable[[], T], *, patience: float) -> Generator[Waiting, None, T]:
        """What a call gives once the server answers. Raises ServerAwayError after ``patience``."""
        began, heard, answer = time.monotonic(), -self.silence, self._caller.submit(call)
        while True:
            try:
                # In a thread: a request to a server that hangs takes half a minute.
                return answer.result(timeout=self.silence)
            except TimeoutError:
                away = time.monotonic() - began
            except ServerAwayError:
                away = time.monotonic() - began
                if away >= patience:
                    raise
                time.sleep(self.poll)
                answer = self._caller.submit(call)
            if away - heard >= self.silence:
                heard = away
                yield Waiting(text=f"waiting for the server, which has not answered for {away:.0f} s")

    def _crashed(self, status: RunStatus) -> bool:
        if status.completed or status.stopped:
            return False
        return read_error(self.client.state.jobs, self._job_id) is None

    def _with_reason(self, status: RunStatus) -> RunStatus:
        """The status with the application's own sentence, where it left one."""
        if (reason := read_error(self.client.state.jobs, self._job_id)) is None:
            return status
        return RunStatus(status=status.status, sub_status=status.sub_status, details=reason)

    def _new_records(self) -> list[dict[str, Any]]:
        """Whole lines that are new; a line that is still being written waits."""
        if not self.rounds.exists():
            return []
        with self.rounds.open("rb") as stream:
            stream.seek(self._place)
            whole, found, _ = stream.read().rpartition(b"\n")
        self._place += len(whole) + len(found)
        return [json.loads(line) for line in whole.splitlines() if line]
