"""What an evaluation knows beyond the numbers: which model and images, whole series, thresholds, pictures."""

from dataclasses import dataclass
from typing import Any, Literal

from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.labels import Hemorrhage, PerLabel

HIGHEST_IMAGE = "the highest probability of its images, against their highest known label"
STUDY_SCORES = "the model's own study probabilities, against the highest known label of its slices"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPicture:
    """One wrong decision to look at.

    Attributes:
        label: what was missed or falsely seen.
        kind: ``missed`` (false negative) or ``false alarm`` (false positive).
        image_id: as it stands in the dataset.
        probability: calibrated, of the label on this slice.
        threshold: of the model's operating point; at or above it is positive.
        shows: the labels that are known to be positive on this slice.
        window: the display window of the picture, in words.
        jpeg: the slice as the model saw it, and the heat map beside it.
    """

    label: Hemorrhage
    kind: Literal["missed", "false alarm"]
    image_id: str
    probability: float
    threshold: float
    shows: tuple[Hemorrhage, ...]
    window: str
    jpeg: bytes

    def as_dict(self) -> dict[str, Any]:
        """The error without its picture, for JSON."""
        return {
            "label": self.label.value,
            "kind": self.kind,
            "image_id": self.image_id,
            "probability": self.probability,
            "threshold": self.threshold,
            "shows": [label.value for label in self.shows],
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationContext:
    """What was evaluated. Nothing here is needed to score a bare file of predictions.

    Attributes:
        series: one row a series, grouped by patient, or None.
        series_scored_by: how a series' probability came about, in words.
        slice_points: the model's operating points for slices, or None where no model was at hand.
        series_points: for series.
        source: model, dataset and split, for ``report.json``.
        warnings: what every reader must know first, such as a split that leaks.
        errors: the worst of them, drawn; None where no images were at hand.
    """

    series: LabelledPredictions | None = None
    series_scored_by: str = HIGHEST_IMAGE
    slice_points: PerLabel[OperatingPoint] | None = None
    series_points: PerLabel[OperatingPoint] | None = None
    source: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    errors: tuple[ErrorPicture, ...] | None = None
