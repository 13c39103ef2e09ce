"""Creates ``examples/sample``: slices 16 to 25 of patient 077 of CT-ICH as DICOM CT images.

Run from the repository: ``python examples/make_sample.py CT_ICH_FOLDER [OUTPUT]``, where the folder is the 82-patient
JPEG release with its ``patients`` folder. The slices are above the orbits, so they show no eye, nose or face. CT-ICH
has no pixel spacing, position or orientation; the geometry is assumed, and each file says so.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from hemoscope.data.ct_ich import read_hounsfield
from hemoscope.testing.dicom_writer import Acquisition, PixelCoding, ct_dataset, save

PATIENT = "077"
SLICES = range(16, 26)  # numbered from the neck up in the release
SPACING_MM = (5.0, 0.35, 0.35)
ACQUISITION = Acquisition(
    series_description="CT-ICH slices above the orbits",
    patient_name="CT-ICH^Anonymous",
    patient_id=f"CT-ICH {PATIENT}",
    date="",
    image_comments="Geometry assumed: 0.35 mm pixels, 5 mm slices, axial, head first and supine; CT-ICH gives none.",
)


def slice_files(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the brain and the bone image of one slice."""
    patient = folder / "patients" / PATIENT
    return patient / "brain" / f"{number}.jpg", patient / "bone" / f"{number}.jpg"


def sample_dataset(hounsfield: NDArray[np.int16], index: int, *, jpeg_bytes: int) -> Dataset:
    """Return one slice as a CT image, without attributes that CT-ICH does not have."""
    shape = (len(SLICES), *hounsfield.shape)
    ds = ct_dataset(
        hounsfield,
        seed=f"ct-ich {PATIENT}",
        index=index,
        position_mm=tuple(ACQUISITION.positions(shape, SPACING_MM)[index]),
        spacing_mm=SPACING_MM,
        coding=PixelCoding(transfer_syntax=JPEGLSLossless),
        acquisition=ACQUISITION,
    )
    ds.InstanceNumber = SLICES[index]
    ds.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    ds.DerivationDescription = (
        "HU rebuilt from two 8-bit JPEG images: level 40 width 120 where not saturated, else level 700 width 3200"
    )
    # The pixels were JPEG before they were stored without loss, so they remain lossy.
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.LossyImageCompressionRatio = round(2 * hounsfield.size / jpeg_bytes, 2)
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Published as JPEG without any patient attribute"
    ds.BurnedInAnnotation = ds.RecognizableVisualFeatures = "NO"
    _forget_what_is_unknown(ds)
    return ds


def _forget_what_is_unknown(ds: Dataset) -> None:
    for keyword in ("StudyTime", "ContentTime", "Manufacturer", "KVP", "AcquisitionNumber", "PatientSex"):
        setattr(ds, keyword, None)  # required, but may be empty
    for keyword in ("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime"):
        delattr(ds, keyword)
    for keyword in ("ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel", "GantryDetectorTilt"):
        delattr(ds, keyword)


def make_sample(folder: Path, output: Path) -> list[Path]:
    """Write the sample and return its files from the most inferior slice up."""
    output.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, number in enumerate(SLICES):
        brain, bone = slice_files(folder, number)
        hounsfield = read_hounsfield(brain, bone, image_id=f"ctich_{PATIENT}_{number:03d}")
        jpeg_bytes = brain.stat().st_size + bone.stat().st_size
        dataset = sample_dataset(hounsfield, index, jpeg_bytes=jpeg_bytes)
        paths.append(save(dataset, output / f"ct-ich-{PATIENT}-{number}.dcm"))
    return paths


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3}:
        sys.exit(__doc__)
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent / "sample"
    made = make_sample(Path(sys.argv[1]), target)
    sys.stdout.write(f"{len(made)} slices, {sum(path.stat().st_size for path in made):,} bytes\n")
