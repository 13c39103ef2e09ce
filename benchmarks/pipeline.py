"""The reading pipeline of one study: wall time beside processor time, decoding in children, and peak memory.

Reads the thin series of the shared data (HEMOSCOPE_DATA, or ../shared/data); without it, only phantoms are decoded.

    .venv/bin/python benchmarks/pipeline.py

Each measurement runs in a process of its own, with children counted. A study is read warm: the model is loaded, the
decoders are started, and the files are in the page cache.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from predict import measure
from rows import Row, quick

_RUNS = quick(5)
_DATA = Path(os.environ.get("HEMOSCOPE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
_SERIES = _DATA / "cq500-series"

# Wall and processor seconds of reading a study, each time from its files; processor time of living children counts.
_STUDY = """
import json, sys, time
from processor_time import processor_s
from hemoscope.dicom.archive import open_archive
from hemoscope.inference.inputs import load_model
model, found = load_model(), []
for _ in range(1 + int(sys.argv[2])):
    wall, cpu = time.perf_counter(), processor_s()
    model.predict(open_archive(sys.argv[1]))
    found.append((time.perf_counter() - wall, processor_s() - cpu))
print(json.dumps([model.engine.threads, *found[1:]]))
"""

# Processor seconds of decoding a series, in turn with children and without.
_DECODING = """
import json, sys
from processor_time import processor_s
from hemoscope.dicom import read
from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.pixels import decode_frame
apart = read.decode_apart
def here(fragments, **given):
    return decode_frame(fragments, **given), ()
def once(decode):
    read.decode_apart = decode
    archive = open_archive(sys.argv[1])
    before = processor_s()
    read_series(archive, archive.studies[0].series[0], threads=1)
    return processor_s() - before
once(apart), once(here)
print(json.dumps([(once(apart), once(here)) for _ in range(int(sys.argv[2]))]))
"""


def rows() -> Iterator[Row]:
    """Measure, and yield a row for each bar."""
    if _SERIES.is_dir():
        yield _wall()
        yield _memory()
    with tempfile.TemporaryDirectory() as folder:
        for name, series in _series(Path(folder)):
            pairs = _measured(_DECODING, series, runs=_RUNS)
            yield Row(
                what=f"reading a series, {name}: decoders in children",
                limit="the same decoder without a second process; each frame and its pixels are copied once more",
                measured=statistics.median(pair[0] for pair in pairs),
                beside="decoders in this process",
                compared=statistics.median(pair[1] for pair in pairs),
                unit="CPU s",
                bar=1.15,
                better="at most",
            )


def _wall() -> Row:
    threads, *runs = _measured(_STUDY, _SERIES, runs=_RUNS)
    size = sum(path.stat().st_size for path in _SERIES.iterdir()) / 1e6
    return Row(
        what=f"default model, {len(list(_SERIES.iterdir()))} thin slices, files to findings, warm: wall time",
        limit=f"{size:.0f} MB to read: .01 s from memory; all processors busy from the first header to the last score",
        measured=statistics.median(wall for wall, _ in runs),
        beside=f"processor time / {threads} processors",
        compared=statistics.median(cpu / threads for _, cpu in runs),
        unit="s",
        bar=1.15,
        better="at most",
    )


def _memory() -> Row:
    command = [str(Path(sys.executable).with_name("hemoscope")), "predict", str(_SERIES), "--format", "json"]
    _, peak = measure(command)
    return Row(
        what="hemoscope predict of the same series: peak memory of the largest process",
        limit="125 MB of pixels (238 x 512 x 512 x 2 bytes), 75 MB of Python and libraries, 150 MB of the engine",
        measured=peak,
        beside="1 MB",
        compared=1.0,
        unit="MB",
        bar=300.0,
        better="at most",
    )


def _series(folder: Path) -> Iterator[tuple[str, Path]]:
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

    from hemoscope.testing.dicom_writer import PixelCoding, write_series
    from hemoscope.testing.phantom import make_phantom

    head = make_phantom(seed=0, shape=(24, 512, 512))
    for syntax in (JPEGLSLossless, JPEG2000Lossless, ExplicitVRLittleEndian):
        write_series(head, folder / syntax, coding=PixelCoding(transfer_syntax=syntax))
        yield syntax.name.split(" (")[0], folder / syntax
    if _SERIES.is_dir():
        yield "JPEG Lossless, thin slices", _SERIES


def _measured(program: str, path: Path, *, runs: int) -> list[Any]:
    command = [sys.executable, "-c", program, str(path), str(runs)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)  # noqa: S603 - our own program
    return list(json.loads(done.stdout))


def main() -> int:
    """Measure and print the table."""
    from bench import table

    print(table(list(rows())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
