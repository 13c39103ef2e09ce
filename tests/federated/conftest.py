"""A tiny hospital: a cache of phantoms, experiments that take a second a round; and servers and sites as processes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hemoscope.data.cache import Cache, open_cache, write_manifest, write_series
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.experiment import Experiment, parse_experiment

PATIENTS, SLICES = 12, 3


@pytest.fixture
def one_thread() -> None:
    """Sums in one order, so that weights can be compared bit for bit."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_hospital() -> Callable[[Path, Sequence[str]], Cache]:
    """``make_hospital(folder, patients)``: three slices of 64 pixels of each; every second patient bleeds."""

    def build(folder: Path, patients: Sequence[str]) -> Cache:
        rows: list[dict[str, Any]] = []
        for number, patient in enumerate(patients):
            bleeds = frozenset(SUBTYPES) if number % 2 == 0 else frozenset()
            phantom = make_phantom(seed=number, shape=(SLICES, 64, 64), bleeds=bleeds)
            mask = np.array(phantom.masks["any"])
            write_series(folder, patient, hounsfield=np.array(phantom.hounsfield), mask=mask if bleeds else None)
            ids = {"patient_id": patient, "study_id": patient, "series_id": patient}
            for index, labels in enumerate(phantom.slice_labels):
                known = {label.value: int(shown) for label, shown in zip(LABELS, labels, strict=True)}
                image = {"image_id": f"{patient}_{index}", "index": index, "masked": bool(labels.any())}
                rows.append({**ids, **image, **known})
        dataset = TrainingData(
            name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="made here", changes="none"
        )
        write_manifest(folder, rows, dataset)
        return open_cache(folder)

    return build


@pytest.fixture(scope="session")
def hospital_cache(
    tmp_path_factory: pytest.TempPathFactory, make_hospital: Callable[[Path, Sequence[str]], Cache]
) -> Cache:
    """Twelve made patients of three slices of 64 pixels; every second one bleeds. Do not write into it."""
    return make_hospital(tmp_path_factory.mktemp("hospital") / "cache", [f"p{number}" for number in range(PATIENTS)])


@pytest.fixture(scope="session")
def small_experiment() -> Callable[..., Experiment]:
    """``small_experiment(run={...}, ...)``: 32 pixels, one split by patient, no moving average; tables are laid over.

    Of twelve patients, six are trained on, three validate and three are scored.
    """

    def build(**changes: Any) -> Experiment:
        tables: dict[str, Any] = {
            "run": {"batch_size": 4, "init": "none", "split": "patient", "validation": 0.25, "test": 0.25},
            "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
            "preprocessing": {"size": 32},
            "sampling": {"negatives": 1.0},
            "optimizer": {"ema": 0.0},
        }
        for name, change in changes.items():
            tables[name] = {**tables.get(name, {}), **change} if isinstance(change, dict) else change
        return parse_experiment({"name": "small", **tables}, where="the test")

    return build


