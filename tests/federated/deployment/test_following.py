"""A part's training is followed to its end, over crashes and a server that is away, and never in silence."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Message, RecordDict

from hemoscope.errors import FederationError
from hemoscope.federated.deployment.following import PartTraining, Started
from hemoscope.federated.deployment.reporting_grid import ReportingGrid
from hemoscope.federated.deployment.run_progress import ProgressFile, error_path, read_progress
from hemoscope.federated.deployment.runs import ConnectedSite, RunStatus, ServerAwayError, ServerState
from hemoscope.federated.deployment.server_status import Waiting, waiting_for

RUNNING = RunStatus(status="running", sub_status="", details="")
COMPLETED = RunStatus(status="finished", sub_status="completed", details="")
CRASHED = RunStatus(status="finished", sub_status="failed", details="No heartbeat received from the task")
STOPPED = RunStatus(status="finished", sub_status="stopped", details="")
Look = RunStatus | Exception | Callable[[], RunStatus]


class Client:
    """A server that answers each look with the next of these."""

    def __init__(self, folder: Path, looks: Iterable[Look]) -> None:
        self.state = ServerState(folder=folder, app="@a/b", hash="0", port=1, sites=2)
        self.looks, self.jobs = iter(looks), list[str]()

    def start(self, job: str) -> int:
        self.jobs.append(job)
        return len(self.jobs)

    def status(self, run: int) -> RunStatus:
        look = next(self.looks)
        if isinstance(look, Exception):
            raise look
        return look() if callable(look) else look

    def online(self) -> int:
        return 1

    def sites(self) -> list[ConnectedSite]:
        here = ConnectedSite(node=11, name="hilltop", online=True, since="2026-01-01T00:00:00+00:00")
        return [here, ConnectedSite(node=12, name="riverside", online=False, since="")]

    def job(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state.jobs / f"{self.jobs[number]}.json").read_text())
        return found


def following(client: Any, **options: Any) -> PartTraining:
    settings = {"poll": 0.0, "silence": 60.0, **options}
    return PartTraining(client=client, job={"resume": False}, rounds=client.state.folder / "rounds.jsonl", **settings)


def events(client: Any, **options: Any) -> list[Any]:
    return list(following(client, **options).events())


def test_an_application_that_crashed_is_started_again_after_the_last_finished_round(tmp_path: Path) -> None:
    client = Client(tmp_path, [RUNNING, CRASHED, COMPLETED])
    first, again, last = events(client)
    assert (first, again) == (
        Started(run=1, again=0, online=1),
        Started(run=2, again=1, online=1, details=CRASHED.details),
    )
    assert last == COMPLETED
    assert [client.job(number)["resume"] for number in (0, 1)] == [False, True]


def test_what_crashes_without_a_new_round_is_given_up_and_a_new_round_counts_anew(tmp_path: Path) -> None:
    *_, last = events(Client(tmp_path, [CRASHED] * 9), restarts=2)
    assert last == CRASHED
    rounds = tmp_path / "rounds.jsonl"

    def crash_after_a_round() -> RunStatus:
        with rounds.open("a") as stream:
            stream.write('{"number": 1}\n')
        return CRASHED

    found = events(Client(tmp_path, [CRASHED, CRASHED, crash_after_a_round, CRASHED, COMPLETED]), restarts=2)
    assert found[-1] == COMPLETED
    assert {"number": 1} in found


def test_what_the_application_gave_up_itself_is_final_and_its_sentence_is_the_reason(tmp_path: Path) -> None:
    client = Client(tmp_path, [])

    def give_up() -> RunStatus:
        error_path(client.state.jobs, client.jobs[-1]).write_text("0 of 2 sites came in 120 s")
        return CRASHED

    client.looks = iter([give_up])
    *_, last = events(client)
    assert last.details == "0 of 2 sites came in 120 s"
    assert len(client.jobs) == 1


def test_a_run_that_somebody_stopped_is_not_started_again(tmp_path: Path) -> None:
    assert events(Client(tmp_path, [RUNNING, STOPPED]))[1:] == [STOPPED]


def test_a_server_that_is_away_is_waited_for_and_one_that_stays_away_is_an_error(tmp_path: Path) -> None:
    away = ServerAwayError("no server answers")
    _, waiting, last = events(Client(tmp_path, [RUNNING, away, away, COMPLETED]))
    assert isinstance(waiting, Waiting)
    assert re.fullmatch(r"waiting for the server, which has not answered for \d+ s", waiting.text)
    assert last == COMPLETED
    with pytest.raises(FederationError, match="no server answers"):
        events(Client(tmp_path, [away] * 9), patience=0.0)


def test_a_server_that_hangs_and_a_run_that_trains_are_not_silent(tmp_path: Path) -> None:
    said, texts = threading.Event(), list[str]()

    def hang() -> RunStatus:
        said.clear()
        assert said.wait(60)
        return RUNNING

    for event in following(Client(tmp_path, [hang, COMPLETED]), silence=0.1).events():
        if isinstance(event, Waiting):
            texts.append(event.text)
            said.set()
    assert any("has not answered" in text for text in texts)
    assert "the run is running: waiting for the server's application to begin" in texts


def test_what_a_run_waits_for_is_named_site_by_site(tmp_path: Path) -> None:
    client: Any = Client(tmp_path, [])
    client.state.jobs.mkdir()
    progress = ProgressFile(client.state.jobs, "j", clock=time.time)
    progress.show("waiting for sites", 1, 2)
    said = waiting_for(client, RUNNING, "j").text
    assert said.startswith("waiting for sites (1 of 2 connected), for ")
    assert said.endswith("; not connected: riverside")
    progress.show("split: round", 0, 3)
    progress.ask([11, 12, 13])
    said = waiting_for(client, RUNNING, "j").text
    assert said.startswith("split: round (0 of 3 done): waiting for ")
    assert said.endswith("for the reply of a site that was removed, hilltop, riverside (away)")
    assert waiting_for(client, STOPPED, "j").text == "the run is stopped"


class SlowGrid:
    """Replies of one node at each pull; the last message is not taken."""

    def __init__(self, seen: Callable[[], object]) -> None:
        self.seen, self.left = seen, list[Message]()

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        self.left = list(messages)[:-1]
        for number, message in enumerate(self.left):
            message.metadata.__dict__["_message_id"] = f"m{number}"
        return [*(message.metadata.message_id for message in self.left), None]

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        self.seen()
        return [Message(RecordDict(), reply_to=self.left.pop(0))]


def test_a_grid_reports_whose_replies_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_task: None
) -> None:
    monkeypatch.setattr("hemoscope.federated.deployment.reporting_grid.POLL", 0.0)
    seen: list[tuple[int, ...]] = []

    def look() -> None:
        found = read_progress(tmp_path, "j")
        assert found is not None
        seen.append(found.waiting)

    grid: Any = ReportingGrid(SlowGrid(look), ProgressFile(tmp_path, "j"))
    replies = grid.send_and_receive([Message(RecordDict(), node, "train") for node in (11, 12, 13)], timeout=20)
    assert len(list(replies)) == 2
    assert seen == [(11, 12), (12,)]
    look()
    assert seen[-1] == ()


@pytest.fixture
def one_task() -> None:
    """Flower asks whose message it is."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
