"""Hemoscope finds suspected intracranial hemorrhage in head CT. Research software, not a medical device.

>>> import hemoscope
>>> prediction = hemoscope.predict("examples/sample")
>>> study = prediction.studies[0]
>>> study.findings.triage.value
'immediate'

Everything in ``__all__`` is public and stable. Importing the package is quick and loads neither NumPy nor the inference
engine: a name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from hemoscope.errors import (
    BundleError,
    ConfigError,
    DicomReadError,
    GeometryError,
    HemoscopeError,
    MissingExtraError,
    NiftiError,
    SeriesError,
)
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage, PerLabel
from hemoscope.version import DISCLAIMER, __version__

if TYPE_CHECKING:
    from hemoscope.dicom.archive import Archive, DecodedSeries, open_archive, read_series
    from hemoscope.dicom.image_kind import ImageKind
    from hemoscope.dicom.read_limits import ReadLimits
    from hemoscope.dicom.series import Series, Study
    from hemoscope.dicom.slices import QualityNote, Rejected, SliceHeader, SliceRef, UnreadSlices
    from hemoscope.inference.bundle import ModelBundle
    from hemoscope.inference.card import ModelCard
    from hemoscope.inference.findings import Finding, SkippedSeries, SliceFindings, StudyFindings, Triage
    from hemoscope.inference.heat_maps import HeatMap
    from hemoscope.inference.inputs import load_model, predict
    from hemoscope.inference.predictor import Predictor, Stage
    from hemoscope.inference.preprocess import Box, Preprocessing
    from hemoscope.inference.probabilities import StudyProbabilities
    from hemoscope.inference.study_reading import Prediction, StudyOutcome, StudyReading
    from hemoscope.nifti import read_nifti
    from hemoscope.volume import HounsfieldVolume

__all__ = [
    "DISCLAIMER",
    "LABELS",
    "SUBTYPES",
    "Archive",
    "Box",
    "BundleError",
    "ConfigError",
    "DecodedSeries",
    "DicomReadError",
    "Finding",
    "GeometryError",
    "HeatMap",
    "Hemorrhage",
    "HemoscopeError",
    "HounsfieldVolume",
    "ImageKind",
    "MissingExtraError",
    "ModelBundle",
    "ModelCard",
    "NiftiError",
    "PerLabel",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "QualityNote",
    "ReadLimits",
    "Rejected",
    "Series",
    "SeriesError",
    "SkippedSeries",
    "SliceFindings",
    "SliceHeader",
    "SliceRef",
    "Stage",
    "Study",
    "StudyFindings",
    "StudyOutcome",
    "StudyProbabilities",
    "StudyReading",
    "Triage",
    "UnreadSlices",
    "__version__",
    "load_model",
    "open_archive",
    "predict",
    "read_nifti",
    "read_series",
]

# Where the names that are imported on first use are defined (PEP 562); the imports above say the same to type checkers.
_DEFINED_IN = {
    "dicom.archive": ("Archive", "DecodedSeries", "open_archive", "read_series"),
    "dicom.image_kind": ("ImageKind",),
    "dicom.read_limits": ("ReadLimits",),
    "dicom.series": ("Series", "Study"),
    "dicom.slices": ("QualityNote", "Rejected", "SliceHeader", "SliceRef", "UnreadSlices"),
    "inference.bundle": ("ModelBundle",),
    "inference.card": ("ModelCard",),
    "inference.findings": ("Finding", "SkippedSeries", "SliceFindings", "StudyFindings", "Triage"),
    "inference.heat_maps": ("HeatMap",),
    "inference.inputs": ("load_model", "predict"),
    "inference.predictor": ("Predictor", "Stage"),
    "inference.preprocess": ("Box", "Preprocessing"),
    "inference.probabilities": ("StudyProbabilities",),
    "inference.study_reading": ("Prediction", "StudyOutcome", "StudyReading"),
    "nifti": ("read_nifti",),
    "volume": ("HounsfieldVolume",),
}
_MODULE_OF = {name: f"hemoscope.{module}" for module, names in _DEFINED_IN.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on its first use."""
    if name not in _MODULE_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return sorted({*globals(), *__all__})
