"""A study of 36 slices, warm, from files to findings, and one forward pass of the paper's network, beside PyTorch.

    .venv/bin/python benchmarks/bench.py study

Processor time (user and system) of one process, both sides in turn in the same run, medians. The study is the whole
one of ``rsna-dicom`` in HEMOSCOPE_DATA, else ``../shared/data``, else the sample. The other side decodes with pydicom
and scores slice by slice in PyTorch eager, float32, with the weights of the same graph; both sides' logits agree. The
paper's network has random weights. Needs the extra ``train``.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from predict import measure
from rows import Row, quick
from torch_beside import eager, read_and_score

from hemoscope.dicom.archive import open_archive
from hemoscope.errors import ConfigError
from hemoscope.inference.bundle import ModelBundle, load_bundle
from hemoscope.inference.engine import Engine
from hemoscope.inference.precision import Precision
from hemoscope.inference.predictor import Predictor
from hemoscope.training.timed_reading import BUNDLE, WEIGHTS

ROUNDS = quick(5)
REPOSITORY = Path(__file__).resolve().parents[1]
PAPER = """
import sys
from pathlib import Path
from hemoscope.training.deployment_timing import write_paper_models
write_paper_models(Path(sys.argv[1]))
"""


def rows() -> Iterator[Row]:
    """Measure the study, the engine, and the paper's network."""
    bundle, files = load_bundle(), study_files()
    exact = Predictor(bundle, precision=Precision.FLOAT32)
    reduced = reduced_engine(bundle)
    yield from study_rows(bundle, files, exact, None if reduced is None else Predictor(bundle, engine=reduced))
    if reduced is not None:
        yield engine_row(exact.engine, reduced, named(reduced, bundle))
    yield from paper_rows()


def study_rows(bundle: ModelBundle, files: list[Path], exact: Predictor, reduced: Predictor | None) -> Iterator[Row]:
    """Files to findings, in float32 and in the precision that the card accepts."""
    forward = eager(bundle, "default")
    beside = read_and_score(files, forward, bundle.card.preprocessing)
    found = read(exact, files)
    assert np.abs(found - beside).max() < 1e-2, "the two sides do not score the same"
    sides = [lambda: read_and_score(files, forward, bundle.card.preprocessing), lambda: read(exact, files)]
    sides += [] if reduced is None else [lambda: read(reduced, files)]
    other, *ours = in_turns(sides)
    bars = [(ours[0], "float32", 0.40)]
    if reduced is not None:
        bars.append((ours[1], named(reduced.engine, bundle), 0.25))
    for seconds, precision, bar in bars:
        yield Row(
            what=f"{len(files)} slices, warm, files to findings, {precision}",
            limit=f"{len(files)} slices, two looks each: {len(files)} x 3.2 GFLOP",
            measured=seconds,
            beside="pydicom and PyTorch eager, float32",
            compared=other,
            unit="CPU s",
            bar=bar,
            better="at most",
        )


def engine_row(exact: Engine, reduced: Engine, name: str) -> Row:
    """One slice of the default network in both precisions."""
    image = np.random.default_rng(0).random((1, *exact.input_shape), dtype=np.float32)
    one, other = in_turns([lambda: exact.run(image), lambda: reduced.run(image)], rounds=quick(30))
    return Row(
        what=f"forward pass of one slice, {name}",
        limit="3.2 GFLOP, operands of half the size: .5 of float32",
        measured=1000 * other,
        beside="float32",
        compared=1000 * one,
        unit="CPU ms",
        bar=0.40,
        better="at most",
    )


