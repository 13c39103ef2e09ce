"""Measures ``prepare``: a folder of DICOM files becomes a cache; beside pydicom, NumPy and ``np.save`` in a loop.

The files are phantoms in Kaggle's layout, uncompressed, 36 slices a series. Ours checks more and stores more than the
loop: refusals, series in anatomical order, a table of labels, checksums, files that outlive a power failure.

    .venv/bin/python benchmarks/prepare.py
    .venv/bin/python benchmarks/prepare.py --parts                       # processor time of each part of a slice
    .venv/bin/python benchmarks/prepare.py --files 100000 --size 128     # prepared, then resumed with 100 files more
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree

import numpy as np
import pydicom
from rows import Row, interleaved, quick, shared_data

from hemoscope.data.label_table import LabelledImage
from hemoscope.data.prepare_dicom import prepare_dicom
from hemoscope.data.rsna import DATASET
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

_A_SERIES = 36
_NEW = 100  # files that a resumed preparation finds
_COMMAND = """
import resource, sys, time
from pathlib import Path
from hemoscope.cli import main
start = time.monotonic()
code = main(sys.argv[1:])
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
busy = sum(one.ru_utime + one.ru_stime for one in used)
print("MEASURED", time.monotonic() - start, busy, max(one.ru_maxrss for one in used))
sys.exit(code)
"""


def write_files(folder: Path, files: int, *, size: int) -> dict[str, LabelledImage]:
    """Write phantoms, series by series, and return their labels; the pixels of all series are those of one."""
    with tempfile.TemporaryDirectory() as drafts:
        phantom = make_phantom(seed=0, shape=(_A_SERIES, size, size))
        return write_copies(folder, write_series(phantom, Path(drafts), seed=0), files)


def write_copies(folder: Path, series_files: Sequence[Path], files: int) -> dict[str, LabelledImage]:
    """Write a series again and again, each time as another series, and return labels."""
    templates = [pydicom.dcmread(path) for path in series_files]
    labels: dict[str, LabelledImage] = {}
    for number in range(files):
        series, place = divmod(number, len(templates))
        dataset = templates[place]
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.1.{series + 1}", f"2.25.2.{series + 1}"
        name = f"ID_{number:09d}"
        dataset.save_as(folder / f"{name}.dcm")
        labels[name] = LabelledImage(labels=(0,) * 6)
    return labels


def plain_loop(images: Path, output: Path, *, part: int = 0, parts: int = 1) -> None:
    """Do what a straightforward script does: read, rescale, save; of several, one part."""
    output.mkdir(exist_ok=True)
    for path in sorted(images.iterdir())[part::parts]:
        dataset = pydicom.dcmread(path)
        values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        np.save(output / f"{path.stem}.npy", values.astype(np.int16))


def plain_loops(images: Path, output: Path, processes: int) -> None:
    """Run the loop in one process a core, their start included."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(plain_loop, images, output, part=part, parts=processes) for part in range(processes)]
        for one in running:
            one.result()


def prepared(images: Path, labels: dict[str, LabelledImage], output: Path, *, workers: int = 1) -> None:
    """Prepare into this folder; if it is empty, from the beginning."""
    prepare_dicom(images, labels, output, DATASET, pseudonyms=False, workers=workers)


def remove(folder: Path, *names: str) -> None:
    """Remove what earlier runs wrote, so that none pays for freeing it."""
    for name in names:
        rmtree(folder / name, ignore_errors=True)


def rows(size: int = 512) -> Iterator[Row]:
    """Measure one process beside the loop, two beside one, and a resumed preparation, for ``make bench``."""
    files = quick(1440, 72)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        labels = write_files(folder / "images", files, size=size)
        yield _one_process(folder, labels)
        yield _resumed(folder, labels)
        yield _all_cores(folder, labels)
    if len(os.sched_getaffinity(0)) > 1:
        yield two_processes("uncompressed", lambda images: write_files(images, quick(4320, 72), size=size))
        series = sorted(shared_data("cq500-series").glob("*.dcm"))
        yield two_processes("JPEG Lossless", lambda images: write_copies(images, series, quick(24, 2) * len(series)))


