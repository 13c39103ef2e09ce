"""Builds every kind of implausible input from good data, and counts what the check of Hounsfield units catches.

    python experiments/plausibility.py [--data FOLDER] [--every 4] [--output FILE]

``--data`` holds CT-ICH (``ct-ich``) and, if present, RSNA slices (``rsna-dicom``), a CQ500 series (``cq500-series``)
and public test files (``public-dicom``). Without it, only phantoms are used. Good data are whole series, all of their
slices one by one, and variants that are good too: cropped to the head, skull-stripped, defaced, noisy. Wrong values
are made from every ``--every``-th whole series and from the middle slice of each. Prints two tables in Markdown and,
with ``--output``, writes them.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy import ndimage

from hemoscope.data.ct_ich import read_hounsfield, read_table
from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.contrast_pixels import BRIGHT, sinus_hounsfield
from hemoscope.dicom.plausibility import implausible_values, slices_with_metal, unlike_a_head
from hemoscope.dicom.quality import is_other_anatomy
from hemoscope.dicom.read import read_slices
from hemoscope.errors import DicomReadError
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume

Array = NDArray[np.int16]
Floats = NDArray[np.float64]
_INT16 = np.iinfo(np.int16)


@dataclass
class Count:
    """How many inputs of one kind were tried, refused and noted (no head, metal, contrast), and the reasons given."""

    tried: int = 0
    refused: int = 0
    noted: int = 0
    metal: int = 0
    contrast: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, hounsfield: NDArray[np.generic], spacing: tuple[float | None, float | None, float | None]) -> None:
        """Check one input."""
        values = np.clip(np.rint(hounsfield), _INT16.min, _INT16.max).astype(np.int16)
        volume = HounsfieldVolume(
            hounsfield=values, spacing_mm=spacing, positions_mm=(None,) * len(values), orientation=None
        )
        wrong = implausible_values(volume)
        unlike = None if wrong else unlike_a_head(volume)
        self.tried += 1
        self.refused += wrong is not None
        self.noted += unlike is not None
        self.metal += slices_with_metal(volume) > 0
        self.contrast += (sinus_hounsfield(volume) or 0.0) >= BRIGHT
        if reason := wrong or unlike:
            self.reasons[reason] += 1


UNKNOWN = (None, None, None)


def good_series(data: Path | None) -> Iterator[tuple[str, Array]]:
    """Yield the source and the HU of every whole series; RSNA slices one by one."""
    for seed in range(8):
        yield "phantoms", make_phantom(seed=seed, shape=(24, 128, 128)).hounsfield
    if data is None:
        return
    patients: dict[str, list[Array]] = {}
    folder = data / "ct-ich"
    for one in track(read_table(folder), description="CT-ICH"):
        bone = folder / one.bone_file if one.bone_file else None
        slices = patients.setdefault(one.patient_id, [])
        slices.append(read_hounsfield(folder / one.brain_file, bone, image_id=one.image_id))
        if len(patients) > 1 and len(slices) == 1:
            done = next(iter(patients))
            yield "CT-ICH", np.stack(patients.pop(done))
    for left in patients.values():
        yield "CT-ICH", np.stack(left)
    for name in ("cq500-series", "rsna-dicom"):
        if (data / name).is_dir():
            archive = open_archive(data / name)
            for study in archive.studies:
                for series in study.series:
                    yield name, read_series(archive, series).volume.hounsfield


def wrong_values(good: Array, random: np.random.Generator) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield every kind of wrong values made from good ones; arithmetic is that of the reader's int16 volume."""
    wide = good.astype(np.int32)
    yield "offset +1024, 16 bits", wide + 1024
    yield "offset +1024, 12 bits", np.clip(wide + 1024, 0, 4095)
    yield "offset +1000", wide + 1000
    yield "offset -1024", wide - 1024
    yield "signed read as unsigned, 16 bits", wide % 65536
    yield "signed read as unsigned, 12 bits", wide % 4096
    yield "unsigned read as signed, offset 32768", wide - 32768 + 1024
    yield "unsigned read as signed, 12 bits", (wide + 3072) % 4096 - 3072
    yield "swapped bytes", good.byteswap()
    yield "brain window as 0 to 255", window(wide, 40, 80) * 255
    yield "brain window, clipped in HU", np.clip(wide, 0, 80)
    yield "subdural window as 0 to 255", window(wide, 80, 200) * 255
    yield "bone window as 0 to 255", window(wide, 600, 2800) * 255
    yield "lowest to highest as 0 to 4095", (wide - wide.min()) / max(int(np.ptp(wide)), 1) * 4095
    yield "inverted", -wide
    yield "scaled by 2", wide * 2
    yield "scaled by 0.5", wide / 2
    yield "picture of 8 bits with the intercept of a slice", window(wide, 40, 80) * 255 - 1024
    yield "noise, normal", random.normal(0, 300, wide.shape)
    yield "noise, uniform in 12 bits", random.integers(-1024, 3072, wide.shape)
    yield "shuffled pixels", random.permutation(good.reshape(len(good), -1).T).T.reshape(good.shape)
    yield "columns doubled, Pixel Spacing not", good.repeat(2, axis=2)
    yield "rows doubled, Pixel Spacing not", good.repeat(2, axis=1)
    yield "blank, 0", np.zeros_like(good)
    yield "blank, air", np.full_like(good, -1000)


