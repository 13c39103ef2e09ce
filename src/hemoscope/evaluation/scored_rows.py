"""Collects scored rows one by one, while series are processed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.inference.probabilities import Floats
from hemoscope.labels import LABELS


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRows:
    """Images or series with their name, six probabilities, six labels, patient and series."""

    names: list[str] = field(default_factory=list)
    probabilities: list[Floats] = field(default_factory=list)
    labels: list[Floats] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)

    def add(self, name: str, probabilities: Floats, labels: Floats, *, patient: str, series: str) -> None:
        """Append one row."""
        self.names.append(name)
        self.probabilities.append(probabilities)
        self.labels.append(labels)
        self.patients.append(patient)
        self.series.append(series)

    def table(self, order: Sequence[int] | None = None) -> LabelledPredictions:
        """Return all rows as arrays, in the given order or in order of insertion."""
        rows = list(range(len(self.names))) if order is None else list(order)
        shape = (len(rows), len(LABELS))
        return LabelledPredictions(
            image_ids=tuple(self.names[row] for row in rows),
            probabilities=np.array([self.probabilities[row] for row in rows], dtype=np.float64).reshape(shape),
            labels=np.array([self.labels[row] for row in rows], dtype=np.float64).reshape(shape),
            groups=tuple(self.patients[row] for row in rows),
        )
