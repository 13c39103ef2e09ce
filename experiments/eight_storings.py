"""Scores the shipped model on the labeled slices of rsna-dicom, stored in eight ways: turned by quarters, mirrored.

    python experiments/eight_storings.py DATA

``DATA`` is the folder that holds ``rsna-dicom``. Each file is rewritten as another program would store the same slice:
pixels, position, orientation and spacing change together. Each row gives AUROC by slice and by study, and the largest
change of a probability.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from hemoscope.dicom.archive import open_archive
from hemoscope.evaluation.assess_dicom import assess_dicom
from hemoscope.evaluation.assessment import Assessment
from hemoscope.evaluation.prediction_files import LabelledPredictions, read_labels
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.precision import Precision
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import LABELS

STORINGS = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]


def restored(dataset: pydicom.Dataset, turns: int, *, mirrored: bool) -> pydicom.Dataset:
    """Return an uncompressed slice turned counter-clockwise by quarters, then mirrored, with the header that fits."""
    pixels = dataset.pixel_array
    rows_mm, columns_mm = (float(step) for step in dataset.PixelSpacing)
    row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    origin = np.array(dataset.ImagePositionPatient, dtype=float)
    for _ in range(turns):
        origin = origin + (pixels.shape[1] - 1) * columns_mm * row
        pixels, (rows_mm, columns_mm) = np.rot90(pixels), (columns_mm, rows_mm)
        row, column = column, -row
    if mirrored:
        origin = origin + (pixels.shape[1] - 1) * columns_mm * row
        pixels, row = pixels[:, ::-1], -row
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [rows_mm, columns_mm]
    dataset.ImageOrientationPatient = [round(float(cosine), 6) for cosine in (*row, *column)]
    dataset.ImagePositionPatient = [round(float(place), 4) for place in origin]
    return dataset


def assessed(predictor: Predictor, images: Path, truth: LabelledPredictions, storing: tuple[int, bool]) -> Assessment:
    """Store every image in one way, and score it."""
    turns, mirrored = storing
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(images.rglob("*.dcm")):
            restored(pydicom.dcmread(path), turns, mirrored=mirrored).save_as(Path(folder, path.name))
        return assess_dicom(predictor, open_archive([folder]), truth)


def auroc(data: LabelledPredictions) -> str:
    """Return the AUROC of ``any`` by scikit-learn, of the rows whose label is known."""
    known = np.isfinite(data.labels[:, 0])
    return f"{roc_auc_score(data.labels[known, 0], data.probabilities[known, 0]):.4f}"


def change(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """Return the largest difference of two tables of probabilities."""
    return f"{np.abs(one - other).max():.1e}"


def main() -> None:
    """Print one row for each storing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data / "rsna-dicom"
    truth = read_labels(folder / "manifest.csv", group_column="patient_id")
    predictor = Predictor(load_bundle(None), precision=Precision.FLOAT32)
    found = [assessed(predictor, folder / "images", truth, storing) for storing in STORINGS]
    table = Table("quarter turns", "mirrored", f"{LABELS[0]} by slice", "by study", "largest change")
    for (turns, mirrored), one in zip(STORINGS, found, strict=True):
        moved = change(one.slices.probabilities, found[0].slices.probabilities)
        table.add_row(str(turns), "yes" if mirrored else "no", auroc(one.slices), auroc(one.series), moved)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
