"""A model's results on labelled images: slices, series, the worst errors, and the files written from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DataError
from hemoscope.evaluation.evaluation_context import STUDY_SCORES, ErrorPicture, EvaluationContext
from hemoscope.evaluation.flow import Flow
from hemoscope.evaluation.metrics import Booleans
from hemoscope.evaluation.prediction_files import LabelledPredictions, write_labels, write_predictions
from hemoscope.evaluation.score_table import score_table
from hemoscope.evaluation.strata import SliceFacts
from hemoscope.files import write_text
from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.card import ScoreTable, to_plain


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assessment:
    """Results of a model on labelled images.

    Attributes:
        slices: calibrated probabilities of each image beside its labels, grouped by patient.
        series: study probabilities beside the highest known label of the slices, grouped by patient.
        series_of: the series of each image.
        errors: the worst errors, with pictures; None if they were not wanted.
        rejected: inputs that could not be read.
        flow: counts of the inputs; None if they are unknown.
        facts: what divides the images into strata; None if unknown.
        spacings_mm: distance between the slices of each series; None if unknown.
    """

    slices: LabelledPredictions
    series: LabelledPredictions
    series_of: tuple[str, ...]
    errors: tuple[ErrorPicture, ...] | None
    rejected: tuple[Rejected, ...] = ()
    flow: Flow | None = None
    facts: SliceFacts | None = None
    spacings_mm: Mapping[str, float | None] = field(default_factory=dict)

    def score_tables(self, *, name: str, description: str) -> tuple[ScoreTable, ScoreTable]:
        """Return scores by slice and by study as in a model's card; rows without a known label are ignored.

        Nothing was fitted on these rows, so the same probabilities are used for ranking and calibration.
        """
        return (
            _score_table(self.slices, f"{name}, by slice", description, "slice"),
            _score_table(self.series, f"{name}, by study", description, "patient"),
        )

    def spacing_of_images(self) -> dict[str, str]:
        """Return the distance between the slices of each image's series, in mm; empty if unknown."""
        found = (self.spacings_mm.get(series) for series in self.series_of)
        texts = ("" if spacing is None else f"{spacing:.3g}" for spacing in found)
        return dict(zip(self.slices.image_ids, texts, strict=True))

    def context(
        self, bundle: ModelBundle, *, dataset: str, split: dict[str, Any] | None = None, warnings: Sequence[str] = ()
    ) -> EvaluationContext:
        """Return what the report needs besides the scores of the slices.

        Args:
            bundle: the model.
            dataset: name of the data.
            split: the subset of the data, for ``report.json``; None for all of it.
            warnings: shown first in every report.
        """
        card = bundle.card
        model = {"name": card.name, "version": card.version, "sha256": bundle.sha256}
        return EvaluationContext(
            series=self.series,
            series_scored_by=STUDY_SCORES,
            slice_points=card.operating_points.slice,
            series_points=card.operating_points.study,
            source={"model": model, "dataset": dataset, "split": split},
            warnings=tuple(warnings),
            errors=self.errors,
            series_of=self.series_of,
            facts=self.facts,
        )

    def write(self, folder: Path, *, name: str, description: str) -> None:
        """Write scores.json, and the files that ``hemoscope tune`` and ``hemoscope evaluate --predictions`` read.

        ``predictions.csv`` and ``labels.csv`` are by image, ``series-predictions.csv`` and ``series-labels.csv`` by
        series.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for data, series, prefix in (
                (self.slices, self.series_of, ""),
                (self.series, self.series.image_ids, "series-"),
            ):
                table = zip(data.image_ids, data.probabilities.tolist(), strict=True)
                write_predictions(folder / f"{prefix}predictions.csv", dict(table))
                write_labels(folder / f"{prefix}labels.csv", data, series)
            tables = [to_plain(table) for table in self.score_tables(name=name, description=description)]
            write_text(folder / "scores.json", json.dumps(tables, indent=2) + "\n")
        except OSError as error:
            msg = f"{folder.name}: cannot be written ({error.strerror}). Choose a writable folder as --output"
            raise DataError(msg) from error


def _score_table(
    data: LabelledPredictions, name: str, description: str, level: Literal["slice", "patient"]
) -> ScoreTable:
    known: Booleans = np.asarray(np.isfinite(data.labels).any(axis=1))
    return score_table(
        ranked=data.probabilities[known],
        probabilities=data.probabilities[known],
        truth=data.labels[known],
        patients=[group for group, one in zip(data.groups or data.image_ids, known, strict=True) if one],
        name=name,
        description=description,
        level=level,
    )