def window(values: NDArray[np.int32], center: float, width: float) -> Floats:
    """Return a display window as 0 to 1."""
    return np.clip((values - center + width / 2) / width, 0, 1)


def good_variants(good: Array, random: np.random.Generator) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield variants that are good data too."""
    body = good > -300
    rows, columns = np.flatnonzero(body.any((0, 2))), np.flatnonzero(body.any((0, 1)))
    yield "cropped to the head", good[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    middle = good[len(good) // 2]
    inside = np.argwhere(enclosed(middle))
    if inside.size:
        (top, left), (bottom, right) = inside.min(0), inside.max(0)
        height, breadth = (bottom - top) // 5, (right - left) // 5
        yield (
            "one slice, cropped inside the skull",
            middle[None, top + height : bottom - height, left + breadth : right - breadth],
        )
    brain = np.stack([enclosed(one) for one in good])
    if brain.mean() > 0.05:
        yield "skull-stripped, background 0 (a note is right)", np.where(brain, good, 0)
        yield "skull-stripped, background -1024 (a note is right)", np.where(brain, good, -1024)
    for name, value in (("0", 0), ("air", -1000)):
        face = good.copy()
        face[: len(good) // 2, : rows[0] + (rows[-1] - rows[0]) // 3] = value
        yield f"defaced, face {name}", face
    yield "noise of 60 HU added (sharp kernel)", good + random.normal(0, 60, good.shape)
    yield "rotated by 180 degrees", good[:, ::-1, ::-1]
    yield "every second slice, upside down", good[::-2]
    padded = good.copy()
    y, x = np.ogrid[: good.shape[1], : good.shape[2]]
    circle = np.hypot(y / good.shape[1] - 0.5, x / good.shape[2] - 0.5) > 0.5
    padded[:, circle] = -2000
    yield "padding -2000 outside a circle", padded


def enclosed(one: Array) -> NDArray[np.bool_]:
    """The inside of the skull in one slice."""
    bone = ndimage.binary_closing(np.pad(one > 200, 4), iterations=3)[4:-4, 4:-4]
    inside: NDArray[np.bool_] = ndimage.binary_erosion(ndimage.binary_fill_holes(bone) & ~bone, iterations=2)
    return inside


def not_heads(random: np.random.Generator) -> Iterator[tuple[str, Floats, tuple[float, float, float]]]:
    """Yield synthetic objects with right HU that are no heads: name, HU, spacing in mm."""
    shape, spacing = (24, 192, 192), (5.0, 2.1, 2.1)
    y, x = (np.linspace(-1, 1, size) * size * 2.1 / 2 for size in shape[1:])
    y, x = y[:, None], x[None]
    for seed in range(4):
        wide = 170 + 8 * seed
        noise = random.normal(0, 8, shape)
        oval = np.hypot(x / wide, y / (wide * 0.7))
        abdomen = np.where(oval < 1, -100.0, -1000.0)
        abdomen[oval < 0.85] = 45
        abdomen[np.hypot(x, y - 80) < 22] = 600
        for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False):
            abdomen[np.hypot(x - 0.8 * wide * np.cos(angle), y - 0.56 * wide * np.sin(angle)) < 5] = 500
        yield "abdomen", abdomen + noise, spacing
        chest = abdomen.copy()
        chest[np.hypot(np.abs(x) - 75, y) < 62] = -830
        yield "chest", chest + noise, spacing
        radius = np.hypot(x, y)
        cylinder = np.where(radius < 90 + 5 * seed, 0.0, -1000.0)
        yield "water cylinder", cylinder + noise, spacing
        brain = np.where(radius < 90 + 5 * seed, 35.0, -1000.0)
        yield "cylinder of 35 HU", brain + noise, spacing
        cylinder[(radius > 84 + 5 * seed) & (radius < 90 + 5 * seed)] = 120
        yield "water cylinder in acrylic", cylinder + noise, spacing
        knee = np.where(radius < 18, 700.0, np.where(radius < 55, 50.0, -1000.0))
        yield "cylinder around a bone, as wide as a knee", knee + noise, spacing


def public_slices(folder: Path, counts: dict[str, Count]) -> None:
    """Check public CT files one by one, by what their header says: another part than the head, or not."""
    for path in sorted(folder.glob("*.dcm")):
        try:
            slices = read_slices(path, source=path.name)
        except DicomReadError:
            continue
        kind = "public files, another part" if is_other_anatomy(slices[0].header) else "public files, head or unknown"
        for one in slices:
            counts.setdefault(kind, Count()).add(one.hounsfield[None], UNKNOWN)


ONE_SLICE = "one slice: "


def implausible_table(counts: dict[str, Count]) -> list[str]:
    """Return the rows of a Markdown table: of series and of single slices, how many were refused or noted."""
    lines = ["| kind | series | refused | noted | single slices | refused | noted | reason given most often |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for kind, one in counts.items():
        if kind.startswith(ONE_SLICE):
            continue
        single = counts.get(ONE_SLICE + kind, Count())
        reason = one.reasons.most_common(1)[0][0] if one.reasons else ""
        figures = [one.tried, one.refused, one.noted, single.tried, single.refused, single.noted]
        lines.append(f"| {kind} | {' | '.join(map(str, figures))} | {reason} |")
    series = [one for kind, one in counts.items() if not kind.startswith(ONE_SLICE)]
    slices = [one for kind, one in counts.items() if kind.startswith(ONE_SLICE)]
    sums = [
        sum(getattr(one, name) for one in group) for group in (series, slices) for name in ("tried", "refused", "noted")
    ]
    lines.append(f"| all | {' | '.join(map(str, sums))} | |")
    return lines


def good_table(counts: dict[str, Count]) -> list[str]:
    """Return the rows of a Markdown table: how many good inputs were refused or noted."""
    lines = ["| data | tried | refused | noted | metal noted | contrast noted |", "|---|---|---|---|---|---|"]
    for kind, one in counts.items():
        lines.append(f"| {kind} | {one.tried} | {one.refused} | {one.noted} | {one.metal} | {one.contrast} |")
    return lines


class Measured:
    """The counts of implausible and of good inputs, by kind."""

    def __init__(self) -> None:
        """Start with no input."""
        self.bad: dict[str, Count] = {}
        self.good: dict[str, Count] = {}

    def add_good(self, source: str, series: Array) -> None:
        """Check a series, and its slices one by one."""
        add(self.good, f"{source}, series", series)
        if len(series) > 1:
            for one in series:
                add(self.good, f"{source}, single slices", one[None])

    def add_made(self, series: Array, random: np.random.Generator) -> None:
        """Check what is made from a good series."""
        for kind, values in wrong_values(series, random):
            add(self.bad, kind, values)
        for kind, values in wrong_values(series[len(series) // 2][None], random):
            add(self.bad, ONE_SLICE + kind, values)
        for kind, values in good_variants(series, random):
            add(self.good, kind, values)


def add(
    counts: dict[str, Count],
    kind: str,
    values: NDArray[np.generic],
    spacing: tuple[float | None, float | None, float | None] = UNKNOWN,
) -> None:
    """Check one input of a kind."""
    counts.setdefault(kind, Count()).add(values, spacing)


def measured(data: Path | None, every: int) -> Measured:
    """Check good series, what is made from every ``every``-th of them, and objects that are no heads."""
    random, found, whole = np.random.default_rng(0), Measured(), 0
    for source, series in good_series(data):
        found.add_good(source, series)
        if len(series) >= 15:
            if whole % every == 0:
                found.add_made(series, random)
            whole += 1
    for kind, values, spacing in not_heads(random):
        add(found.bad, kind, values, spacing)
    if data is not None and (data / "public-dicom").is_dir():
        public_slices(data / "public-dicom", found.good)
    return found


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with ct-ich and, if present, the others")
    parser.add_argument("--every", type=int, default=4, help="make wrong values from every n-th series")
    parser.add_argument("--output", type=Path, help="write the tables to this file")
    arguments = parser.parse_args()
    found = measured(arguments.data, arguments.every)
    text = "\n".join(
        ["Implausible inputs:", "", *implausible_table(found.bad), "", "Good inputs:", "", *good_table(found.good), ""]
    )
    Console().print(text, markup=False, soft_wrap=True)
    if arguments.output is not None:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
