"""Measures the paper's deployment claim (366 ms a slice, 2.5 GB): its own network, exported and run by the product.

The network of ``paper.toml`` gets random weights, which do not change the time. ``hemoscope predict`` reads one slice
and a whole series in new processes; PyTorch eager does the same beside it, on the same machine, with one thread and
with all.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.dicom.series import Series
from hemoscope.dicom.series_choice import choose_series
from hemoscope.errors import ConfigError, SeriesError, TrainingError
from hemoscope.inference.bundle import write_bundle
from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.card import TrainingData
from hemoscope.inference.engine import available_threads
from hemoscope.progress import Progress, no_progress
from hemoscope.training.experiment import Experiment, read_experiment
from hemoscope.training.fitted_card import Origin, assembled
from hemoscope.training.fitted_settings import nothing_fitted
from hemoscope.training.models.checkpoint import save_weights
from hemoscope.training.models.export import onnx_graph
from hemoscope.training.models.heads import FlattenHead
from hemoscope.training.models.network import HemorrhageNetwork
from hemoscope.training.timed_reading import BUNDLE, NETWORK, WEIGHTS

RUNS = 3
MOST_SLICES = 36
PREDICT = "hemoscope predict"
EAGER = "PyTorch eager"
# Exit codes of predict that give findings: all read, some inputs refused, or an incomplete study.
_READ = (0, 4, 5)
_BUSY = 0.3  # load average for each processor, from which on other programs disturb
# Variables that would limit the threads of the runs with all of them.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One command to run several times; ``entry`` describes it in the document."""

    command: list[str]
    entry: Document


def measure_deployment(slices: Path, *, runs: int = RUNS, progress: Progress = no_progress) -> Document:
    """Export the paper's network and time it; return the ``timing`` of ``reproduction.json``.

    Args:
        slices: a folder, ZIP or file with a series of head CT as DICOM, one file for each slice; of longer series the
            middle 36 slices are read.
        runs: new processes for each setting; the document has their median and all values.
        progress: called with the processes done and their number.

    Raises:
        ConfigError: no series with at least two single-frame slices, or the system cannot measure processes.
        TrainingError: a measured process failed.
    """
    if not hasattr(os, "wait4"):
        msg = f"the memory of a process cannot be measured on {platform.system()}. Use Linux or macOS"
        raise ConfigError(msg)
    with tempfile.TemporaryDirectory(prefix="hemoscope-timing-") as name:
        folder = Path(name)
        count = _copy_slices(slices, folder)
        experiment, facts = write_paper_models(folder)
        before = os.getloadavg()[0]
        tasks = _tasks(folder, count)
        for step in range(len(tasks) * runs):
            # All settings in turn, then again: a disturbance of some seconds does not hit one setting alone.
            _run(tasks[step % len(tasks)])
            progress(step + 1, len(tasks) * runs)
    return _document(tasks, experiment, facts, count=count, load=(before, os.getloadavg()[0]))


def paper_network() -> tuple[Experiment, HemorrhageNetwork]:
    """Return the experiment of ``paper.toml`` and its network with random weights."""
    experiment = read_experiment(Path("paper"))
    preprocessing = experiment.preprocessing
    network = HemorrhageNetwork(experiment.network, channels=preprocessing.channels, size=preprocessing.size)
    return experiment, network


