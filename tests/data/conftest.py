"""Labelled phantoms in Kaggle's layout, and what prepares them."""

from pathlib import Path

import pydicom
import pytest

from hemoscope.data.label_table import LabelledImage
from hemoscope.data.prepare import Preparation
from hemoscope.data.prepare_dicom import prepare_dicom
from hemoscope.data.rsna import DATASET
from hemoscope.labels import Hemorrhage
from hemoscope.testing.dicom_writer import Acquisition, write_series
from hemoscope.testing.phantom import Phantom, make_phantom

BLEEDS = (frozenset({Hemorrhage.SUBDURAL}), frozenset[Hemorrhage](), frozenset({Hemorrhage.EPIDURAL}))


def phantom(patient: int) -> Phantom:
    return make_phantom(seed=patient, shape=(4, 32, 32), bleeds=BLEEDS[patient])


def image_id_of(patient: int, place: int) -> str:
    """Names whose order is neither that of the patients nor that of the slices, as Kaggle's."""
    return f"ID_{(7 * place + 5 * patient) % 12:02d}{patient}{place}"


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Three patients of four slices in one flat folder, ID_xxx.dcm."""
    images = tmp_path / "images"
    for patient in range(3):
        files = write_series(
            phantom(patient),
            tmp_path / "written" / str(patient),
            seed=patient,
            acquisition=Acquisition(patient_id=f"ID_p{patient}"),
        )
        images.mkdir(exist_ok=True)
        for place, file in enumerate(files):
            file.rename(images / f"{image_id_of(patient, place)}.dcm")
    return images


@pytest.fixture
def labels() -> dict[str, LabelledImage]:
    return {
        image_id_of(patient, place): LabelledImage(labels=tuple(int(shown) for shown in row))
        for patient in range(3)
        for place, row in enumerate(phantom(patient).slice_labels)
    }


def prepare(images: Path, labels: dict[str, LabelledImage], output: Path, **options: object) -> Preparation:
    options = {"pseudonyms": False, "workers": 1, **options}
    return prepare_dicom(images, labels, output, DATASET, **options)  # type: ignore[arg-type]


def rewrite(path: Path, **values: object) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