def _one_process(folder: Path, labels: dict[str, LabelledImage]) -> Row:
    images = folder / "images"
    size = sum(path.stat().st_size for path in images.iterdir()) / 1e6
    prepared(images, labels, folder / "first")  # imports, and the files into the page cache
    ours, plain = interleaved(
        lambda: prepared(images, labels, folder / "ours"),
        lambda: plain_loop(images, folder / "plain"),
        times=5,
        before=lambda: remove(folder, "first", "ours", "plain"),
    )
    return Row(
        what=f"prepare: {len(labels)} uncompressed slices, one process, slices a processor second",
        limit=(
            f"{size:.0f} MB to read, to check (CRC-32, 4 GB/s) and to write: "
            f"{size / 7000 * 2 + size / 4000:.2f} s without parsing"
        ),
        measured=len(labels) / ours,
        beside="pydicom, NumPy and np.save in a loop",
        compared=len(labels) / plain,
        unit="slices / CPU s",
        bar=2,
        better="at least",
    )


def _all_cores(folder: Path, labels: dict[str, LabelledImage]) -> Row:
    images, cores = folder / "images", len(os.sched_getaffinity(0))
    write_labels(folder, labels)
    ours, plain = interleaved(
        lambda: measured_command(folder, workers=cores),
        lambda: plain_loops(images, folder / "plain", cores),
        times=3,
        clock=time.perf_counter,
        before=lambda: remove(folder, "cache", "plain"),
    )
    size = sum(path.stat().st_size for path in images.iterdir()) / 1e6
    return Row(
        what=f"hemoscope prepare: {len(labels)} uncompressed slices, one process a core, wall time, start included",
        limit=f"{size:.0f} MB to write and flush to the disk; the loop flushes nothing",
        measured=len(labels) / ours,
        beside="pydicom, NumPy and np.save in a loop, one process a core",
        compared=len(labels) / plain,
        unit="slices/s",
        bar=2,
        better="at least",
    )


