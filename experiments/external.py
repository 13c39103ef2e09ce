"""Scores the shipped model on the labeled slices of rsna-dicom, and again with one thing changed at a time.

    python experiments/external.py DATA [--write LOGITS.npy]
    ONEDNN_MAX_CPU_ISA=AVX python experiments/external.py DATA --reference LOGITS.npy

``DATA`` is the folder that holds ``rsna-dicom``. Each row gives AUROC of `any` by slice and by study, of
intraventricular by slice, and the largest change of a raw score. The second line limits the processor's
instruction set, which is read when the program starts, and compares with the raw scores that the first line wrote.
Decoders are not varied: all these files are uncompressed.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePath
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from hemoscope.dicom.archive import open_archive
from hemoscope.evaluation.assess_dicom import assess_dicom
from hemoscope.evaluation.prediction_files import LabelledPredictions, read_labels
from hemoscope.inference.bundle import ModelBundle, load_bundle
from hemoscope.inference.precision import Precision
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

Change = Callable[[], AbstractContextManager[object]]
_ANY, _INTRAVENTRICULAR = LABELS.index(Hemorrhage.ANY), LABELS.index(Hemorrhage.INTRAVENTRICULAR)


def established_as_when_scored(bundle: ModelBundle) -> ModelBundle:
    """Return the model with intraventricular established: any label was, however few patients had it."""
    established = PerLabel.build(lambda label: label is Hemorrhage.INTRAVENTRICULAR or bundle.card.established[label])
    return dataclasses.replace(bundle, card=dataclasses.replace(bundle.card, established=established))


def resize_by(name: str) -> Change:
    """Return a change of the filter that resizes a slice; the shipped one is antialiased bilinear."""
    shipped = Image.Image.resize

    def resize(image: Image.Image, size: tuple[int, int], _: object) -> Image.Image:
        return shipped(image, size, Image.Resampling[name])

    return lambda: mock.patch.object(Image.Image, "resize", resize)


def candidates(bundle: ModelBundle) -> Iterator[tuple[str, ModelBundle, int | None, Change]]:
    """Yield what is changed, the model, the number of threads, and the change in force while it predicts.

    Precision is an experiment of its own: precision.py.
    """
    yield "as shipped", bundle, None, nullcontext
    for threads in (1, 2, 8):
        yield f"threads: {threads}", bundle, threads, nullcontext
    for name in ("NEAREST", "BOX", "HAMMING", "BICUBIC", "LANCZOS"):
        yield f"resize: {name.lower()}", bundle, None, resize_by(name)
    yield "intraventricular established", established_as_when_scored(bundle), None, nullcontext


def logits_by_image(predictor: Predictor, images: Path) -> NDArray[np.float64]:
    """Return raw scores (slices, 6), slices sorted by the file's name."""
    found: dict[str, NDArray[np.float64]] = {}
    for reading in predictor.predict(open_archive([images])).studies:
        names = (PurePath(part.source).stem for part in reading.findings.slices)
        found.update(zip(names, reading.probabilities.slice_logits, strict=True))
    return np.array([found[name] for name in sorted(found)])


def auroc(data: LabelledPredictions, label: int) -> str:
    """Return AUROC by scikit-learn over the rows whose label is known."""
    known = np.isfinite(data.labels[:, label])
    return f"{roc_auc_score(data.labels[known, label], data.probabilities[known, label]):.4f}"


def main() -> None:
    """Print one row for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", type=Path, metavar="LOGITS.npy", help="write the raw scores of the shipped model")
    parser.add_argument("--reference", type=Path, metavar="LOGITS.npy", help="compare with raw scores written before")
    arguments = parser.parse_args()
    folder = arguments.data / "rsna-dicom"
    truth = read_labels(folder / "manifest.csv", group_column="patient_id")
    reference = None if arguments.reference is None else np.load(arguments.reference)
    table = Table()
    for column in ("changed", "any by slice", "any by study", "intraventricular by slice", "largest change"):
        table.add_column(column)
    for name, bundle, threads, change in candidates(load_bundle(None)):
        with change():
            predictor = Predictor(bundle, threads=threads, precision=Precision.FLOAT32)
            found = assess_dicom(predictor, open_archive([folder / "images"]), truth)
            logits = logits_by_image(predictor, folder / "images")
        if arguments.write is not None and name == "as shipped":
            np.save(arguments.write, logits)
        reference = logits if reference is None else reference
        scores = auroc(found.slices, _ANY), auroc(found.series, _ANY), auroc(found.slices, _INTRAVENTRICULAR)
        table.add_row(name, *scores, f"{np.abs(logits - reference).max():.1e}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