def _copy_slices(slices: Path, folder: Path) -> int:
    """Write the middle slice into ``one`` and the series into ``series``; return the number of slices."""
    archive = open_archive([slices])
    headers = _longest_series(archive, slices).headers
    start = max(0, (len(headers) - MOST_SLICES) // 2)
    sources = list(dict.fromkeys(header.source for header in headers[start : start + MOST_SLICES]))
    if len(sources) < 2:
        msg = f"{slices.name}: no series of at least two single-frame slices. Give the folder of a head CT"
        raise ConfigError(msg)
    for name, chosen in (("one", [sources[len(sources) // 2]]), ("series", sources)):
        (folder / name).mkdir()
        for number, source in enumerate(chosen):
            (folder / name / f"{number:03d}.dcm").write_bytes(archive.load(source))
    return len(sources)


def _longest_series(archive: Archive, slices: Path) -> Series:
    found: list[Series] = []
    for study in archive.studies:
        try:
            found.append(choose_series(study).series)
        except SeriesError:  # the study has no axial series; another one may have
            continue
    if not found:
        reason = archive.rejected[0].message if archive.rejected else "no DICOM file was found"
        msg = f"{slices.name}: no series of head CT to time ({reason}). Give the folder of a head CT"
        raise ConfigError(msg)
    return max(found, key=len)


def write_paper_models(folder: Path) -> tuple[Experiment, Document]:
    """Write the exported bundle and the weights for PyTorch; return the experiment and facts of the network."""
    experiment, network = paper_network()
    reading = experiment.reading_preprocessing
    rule = StudyRule(extent_mm=experiment.reading.extent_mm)
    nobody = TrainingData(name="none", version="", doi="", license="", attribution="", changes="")
    origin = Origin(experiment=experiment, dataset=nobody, split=None, embedding_size=network.embedding_size)
    unfitted = nothing_fitted("random weights, made to measure time")
    card = assembled(origin, unfitted, rule, version="random", scores=())
    graph = onnx_graph(network, channels=reading.channels, size=reading.size, mirror=experiment.reading.mirror)
    write_bundle(folder / BUNDLE, card, graph)
    save_weights(network, folder / WEIGHTS)
    (folder / NETWORK).write_text(json.dumps(asdict(experiment.network)))
    assert isinstance(network.head, FlattenHead)
    positions = network.head.hidden.in_features // network.embedding_size
    return experiment, {
        "experiment": "paper",
        "side": round(positions**0.5),
        "features": network.embedding_size,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def _tasks(folder: Path, count: int) -> list[_Task]:
    threads = sorted({1, available_threads()})
    found = []
    for number in threads:
        for name, slices in (("one", 1), ("series", count)):
            read = [str(folder / name), "--threads", str(number)]
            about = {"slices": slices, "threads": number}
            predict = ["-m", "hemoscope", "predict", *read, "--model", str(folder / BUNDLE), "--format", "json"]
            found.append(_Task(command=predict, entry={"what": PREDICT, **about, "runs": []}))
            eager = _reading(folder, read, "torch")
            found.append(_Task(command=eager, entry={"what": EAGER, **about, "runs": []}))
        engine = _reading(folder, [str(folder / "series"), "--threads", str(number)], "openvino")
        about = {"slices": count, "threads": number}
        found.append(_Task(command=engine, entry={"what": None, **about, "runs": []}))
    return found


def _reading(folder: Path, read: Sequence[str], engine: str) -> list[str]:
    return ["-m", "hemoscope.training.timed_reading", *read, "--engine", engine, "--model", str(folder)]


def _run(task: _Task) -> None:
    """Run the command in a new process, measured by a small one, and keep the result in its entry."""
    helper = [sys.executable, "-P", "-m", "hemoscope.training.measured_process", sys.executable, "-P", *task.command]
    environment = {key: value for key, value in os.environ.items() if key not in _THREAD_VARIABLES}
    done = subprocess.run(helper, capture_output=True, text=True, check=False, env=environment)  # noqa: S603  # our own
    failed = {"exit_code": done.returncode, "errors": done.stderr}
    found: Document = failed if done.returncode else json.loads(done.stdout)
    if found["exit_code"] not in _READ:
        last = (found["errors"].strip().splitlines() or ["no message"])[-1]
        msg = f"a process to be timed ended with {found['exit_code']}: {last}. Run hemoscope predict on the same slices"
        raise TrainingError(msg)
    if task.command[1] != "hemoscope":
        found |= json.loads(found["output"])
    task.entry["runs"].append(found)


def _document(
    tasks: Sequence[_Task], experiment: Experiment, network: Document, *, count: int, load: tuple[float, float]
) -> Document:
    entries = [task.entry for task in tasks]
    processes = [
        {
            **_about(entry),
            "wall_s": _summary(entry, "wall_s"),
            "cpu_s": _summary(entry, "cpu_s"),
            "peak_memory_gb": _summary(entry, "peak_bytes", 1e-9),
        }
        for entry in entries
        if entry["what"] is not None
    ]
    names = {None: f"OpenVINO, as in {PREDICT}", EAGER: EAGER}
    forward = [
        {
            "what": names[entry["what"]],
            "threads": entry["threads"],
            "wall_ms": _summary(entry, "forward_wall_ms"),
            "cpu_ms": _summary(entry, "forward_cpu_ms"),
        }
        for entry in entries
        if entry["what"] != PREDICT and entry["slices"] == count
    ]
    return {
        "statement": _statement(experiment, count, load),
        "machine": _machine(load),
        "mirror": experiment.reading.mirror,
        "slices": count,
        "network": network,
        "headline": _headline(forward, processes),
        "forward": forward,
        "processes": processes,
    }


def _headline(forward: Sequence[Document], processes: Sequence[Document]) -> Document:
    """The numbers beside the paper's: the forward pass, and the memory of ``predict`` with one slice, on one thread.

    The time is that of the processor: about the wall time on an idle machine, and other programs lengthen it little.
    """
    one = next(entry for entry in forward if entry["what"] != EAGER and entry["threads"] == 1)
    whole = next(entry for entry in processes if entry["what"] == PREDICT and entry["slices"] == 1)
    return {
        "forward_cpu_ms": one["cpu_ms"]["median"],
        "forward_wall_ms": one["wall_ms"]["median"],
        "peak_memory_gb": whole["peak_memory_gb"]["median"],
    }


def _about(entry: Document) -> Document:
    return {key: entry[key] for key in ("what", "slices", "threads")}


def _summary(entry: Document, key: str, factor: float = 1.0) -> Document:
    values = [factor * run[key] for run in entry["runs"]]
    return {"median": median(values), "values": values}


def _statement(experiment: Experiment, count: int, load: tuple[float, float]) -> str:
    looks = (
        "Each slice is also read as its mirror image, which doubles the time; the paper does not do this."
        if experiment.reading.mirror
        else "Each slice is read once: the second reading, of its mirror image, is off, as in the paper."
    )
    busy = (
        " So the machine was busy: wall times are too long, and those of PyTorch with all threads most of all, because "
        "its threads wait for each other. Trust processor times of one thread, or measure again on an idle machine."
        if load[0] > available_threads() * _BUSY
        else ""
    )
    return (
        "The network of paper.toml with random weights, which do not change the time; it also computes heat maps. "
        f"{looks} One slice and {count} slices, each time in a new process. Beside the paper's numbers stand the "
        "processor time of the forward pass on one thread, about its wall time on an idle machine, and the peak memory "
        "of hemoscope predict with one slice on one thread. PyTorch eager reads and prepares the slices with the same "
        f"functions. Load average {load[0]:.1f} before the first "
        f"process and {load[1]:.1f} after the last, on {available_threads()} processors.{busy}"
    )


def _machine(load: tuple[float, float]) -> Document:
    return {
        "processor": _processor(),
        "processors": available_threads(),
        "system": platform.platform(),
        "load_average": list(load),
        "versions": {name: version(name) for name in ("openvino", "torch")},
    }


def _processor() -> str:
    """The processor's name where Linux gives it, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
