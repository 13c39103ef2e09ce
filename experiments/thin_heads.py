"""Thin series to test reading with: real ones, and heads of CT-ICH resampled to thin slices with noise.

The noise is that of one dose: 6 HU at 1 mm (as in CQ500-CT-0), and more in thinner slices by the root of the thickness.
It is correlated within the slice, as after a soft kernel, and independent from slice to slice.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.data.ct_ich import CtIchSlice, read_hounsfield, read_table
from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.readable_series import read_best_series
from hemoscope.inference.slabs import slab_bounds
from hemoscope.volume import HounsfieldVolume

# Every type of hemorrhage, small and large ones, and heads without any.
BLEEDS = ("049", "051", "069", "076", "080", "082", "086", "092", "094")
CLEAN = ("059", "095", "106")
THICK_MM, NOISE_HU, NOISE_PIXELS = 5.0, 6.0, 1.0
# A faint bleed is what lies between a head and 45 HU, and half of what exceeds them: scores are then not extreme.
FAINT_ABOVE_HU, FAINT_SHARE = 45.0, 0.5

Named = tuple[str, HounsfieldVolume]


def real_heads(data: Path) -> Iterator[Named]:
    """Yield every series in the folders of real and phantom cases that has thin slices."""
    for path in [data / "cq500-series", *sorted((data / "field-cases").glob("*.zip")), data / "public-dicom"]:
        archive = open_archive([path])
        for number, study in enumerate(archive.studies):
            for series in study.series:
                found = read_best_series(archive, study, series_instance_uid=series.series_instance_uid).decoded
                if found is not None and has_thin_slices(found.volume):
                    yield f"{path.stem}-{number}-{series.series_instance_uid[-6:]}", found.volume


def has_thin_slices(volume: HounsfieldVolume) -> bool:
    """Whether at least three slices are averaged with others."""
    return sum(len(set(slab_bounds(volume, index, THICK_MM))) > 1 for index in range(len(volume))) > 2


def resampled_heads(data: Path) -> Iterator[Named]:
    """Yield heads of CT-ICH at .625 to 1.25 mm, and again with a faint bleed; each patient begins at another phase."""
    patients: dict[str, list[CtIchSlice]] = {}
    for row in read_table(data / "ct-ich"):
        patients.setdefault(row.patient_id.removeprefix("ctich_"), []).append(row)
    for number, patient in (*enumerate(BLEEDS), *enumerate(CLEAN, 10)):
        thick = np.stack([_hounsfield(data / "ct-ich", row) for row in patients[patient]])
        rng = np.random.default_rng(int(patient))
        phase_mm, spacing_mm = THICK_MM * (number % 4) / 4, (0.625, 1.0, 1.25)[number % 3]
        yield f"ctich-{patient}-{spacing_mm:g}", thin_volume(thick, spacing_mm, phase_mm, rng)
        if patient in BLEEDS:
            faint = FAINT_ABOVE_HU + FAINT_SHARE * (thick - FAINT_ABOVE_HU)
            thick = np.where((thick > FAINT_ABOVE_HU) & (thick < 100), faint, thick)
            spacing_mm = (1.0, 0.8, 0.625)[number % 3]
            yield f"ctich-{patient}-{spacing_mm:g}-faint", thin_volume(thick, spacing_mm, phase_mm, rng)


def thin_volume(
    thick: NDArray[np.float32], spacing_mm: float, phase_mm: float, rng: np.random.Generator
) -> HounsfieldVolume:
    """Interpolate slices 5 mm apart (slices, rows, columns) along z, from ``phase_mm`` on, and add noise."""
    places = np.arange(phase_mm, THICK_MM * (len(thick) - 1) + 1e-6, spacing_mm)
    hounsfield = np.empty((len(places), *thick.shape[1:]), dtype=np.int16)
    sigma = NOISE_HU / np.sqrt(spacing_mm) * 2 * np.sqrt(np.pi) * NOISE_PIXELS  # what the filter below leaves of it
    for index, place in enumerate(places / THICK_MM):
        below = min(int(place), len(thick) - 2)
        head = thick[below] + (place - below) * (thick[below + 1] - thick[below])
        noise = ndimage.gaussian_filter(rng.standard_normal(head.shape, dtype=np.float32), NOISE_PIXELS)
        hounsfield[index] = np.rint(np.where(head > -900, head + sigma * noise, head)).clip(-1024, 3071)
    return HounsfieldVolume(
        hounsfield=hounsfield,
        spacing_mm=(spacing_mm, None, None),
        positions_mm=tuple(places.tolist()),
        orientation=None,
        thickness_mm=(spacing_mm,) * len(places),
    )


def _hounsfield(folder: Path, row: CtIchSlice) -> NDArray[np.float32]:
    bone = None if row.bone_file is None else folder / row.bone_file
    return read_hounsfield(folder / row.brain_file, bone, image_id=row.image_id).astype(np.float32)