def two_processes(words: str, write: Callable[[Path], dict[str, LabelledImage]]) -> Row:
    """Compare two local processes with one, by the command, on the files that ``write`` makes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, cache = folder / "images", folder / "cache"
        images.mkdir()
        labels = write(images)
        write_labels(folder, labels)
        measured_command(folder, workers=2)  # the files into the page cache
        written = sum(path.stat().st_size for path in (cache / "series").iterdir()) / 1e6
        one, two = interleaved(
            lambda: measured_command(folder, workers=1),
            lambda: measured_command(folder, workers=2),
            times=3,
            clock=time.perf_counter,
            before=lambda: remove(folder, "cache"),
        )
    return Row(
        what=f"hemoscope prepare: {len(labels)} slices, {words}, two local processes, their start included",
        limit=f"2 x one process, and {written:.0f} MB to write: {written / two:.0f} MB/s reached",
        measured=len(labels) / two,
        beside="one process",
        compared=len(labels) / one,
        unit="slices/s",
        bar=1.8,
        better="at least",
    )


def _resumed(folder: Path, labels: dict[str, LabelledImage]) -> Row:
    images, output = folder / "images", folder / "cache"
    prepared(images, labels, output)
    whole, resumed = interleaved(
        lambda: prepared(images, labels, folder / "whole"),
        lambda: prepared(images, labels, output),
        times=3,
        before=lambda: remove(folder, "whole"),
    )
    size = sum(path.stat().st_size for path in (output / "series").iterdir()) / 1e6
    return Row(
        what=f"prepare: {len(labels)} slices again, nothing new",
        limit=f"{size:.0f} MB to read and to check (CRC-32): {size / 7000 + size / 4000:.2f} s; no header is read",
        measured=resumed,
        beside="preparing all",
        compared=whole,
        unit="CPU s",
        bar=0.4,
        better="at most",
    )


def parts(files: int, size: int) -> None:
    """Print the processor milliseconds that each part of a slice takes on its own, the least of five passes."""
    from hemoscope.dicom import tags
    from hemoscope.dicom.part10 import parse
    from hemoscope.dicom.read import decode_rounded, open_image

    limits = ReadLimits()
    with tempfile.TemporaryDirectory() as name, (Path(name) / "written").open("wb") as stream:
        folder = Path(name) / "images"
        folder.mkdir()
        write_files(folder, files, size=size)
        paths = sorted(folder.iterdir())
        contents = [path.read_bytes() for path in paths]
        opened = [open_image(content, source="a", limits=limits) for content in contents]
        slices = [decode_rounded(image, {0})[0].hounsfield for image in opened]
        volume = np.empty((files, size, size), dtype=np.int16)
        until = tags.SERIES_INSTANCE_UID
        every: dict[str, Callable[[int], object]] = {
            "read the file": lambda place: paths[place].read_bytes(),
            "header up to the series": lambda place: parse(
                contents[place][:8192], source="a", limits=limits, until=until
            ),
            "whole header, every check and value": lambda place: open_image(contents[place], source="a", limits=limits),
            "HU, into the volume": lambda place: decode_rounded(opened[place], {0}, into={0: volume[place]}),
            "CRC-32": lambda place: zlib.crc32(slices[place]),
            "write": lambda place: stream.write(slices[place].data),
            "pydicom alone: dcmread": lambda place: pydicom.dcmread(paths[place]),
        }
        for what, call in every.items():
            found = []
            for _ in range(5):
                start = time.thread_time()
                for place in range(files):
                    call(place)
                found.append(time.thread_time() - start)
            print(f"{what:<40}{min(found) / files * 1000:6.3f} CPU ms")


def write_labels(folder: Path, labels: dict[str, LabelledImage]) -> None:
    """Write the table of labels that the command reads."""
    table = "".join(f"{one},0,0,0,0,0,0\n" for one in labels)
    head = "image_id,any,epidural,intraparenchymal,intraventricular,subarachnoid,subdural\n"
    (folder / "labels.csv").write_text(head + table, encoding="utf-8")


def measured_command(folder: Path, *, workers: int) -> tuple[float, float, float]:
    """Return wall seconds, processor seconds and peak memory (MB) of the command."""
    paths = ["--images", folder / "images", "--labels", folder / "labels.csv", "--output", folder / "cache"]
    words = ["prepare", "table", "--name", "phantoms", "--license", "none", *map(str, paths), "--workers", str(workers)]
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", _COMMAND, *words], check=True, stdout=subprocess.PIPE, text=True
    )
    wall, busy, peak = map(float, done.stdout.split("MEASURED")[1].split())
    return wall, busy, peak * 1024 / 1e6


def many(files: int, size: int, workers: int) -> None:
    """Prepare many files, resume with nothing new, and with some files more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        labels = write_files(folder / "images", files, size=size)
        write_labels(folder, labels)
        later = sorted((folder / "images").iterdir())[-_NEW:]
        (folder / "later").mkdir()
        for path in later:
            path.rename(folder / "later" / path.name)
        for what in ("prepared", "resumed, nothing new", f"resumed, {_NEW} new files"):
            if "new files" in what:
                for path in later:
                    (folder / "later" / path.name).rename(path)
            wall, busy, peak = measured_command(folder, workers=workers)
            print(f"{what}: {wall:.1f} s wall, {busy:.1f} CPU s, peak {peak:.0f} MB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, help="prepare and resume so many files with the command")
    parser.add_argument("--parts", action="store_true", help="print what each part of a slice takes")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.parts:
        parts(3 * _A_SERIES, arguments.size)
        return
    if arguments.files:
        many(arguments.files, arguments.size, arguments.workers)
        return
    for row in rows(size=arguments.size):
        print(f"{row.what}: {row.measured:.4g} {row.unit}, {row.beside} {row.compared:.4g}: {row.ratio:.3g}")


if __name__ == "__main__":
    main()