class Deployment:
    """Servers and sites as processes of their own, under one folder; whatever is started here is ended here.

    A process is one of ours if its environment names the folder, whoever its parent is.
    """

    def __init__(
        self, folder: Path, *, app: Path | None = None, sites: tuple[str, ...] = ("riverside", "hilltop")
    ) -> None:
        from hemoscope.federated.deployment.authority import make_keys

        self.folder, self.app, self.sites = folder, app, sites
        self.keys, self.state = folder / "keys", folder / "state"
        self.started: list[subprocess.Popen[str]] = []
        make_keys(self.keys, servers=["localhost"], sites=sites, app=app)

    @property
    def port(self) -> int:
        """Where the server that was started last listens."""
        return int(json.loads((self.state / "server.json").read_text())["port"])

    def server(self, *options: str, before: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
        """Start a server and wait until it listens; ``before`` is a command that starts it."""
        from hemoscope.federated.deployment.processes import JOBS_VARIABLE, flower_environment

        module = "hemoscope.federated.deployment.server_processes"
        command = [*before, sys.executable, "-P", "-m", module, "--keys", str(self.keys / "server")]
        command += ["--folder", str(self.state), "--port", "0", *options]
        if self.app is not None:
            command += ["--app", str(self.app)]
        jobs = {JOBS_VARIABLE: str(self.state / "jobs")}
        return self.start("server", command, flower_environment(self.state / "flower") | jobs | environment, "ready on")

    def site(
        self,
        name: str,
        *,
        keys: Path | None = None,
        port: int | None = None,
        until: str = "SuperNode ID|starting it again",
        seconds: float = 240.0,
    ) -> subprocess.Popen[str]:
        """Start a site, as ``hemoscope federated site`` does, without looking at its data."""
        from hemoscope.federated.deployment.keys import read_site_keys
        from hemoscope.federated.deployment.processes import flower_environment
        from hemoscope.federated.deployment.supernode import supernode_command

        file = self.folder / f"{name}.toml"
        keys = keys or self.keys / "sites" / name
        command = supernode_command(file, read_site_keys(keys), server=f"127.0.0.1:{port or self.port}")
        work = self.folder / f"work-{name}"
        work.mkdir(exist_ok=True)
        module = [sys.executable, "-P", "-m", "hemoscope.federated.deployment.supernode", "--status", str(work)]
        environment = flower_environment(self.folder / f"flower-{name}")
        return self.start(name, [*module, *command], environment, until, seconds)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], until: str, seconds: float = 240.0
    ) -> subprocess.Popen[str]:
        """Start a process that logs to ``NAME.log`` and wait until it says something, or ends."""
        log = self.folder / f"{name}.log"
        place = log.stat().st_size if log.exists() else 0
        with log.open("a") as stream:
            # A session of its own, as on a machine of its own: what is sent to a terminal does not reach it.
            process = subprocess.Popen(
                command, env=dict(environment), stdout=stream, stderr=stream, text=True, start_new_session=True
            )
        self.started.append(process)
        end = time.monotonic() + seconds
        while process.poll() is None and not re.search(until, log.read_text()[place:]):
            assert time.monotonic() < end, f"{name} did not say {until!r}: {log.read_text()[-2000:]}"
            time.sleep(0.05)
        return process

    def alive(self) -> dict[int, str]:
        """Command lines of all processes whose environment names the folder, by process id."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (place / "environ").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_text().replace("\0", " ")
        return {pid: line for pid, line in found.items() if pid != os.getpid() and line}

    def wait_until_none_is_alive(self, seconds: float = 120.0) -> dict[int, str]:
        """What still lives after so many seconds; returns as soon as nothing does."""
        end = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def close(self) -> None:
        """End whatever is left."""
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.kill()
            process.wait(60)


TRIVIAL_APP = """
import json, os, time
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def train(message, context):
    time.sleep(float(message.content["ask"]["sleep"]))
    return Message(RecordDict({"answer": ConfigRecord({"site": "site" in context.node_config})}), reply_to=message)


@server_app.main()
def main(grid, context):
    job = json.loads((Path(os.environ["HEMOSCOPE_FEDERATED_JOBS"]) / f"{context.run_config['job']}.json").read_text())
    while len(nodes := list(grid.get_node_ids())) < job["sites"]:
        time.sleep(0.1)
    ask = RecordDict({"ask": ConfigRecord({"sleep": job["sleep"]})})
    replies = list(grid.send_and_receive([Message(ask, node, "train") for node in nodes], timeout=60))
    rounds = Path(job["output"]) / "split" / "rounds.jsonl"
    rounds.parent.mkdir(parents=True, exist_ok=True)
    errors = [str(reply.error.reason) for reply in replies if reply.has_error()]
    rounds.write_text(json.dumps({"number": 1, "used": len(replies) - len(errors), "errors": errors}) + "\\n")
    if job.get("fail"):
        raise RuntimeError("as asked")