def paper_rows() -> Iterator[Row]:
    """The paper's ResNet-50 with random weights: time of one slice, agreement, memory of ``predict``."""
    with tempfile.TemporaryDirectory(prefix="hemoscope-bench-") as name:
        # In a process of its own: exporting must not count as memory of this one.
        subprocess.run([sys.executable, "-c", PAPER, name], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        folder = Path(name) / BUNDLE
        bundle = load_bundle(folder)
        forward = eager(bundle, "paper", weights=Path(name) / WEIGHTS)
        image = np.random.default_rng(0).random(Engine(bundle, precision=Precision.FLOAT32).input_shape)
        images = image[None].astype(np.float32)
        for precision, bar, tolerance in ((Precision.FLOAT32, 0.60, 1e-4), (Precision.BF16, 0.35, 0.005)):
            try:
                engine = Engine(bundle, precision=precision)
            except ConfigError:
                continue
            difference = float(np.abs(engine.run(images).logits[0] - forward(images[0])).max())
            one, other = in_turns(
                [lambda engine=engine: engine.run(images), lambda: forward(images[0])], rounds=quick(9)
            )
            agreement = f"logits within {difference:.1g}, {tolerance:g} is asked for"
            yield paper_row(f"the paper's ResNet-50, one slice, {precision.value}; {agreement}", one, other, bar)
            del engine
        yield memory_row(folder)


def paper_row(what: str, ours: float, other: float, bar: float) -> Row:
    """One precision of the paper's network."""
    return Row(
        what=what,
        limit="8.2 GFLOP a pass",
        measured=1000 * ours,
        beside="PyTorch eager, float32",
        compared=1000 * other,
        unit="CPU ms",
        bar=bar,
        better="at most",
    )


def memory_row(bundle: Path) -> Row:
    """Peak memory of ``predict`` with the paper's network on one slice."""
    command = [str(Path(sys.executable).with_name("hemoscope")), "predict", str(sample()[0]), "--format", "json"]
    _, peak = measure([*command, "--model", str(bundle), "--precision", "float32"])
    return Row(
        what="the paper's ResNet-50, predict of one slice, float32, peak memory",
        limit="197 MB of weights, once as read and once in the order of the kernels: 394 MB, and 100 MB of libraries",
        measured=peak,
        beside="the bar",
        compared=600,
        unit="MB",
        bar=1.0,
        better="at most",
    )


def reduced_engine(bundle: ModelBundle) -> Engine | None:
    """Return the engine in the precision that ``auto`` takes, or in bf16 if that is float32; None without bf16."""
    engine = Engine(bundle)
    if engine.precision is not Precision.FLOAT32:
        return engine
    try:
        return Engine(bundle, precision=Precision.BF16)
    except ConfigError:
        return None


def named(engine: Engine, bundle: ModelBundle) -> str:
    """Name the precision, and say if the card does not accept it."""
    accepted = {one.precision for one in bundle.card.precision or () if one.accepted}
    name = engine.precision.value
    return name if name == "float32" or name in accepted else f"{name} (not accepted by the card)"


def read(predictor: Predictor, files: list[Path]) -> NDArray[np.float64]:
    """Score a study as the product does; return its logits."""
    (outcome,) = predictor.studies(open_archive(files))
    assert outcome.reading is not None
    return outcome.reading.probabilities.slice_logits


def in_turns(sides: list[Callable[[], object]], *, rounds: int = ROUNDS) -> list[float]:
    """Return the median processor seconds of each side; every round runs all of them."""
    found: list[list[float]] = [[] for _ in sides]
    for side in sides:
        side()
    for _ in range(rounds):
        for place, side in enumerate(sides):
            began = time.process_time()
            side()
            found[place].append(time.process_time() - began)
    return [statistics.median(seconds) for seconds in found]


def study_files() -> list[Path]:
    """Return the files of the study with the most slices of ``rsna-dicom``, else those of the sample."""
    data = Path(os.environ.get("HEMOSCOPE_DATA", REPOSITORY.parent / "shared" / "data"))
    files = sorted((data / "rsna-dicom" / "images").glob("*.dcm"))
    uids = {file: str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID) for file in files}
    if not uids:
        return sample()
    (longest, _), *_ = Counter(uids.values()).most_common(1)
    return [file for file, uid in uids.items() if uid == longest]


def sample() -> list[Path]:
    """Return the slices that come with the repository."""
    return sorted((REPOSITORY / "examples" / "sample").glob("*.dcm"))
