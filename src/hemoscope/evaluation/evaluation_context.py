"""Context of an evaluation besides slice scores: model, dataset, whole series, thresholds, pictures."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hemoscope.evaluation.clinical_inputs import ClinicalInputs
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.strata import SliceFacts
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.labels import Hemorrhage, PerLabel

HIGHEST_IMAGE = "the highest probability of its images, against their highest known label"
STUDY_SCORES = "the model's own study probabilities, against the highest known label of its slices"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPicture:
    """One wrong decision, with a picture.

    Attributes:
        label: the label that was missed or falsely detected.
        kind: ``missed`` (false negative) or ``false alarm`` (false positive).
        image_id: in the dataset.
        probability: calibrated, of the label on this slice.
        threshold: of the model's operating point; at or above it is positive.
        shows: the labels known to be positive on this slice.
        window: name of the picture's display window.
        jpeg: the slice as the model's input, and the heat map beside it.
        level: whether the slice or its study was decided wrongly; probability and threshold are of that level.
        strata: of the slice.
    """

    label: Hemorrhage
    kind: Literal["missed", "false alarm"]
    image_id: str
    probability: float
    threshold: float
    shows: tuple[Hemorrhage, ...]
    window: str
    jpeg: bytes
    level: Literal["slice", "study"] = "slice"
    strata: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the error without its picture, for JSON."""
        return {
            "label": self.label.value,
            "kind": self.kind,
            "level": self.level,
            "image_id": self.image_id,
            "probability": self.probability,
            "threshold": self.threshold,
            "shows": [label.value for label in self.shows],
            "strata": list(self.strata),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationContext:
    """What was evaluated. All fields are optional: a file of predictions can be scored without them.

    Attributes:
        series: one row per series, grouped by patient, or None.
        series_scored_by: description of how a series' probability was computed.
        slice_points: the model's operating points for slices, or None without a model.
        series_points: for series.
        source: model, dataset and split, for ``report.json``.
        warnings: shown first in every report, such as a split that leaks.
        errors: the worst errors, with pictures; None without images, or if they were not wanted.
        series_of: the series of each image, or None.
        facts: what divides the images into strata, or None.
        clinical: subgroups, a second model and so on, if asked for.
    """

    series: LabelledPredictions | None = None
    series_scored_by: str = HIGHEST_IMAGE
    slice_points: PerLabel[OperatingPoint] | None = None
    series_points: PerLabel[OperatingPoint] | None = None
    source: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    errors: tuple[ErrorPicture, ...] | None = None
    series_of: tuple[str, ...] | None = None
    facts: SliceFacts | None = None
    clinical: ClinicalInputs = field(default_factory=ClinicalInputs)