"""


@pytest.fixture(scope="session")
def new_deployment() -> type[Deployment]:
    """``new_deployment(folder, sites=...)``: for a test that closes it itself."""
    return Deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """``deployment(sites=...)``: a federation of processes around an app of one round that trains nothing."""
    made: list[Deployment] = []

    def build(**options: Any) -> Deployment:
        from hemoscope.federated.deployment.signed_app import stub_folder

        app = tmp_path / "trivial"
        app.mkdir()
        project = (stub_folder() / "pyproject.toml").read_text().replace("hemoscope_stub", "trivial")
        (app / "pyproject.toml").write_text(project)
        (app / "trivial.py").write_text(TRIVIAL_APP)
        made.append(Deployment(tmp_path, **{"app": app, **options}))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture
def small_federation(small_experiment: Callable[..., Experiment]) -> Callable[..., Any]:
    """``small_federation(rounds=, strategy={...}, ...)``: over ``small_experiment``, fixed seeds, two rounds."""

    def build(*, experiment: Mapping[str, Any] | None = None, **changes: Any) -> Any:
        from hemoscope.federated.settings.federation import parse_federation

        record = small_experiment(**(experiment or {})).to_json()
        return parse_federation({"name": "tiny", "rounds": 2, **changes, "experiment": record})

    return build


class LocalGrid:
    """Flower's grid in this process: client apps are called one after the other, their messages over Flower's wire.

    Attributes:
        trace: (node, message type, stage of secure aggregation or "", reply) of every message that was answered.
        away: nodes that are not connected.
        drop: called with (node, type, stage); where it says True, the message is lost on its way.
    """

    def __init__(self, apps: Mapping[int, Any], contexts: Mapping[int, Any]) -> None:
        self.apps, self.contexts = dict(apps), dict(contexts)
        self.away: set[int] = set()
        self.sent: dict[str, Any] = {}
        self.trace: list[tuple[int, str, str, Any]] = []
        self.drop: Callable[[int, str, str], bool] = lambda _node, _kind, _stage: False

    def get_node_ids(self) -> list[int]:
        """Who is connected."""
        return [node for node in self.apps if node not in self.away]

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Any]:
        """Answers of everybody whose message is not lost."""
        return [reply for message in messages if (reply := self._answer(message)) is not None]

    def push_messages(self, messages: Any) -> list[str]:
        """Ids of messages; their replies are ready at once."""
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{len(self.sent)}"
            self.sent[message.metadata.message_id] = message
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, ids: Any) -> list[Any]:
        """Replies to these messages, once."""
        asked = [self.sent.pop(one) for one in list(ids) if one in self.sent]
        return self.send_and_receive(asked)

    def _answer(self, message: Any) -> Any:
        from flwr.common.serde import message_from_proto, message_to_proto

        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        stage = str(message.content.config_records.get("secaggplus_configs", {}).get("stage", ""))
        if node in self.away or self.drop(node, kind, stage):
            return None
        reply = self.apps[node](message_from_proto(message_to_proto(message)), self.contexts[node])
        reply = message_from_proto(message_to_proto(reply))
        self.trace.append((node, kind, stage, reply))
        return reply


@pytest.fixture
def local_grid() -> Callable[..., LocalGrid]:
    """``local_grid({11: app, ...})``: a ``LocalGrid`` of anything that replies to messages."""

    def build(apps: Mapping[int, Any]) -> LocalGrid:
        from flwr.app import Context, RecordDict

        return LocalGrid(apps, {node: Context(7, node, {}, RecordDict(), {}) for node in apps})

    return build


@pytest.fixture
def local_sites(hospital_cache: Cache, tmp_path: Path) -> Callable[..., Any]:
    """``local_sites(3, policy=)``: so many sites of a few phantoms each, on a ``LocalGrid``; node ids 11, 12, ..."""

    def build(count: int, *, policy: Any = None, folder: Path = tmp_path) -> Any:
        from flwr.app import Context, RecordDict
        from flwr.supercore.task_identity import TaskIdentity

        from hemoscope.federated.settings.site import Policy, Site
        from hemoscope.federated.site.client_app import make_client_app

        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
        apps, contexts = {}, {}
        for number in range(count):
            work = folder / f"site-{number + 1}"
            work.mkdir(parents=True, exist_ok=True)
            share = max(4, PATIENTS // count)  # sites may share phantoms; nobody minds
            own = [f"p{(number * share + step) % PATIENTS}" for step in range(share)]
            (work / "patients.txt").write_text("\n".join(own))
            site = Site(
                name=work.name,
                data=hospital_cache.folder,
                work=work,
                patients=work / "patients.txt",
                threads=1,
                policy=policy or Policy(least_cell=1),
            )
            apps[number + 11] = make_client_app(lambda _context, site=site: site)
            contexts[number + 11] = Context(7, number + 11, {}, RecordDict(), {})
        return LocalGrid(apps, contexts)

    return build
