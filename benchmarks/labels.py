"""Measures reading the labels of all RSNA 2019 images: 752,803 images, six lines an image, in Kaggle's form.

The table is synthetic: ids as Kaggle's, a label in seven positive. Time and peak memory are those of a new process.

    .venv/bin/python benchmarks/labels.py
    .venv/bin/python benchmarks/labels.py --images 100000
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rows import Row, quick

IMAGES = 752_803
_KAGGLE_ORDER = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
_OURS = """
import sys
from pathlib import Path
from hemoscope.data.rsna import read_rsna_labels
print(len(read_rsna_labels(Path(sys.argv[1]))))
"""
_PANDAS = """
import sys
import pandas
table = pandas.read_csv(sys.argv[1]).drop_duplicates()
table[["image", "label"]] = table["ID"].str.rsplit("_", n=1, expand=True)
print(len(table.pivot(index="image", columns="label", values="Label")))
"""


def write_labels(path: Path, images: int) -> Path:
    """Write a table in the form of ``stage_2_train.csv``."""
    draw = random.Random(0)  # noqa: S311  # labels, not secrets
    with path.open("w", encoding="utf-8") as stream:
        stream.write("ID,Label\n")
        for image in range(images):
            positive = draw.randrange(5) if draw.random() < 0.14 else None
            values = [int(place == positive) for place in range(5)]
            values.append(int(positive is not None))
            name = f"ID_{(image * 2_654_435_761) % (1 << 36):09x}"
            stream.writelines(f"{name}_{label},{value}\n" for label, value in zip(_KAGGLE_ORDER, values, strict=True))
    return path


def measured(program: str, path: Path, images: int) -> tuple[float, float]:
    """Return processor seconds and peak memory (MB) of a program in a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shell = f"import resource; exec({program!r}); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", shell, path], check=True, capture_output=True, text=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found, peak = map(int, done.stdout.split())
    if found != images:
        sys.exit(f"{found} of {images} images were read")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak * 1024 / 1e6


def rows(images: int | None = None) -> Iterator[Row]:
    """Measure time and memory, for ``make bench``."""
    images = images or quick(IMAGES, 2_000)
    with tempfile.TemporaryDirectory() as folder:
        path = write_labels(Path(folder) / "labels.csv", images)
        size = path.stat().st_size / 1e6
        ours, other = (sorted(measured(program, path, images) for _ in range(2))[0] for program in (_OURS, _PANDAS))
    beside = f"pandas (read_csv, rsplit, pivot: {other[0]:.1f} CPU s, {other[1]:.0f} MB); the bar is a value"
    texts = images * (61 + 8) / 1e6
    yield Row(
        what=f"labels of {images:,} images, time",
        limit=f"{size:.0f} MB of text; {images * 6:,} lines to check at 1 microsecond: {images * 6e-6:.1f} s",
        measured=ours[0],
        beside=beside,
        compared=1.0,
        unit="CPU s",
        bar=10,
        better="at most",
    )
    yield Row(
        what=f"labels of {images:,} images, peak memory",
        limit=f"{texts:.0f} MB for the ids as texts of Python, {images * 6 / 1e6:.0f} MB for the labels",
        measured=ours[1],
        beside=beside,
        compared=1.0,
        unit="MB",
        bar=600,
        better="at most",
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    start = time.monotonic()
    for row in rows(parser.parse_args().images):
        print(f"{row.what}: {row.measured:.4g} {row.unit} ({row.beside})")
    print(f"{time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
