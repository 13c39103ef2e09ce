"""Writes an archive of many small studies: phantom heads of 128 x 128 pixels, 20 slices a study, 33 kB a slice.

.venv/bin/python benchmarks/synthetic_archive.py /tmp/archive --slices 10000
"""

import argparse
import sys
from pathlib import Path

from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

SLICES_A_STUDY = 20
_HEADS = 8  # different ones; studies repeat them under their own UIDs and patients


def write_archive(folder: Path, slices: int) -> int:
    """Write studies until there are this many slices; return their number."""
    heads = [make_phantom(seed=seed, shape=(SLICES_A_STUDY, 128, 128)) for seed in range(_HEADS)]
    for number in range(-(-slices // SLICES_A_STUDY)):
        left = min(SLICES_A_STUDY, slices - number * SLICES_A_STUDY)
        head = heads[number % _HEADS]
        patient = Acquisition(patient_id=f"P{number:05d}")
        place = folder / f"{number:05d}"
        write_series(head.hounsfield[:left], place, seed=number, spacing_mm=head.spacing_mm, acquisition=patient)
    return slices


def main() -> int:
    """Write the archive that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slices", type=int, default=10_000)
    arguments = parser.parse_args()
    print(f"{write_archive(arguments.folder, arguments.slices)} slices in {arguments.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
