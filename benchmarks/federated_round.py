"""Measures what a federated round costs beside training: a server and two sites on this machine, 12 MB each way.

The commands are those of docs/how-to/run-a-federation.md, the network is the default model's, the patients are made. A
round's overhead is the time from a site's request to its next one, less the longest training of a site; transfer over
loopback is part of it. It needs the federated environment (``make setup-federated``) and takes about two minutes:

    .venv-federated/bin/python benchmarks/bench.py federated_round
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row

from hemoscope.data.cache import write_manifest, write_series
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.phantom import make_phantom

_SITES, _PATIENTS, _SLICES, _ROUNDS = ("riverside", "hilltop"), 8, 4, 5
_START_S, _RUN_S = 120.0, 900.0
_PROGRAM = Path(sys.executable).with_name("hemoscope")
_EXPERIMENT = """
name = "timed"
[run]
batch_size = 8
init = "none"
split = "patient"
validation = 0.25
test = 0.25
[network]
backbone = "tf_efficientnet_lite0"
head = "maps"
frozen_stages = 2
[preprocessing]
size = 64
[sampling]
negatives = 2.5
[optimizer]
ema = 0.0
"""
_FEDERATION = f"""
name = "timed"
experiment = "experiment.toml"
rounds = {_ROUNDS}
min_sites = 2
[histograms]
least_cell = 2
every = 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTimes:
    """Seconds of one round.

    Attributes:
        whole: from a site's request to its next one.
        training: of the slower site, its reply packed.
        collected: from the last reply ready at a site to the round on the server's disk.
        asked: from there to the last site that has its next request.
    """

    whole: float
    training: float
    collected: float
    asked: float

    @property
    def overhead(self) -> float:
        """All but training."""
        return self.whole - self.training


def rows() -> Iterator[Row]:
    """The overhead of a round beside its bar."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    for one in found:
        sys.stderr.write(
            f"round of {one.whole:.1f} s: training {one.training:.1f}, reply to disk {one.collected:.1f}, "
            f"to the next request {one.asked:.1f}\n"
        )
    yield Row(
        what=f"a federated round beside training: two sites, 12 MB each, median of {len(found)}",
        limit="Flower's SuperNode looks for work every 3 s, for its reply every .5 s: 1.8 s on average, 3.5 s at most",
        measured=statistics.median(one.overhead for one in found),
        beside="one second",
        compared=1.0,
        unit="s",
        bar=5.0,
        better="at most",
    )


def measure(folder: Path) -> list[RoundTimes]:
    """Run a federation in a folder, and give the times of its rounds but the last, which no request follows."""
    (folder / "experiment.toml").write_text(_EXPERIMENT)
    (folder / "federation.toml").write_text(_FEDERATION)
    for name in _SITES:
        _hospital(folder / name, name)
    _keys(folder)
    with ExitStack() as stack:
        words = ["--keys", "keys/server", "--folder", "state", "--port", "0"]
        stack.enter_context(_running(folder, "server", "server", *words, until="ready on"))
        port = json.loads((folder / "state" / "server.json").read_text())["port"]
        for name in _SITES:
            words = [f"{name}/site.toml", "--keys", f"keys/sites/{name}", "--server", f"127.0.0.1:{port}"]
            stack.enter_context(_running(folder, name, "site", *words, until="SuperNode ID"))
        words = ["federation.toml", "--server", "state", "--output", "run"]
        with _running(folder, "run", "run", *words, until="started"):
            written = _written(folder)
    return _times(folder, written)


def _hospital(folder: Path, name: str) -> None:
    """A site's cache of phantoms, and its file."""
    images: list[dict[str, Any]] = []
    for number in range(_PATIENTS):
        patient = f"{name}-{number}"
        bleeds = frozenset(SUBTYPES) if number % 2 == 0 else frozenset[Any]()
        phantom = make_phantom(seed=number, shape=(_SLICES, 128, 128), bleeds=bleeds)
        mask = np.array(phantom.masks["any"]) if bleeds else None
        write_series(folder / "data", patient, hounsfield=np.array(phantom.hounsfield), mask=mask)
        ids = {"patient_id": patient, "study_id": patient, "series_id": patient}
        for index, shown in enumerate(phantom.slice_labels):
            known = {label.value: int(one) for label, one in zip(LABELS, shown, strict=True)}
            images.append(
                {**ids, **known, "image_id": f"{patient}_{index}", "index": index, "masked": bool(shown.any())}
            )
    made = TrainingData(
        name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="made", changes="none"
    )
    write_manifest(folder / "data", images, made)
    policy = "[policy]\nmin_sites = 2\nleast_cell = 2\n"
    (folder / "site.toml").write_text(f'name = "{name}"\ndata = "data"\nwork = "work"\nthreads = 1\n{policy}')


def _keys(folder: Path) -> None:
    command = [str(_PROGRAM), "federated", "keys", "keys", "--server", "127.0.0.1", "--sites", ",".join(_SITES)]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)  # noqa: S603  ours


def _written(folder: Path) -> list[float]:
    """When each round was on the server's disk, until the run has ended."""
    log, record = folder / "run" / "split" / "rounds.jsonl", folder / "run" / "split" / "part.json"
    written: list[float] = []
    end = time.monotonic() + _RUN_S
    while not record.exists():
        if time.monotonic() > end:
            raise RuntimeError((folder / "run.log").read_text()[-2000:])
        known = len(log.read_text().splitlines()) if log.exists() else 0
        written += [time.time()] * (known - len(written))
        time.sleep(0.02)
    return written


@contextmanager
def _running(folder: Path, name: str, *words: str, until: str) -> Iterator[None]:
    """A command that goes on, once it has said what it must say."""
    path = folder / f"{name}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with path.open("w") as log:
        command = [str(_PROGRAM), "federated", *words]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)  # noqa: S603  ours
    try:
        end = time.monotonic() + _START_S
        while not re.search(until, path.read_text()):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"hemoscope federated {words[0]}: {path.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _times(folder: Path, written: Sequence[float]) -> list[RoundTimes]:
    """From what sites wrote down of each message, and when the server wrote its rounds."""
    came, left = ([_said(folder / name, direction) for name in _SITES] for direction in ("in", "out"))
    found = []
    for number in range(_ROUNDS - 1):
        first, following = (max(site[place] for site in came) for place in (number, number + 1))
        ready = max(site[number] for site in left)
        training = max(away[number] - asked[number] for asked, away in zip(came, left, strict=True))
        found.append(
            RoundTimes(
                whole=following - first,
                training=training,
                collected=written[number] - ready,
                asked=following - written[number],
            )
        )
    return found


def _said(site: Path, direction: str) -> list[float]:
    lines = _lines(site / "work" / "audit.jsonl")
    return [
        datetime.fromisoformat(one["time"]).timestamp()
        for one in lines
        if one["direction"] == direction and one["kind"] == "train"
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
