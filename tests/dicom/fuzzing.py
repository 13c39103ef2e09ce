"""Mutate DICOM files, read, assemble and de-identify them in a child process with limits on memory and time a file.

Run as a program: ``fuzzing.py SEEDS FIRST COUNT``. Prints a line before each file, so that its parent knows which one
crashed or hung, and one at the end with the number of results and of each refusal.
"""

import json
import random
import resource
import signal
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hemoscope.dicom.slices import CTSlice, SliceHeader

SECONDS_PER_FILE = 20
# What libraries and one thread's stack reserve, and generous room above it; a jump past it is a MemoryError or worse.
ADDRESS_SPACE = 3 << 30
STUDY_SLICES = 24  # damaged slices that are assembled together
RESIDENT_GROWTH = 400 << 20


def mutate(data: bytes, number: int) -> bytes:
    """Damage a file in one to four ways that ``number`` chooses: the same number always does the same."""
    random_ = random.Random(number)
    damaged = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4))):
        random_.choice((flip_bytes, truncate, change_length, splice, overwrite_number, damage_codestream))(
            damaged, random_
        )
    return bytes(damaged)


def flip_bytes(data: bytearray, random_: random.Random) -> None:
    """Flip bits, more often in the header than in the pixels."""
    for _ in range(random_.choice((1, 3, 30))):
        if data:
            end = len(data) if random_.random() < 0.4 else min(len(data), 2500)
            data[random_.randrange(end)] ^= 1 << random_.randrange(8)


def truncate(data: bytearray, random_: random.Random) -> None:
    """Cut the end off."""
    del data[random_.randrange(len(data) + 1) :]


def change_length(data: bytearray, random_: random.Random) -> None:
    """Set one of the declared lengths: after an explicit VR, or of an item or the pixel data."""
    places = [place for place in range(132, min(len(data) - 12, 4000)) if data[place : place + 2].isupper()]
    places += [place + 4 for place in _find(data, b"\xfe\xff\x00\xe0")] + [
        place + 8 for place in _find(data, b"\xe0\x7f\x10\x00")
    ]
    if places:
        place = random_.choice(places)
        wide = random_.random() < 0.5
        length = random_.choice((0, 1, 2, 7, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, random_.randrange(1 << 20)))
        code, offset = ("<I", 4) if wide else ("<H", 2)
        packed = struct.pack(code, length & (0xFFFFFFFF if wide else 0xFFFF))
        data[place + offset : place + offset + len(packed)] = packed


def splice(data: bytearray, random_: random.Random) -> None:
    """Copy a piece of the file to another place of it, or remove one."""
    if len(data) > 16:
        start, size = random_.randrange(len(data) - 8), random_.randrange(1, 64)
        if random_.random() < 0.5:
            place = random_.randrange(len(data))
            data[place:place] = data[start : start + size]
        else:
            del data[start : start + size]


def overwrite_number(data: bytearray, random_: random.Random) -> None:
    """Give one of the image's numbers (group 0028) or an odd header byte pair an extreme value."""
    places = [place + 8 for place in _find(data, b"\x28\x00")]
    if places:
        place = random_.choice(places)
        data[place : place + 2] = struct.pack("<H", random_.choice((0, 1, 7, 8, 32, 255, 0x7FFF, 0x8000, 0xFFFF)))


def damage_codestream(data: bytearray, random_: random.Random) -> None:
    """Flip bits in the first bytes of the pixel data, where a compressed frame has its own headers."""
    place = data.rfind(b"\xe0\x7f\x10\x00")
    if place >= 0:
        for _ in range(random_.choice((1, 2, 8))):
            data[min(len(data) - 1, place + random_.randrange(20, 300))] ^= 1 << random_.randrange(8)


def _find(data: bytearray, pattern: bytes) -> list[int]:
    found, place = [], data.find(pattern)
    while place >= 0 and len(found) < 200:
        found.append(place)
        place = data.find(pattern, place + 1)
    return found


def deidentified_as(data: bytes, key: bytes, slices: tuple["CTSlice", ...]) -> str:
    """Return how a file that was read is read once it is de-identified: ``same``, ``refused CODE`` or ``other``."""
    from hemoscope.dicom.deidentify import deidentified_file
    from hemoscope.dicom.read import read_slices
    from hemoscope.errors import DicomReadError

    try:
        clean = read_slices(deidentified_file(data, key=key, source="mutated"), source="clean")
    except DicomReadError as error:
        return f"refused {error.code}"
    same = len(clean) == len(slices) and all(
        (one.hounsfield == other.hounsfield).all() for one, other in zip(clean, slices, strict=True)
    )
    return "same" if same else "other"


def assembled(headers: list["SliceHeader"]) -> str:
    """Return how the headers of several damaged files of one study are assembled: ``chosen`` or ``refused``.

    Every slice is in a series or left out of one: none is lost.
    """
    from hemoscope.dicom.series import build_studies
    from hemoscope.dicom.series_choice import choose_series
    from hemoscope.errors import SeriesError

    studies = build_studies(headers)
    kept = sum(len(series) + len(series.left_out) for study in studies for series in study.series)
    assert kept == len(headers), f"{len(headers)} slices were given, {kept} came back"
    outcome = "refused"
    for study in studies:
        try:
            choose_series(study)
            outcome = "chosen"
        except SeriesError:
            continue
    return outcome


def main(folder: str, first: int, count: int) -> None:
    """Read ``count`` mutated files, beginning with number ``first``."""
    from hemoscope.dicom.deidentify import deidentified_file
    from hemoscope.dicom.read import read_slices
    from hemoscope.errors import DicomReadError

    key = bytes(range(16))

    seeds = [path.read_bytes() for path in sorted(Path(folder).glob("*.dcm"))]
    for seed in seeds:  # loads every decoder before memory is measured
        read_slices(seed, source="seed")
        deidentified_file(seed, key=key, source="seed")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    differences: Counter[str] = Counter()
    assemblies: Counter[str] = Counter()
    headers: list[SliceHeader] = []
    for number in range(first, first + count):
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        signal.alarm(SECONDS_PER_FILE)
        try:
            data = mutate(seeds[number % len(seeds)], number)
            slices = read_slices(data, source="mutated")
        except DicomReadError as error:
            outcomes[error.code] += 1
        else:
            outcomes["read"] += 1
            differences[deidentified_as(data, key, slices)] += 1
            headers += [one.header for one in slices]
        if len(headers) >= STUDY_SLICES:
            assemblies[assembled(headers)] += 1
            headers.clear()
        signal.alarm(0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    sys.stdout.write(
        json.dumps({"outcomes": outcomes, "deidentified": differences, "assembled": assemblies, "grown": grown}) + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
