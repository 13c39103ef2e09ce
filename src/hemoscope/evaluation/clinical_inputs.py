"""What a user asks of an evaluation besides its scores: subgroups, a second model, a prevalence, a checklist.

Values are keyed by image, so that they apply to the rows of any level and in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from hemoscope.errors import ConfigError, DataError
from hemoscope.evaluation.flow import Flow
from hemoscope.evaluation.metrics import Floats
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.inference.card import ModelCard

UNKNOWN_VALUE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubgroupColumn:
    """A column that divides the images, or the patients, into subgroups.

    Attributes:
        name: of the column.
        key: whether ``values`` are keyed by image or by patient.
        values: text of each image or patient; empty or missing is unknown.
        cuts: rising lower bounds of the classes of a numeric column; empty for a column of categories.
    """

    name: str
    key: Literal["image", "patient"]
    values: Mapping[str, str]
    cuts: tuple[float, ...] = ()

    def of_rows(self, data: LabelledPredictions) -> tuple[str, ...]:
        """Return the subgroup of each row of single images; UNKNOWN_VALUE if its value is unknown.

        Raises:
            DataError: a value is not a number but should be, or the patients are unknown but needed.
        """
        if self.key == "patient" and data.groups is None:
            msg = f"column {self.name} is by patient, but no patients are known. Give their column with --groups"
            raise DataError(msg)
        return tuple(self._class(text) for text in self.texts(data))

    def texts(self, data: LabelledPredictions) -> tuple[str, ...]:
        """Return the text of each row of single images; UNKNOWN_VALUE if unknown, as for patients without any."""
        keys = data.image_ids if self.key == "image" else (data.groups or ())
        return tuple(self.values.get(key, UNKNOWN_VALUE).strip() for key in keys)

    def _class(self, text: str) -> str:
        if not self.cuts or not text:
            return text
        try:
            value = float(text)
        except ValueError as error:
            msg = f"column {self.name} holds {text!r}, which is not a number. Name it without cut points"
            raise DataError(msg) from error
        bounds = [f"{cut:g}" for cut in self.cuts]
        names = (f"below {bounds[0]}", *_between(bounds), f"{bounds[-1]} and above")
        return names[int(np.searchsorted(self.cuts, value, side="right"))]

    def ordered(self, found: set[str]) -> list[str]:
        """Return the subgroups that occur, in the order of the cut points or of the alphabet, the unknown ones last."""
        if self.cuts:
            bounds = [f"{cut:g}" for cut in self.cuts]
            every = [f"below {bounds[0]}", *_between(bounds), f"{bounds[-1]} and above"]
            names = [name for name in every if name in found]
        else:
            names = sorted(found - {UNKNOWN_VALUE})
        return [*names, *(found & {UNKNOWN_VALUE})]


def _between(bounds: list[str]) -> tuple[str, ...]:
    return tuple(f"{low} to below {high}" for low, high in pairwise(bounds))


def parse_subgroup(text: str) -> tuple[str, tuple[float, ...]]:
    """Return the column and the cut points of ``COLUMN`` or ``COLUMN:CUT,CUT``.

    Raises:
        ConfigError: cut points that are not rising numbers, or no name.
    """
    name, _, rest = text.partition(":")
    try:
        cuts = tuple(float(cut) for cut in rest.split(",")) if rest else ()
    except ValueError:
        cuts = (0.0, 0.0)
    if not name or list(cuts) != sorted(set(cuts)) or not np.isfinite(cuts).all():
        msg = f"--subgroup {text}: expected COLUMN, or COLUMN:CUT,CUT with rising numbers, such as age:40,65"
        raise ConfigError(msg)
    return name, cuts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SecondPredictions:
    """Other predictions of the same images, to compare with.

    Attributes:
        name: of their file.
        probabilities: of each image, (6,) in label order.
        margin: of non-inferiority, as a difference of scores; None asks no such question.
    """

    name: str
    probabilities: Mapping[str, Floats]
    margin: float | None = None

    def of_rows(self, image_ids: tuple[str, ...]) -> Floats:
        """Return the probabilities (images, 6) of these images. Raises DataError if one is missing."""
        missing = [image_id for image_id in image_ids if image_id not in self.probabilities]
        if missing or len(self.probabilities) != len(image_ids):
            count, first = len(missing), missing[0] if missing else "none"
            msg = (
                f"{self.name} has {len(self.probabilities)} images and lacks {count} of the {len(image_ids)} scored "
                f"ones (first: {first}). Compare predictions of the same images"
            )
            raise DataError(msg)
        return np.array([self.probabilities[image_id] for image_id in image_ids])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClinicalInputs:
    """All that was asked for.

    Attributes:
        subgroups: columns that divide the images.
        second: predictions to compare with.
        prevalence: share of series (patients) with hemorrhage, to which net benefit is standardized as well.
        checklist: whether the checklists of reporting guidelines are written.
        card: of the model, for the checklists; None for a file of predictions.
        flow: counts of images on their way to the scores; None if only scored images are known.
    """

    subgroups: tuple[SubgroupColumn, ...] = ()
    second: SecondPredictions | None = None
    prevalence: float | None = None
    checklist: bool = False
    card: ModelCard | None = None
    flow: Flow | None = None
