"""Collects the cells of a table of images in arrays: each image once, equal repetitions counted, others refused."""

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hemoscope.data.image_ids import id_key
from hemoscope.errors import DataError
from hemoscope.labels import LABELS, Hemorrhage

_UNKNOWN = float("nan")
_LABEL = re.compile(r"([01])(?:[.,]0*)?")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")


class Content(StrEnum):
    """What a table's values are."""

    LABELS = "labels"
    PREDICTIONS = "predictions"

    @property
    def expected(self) -> str:
        """What a cell may hold, in words."""
        return "0 or 1" if self is Content.LABELS else "a probability"


class RepeatError(Exception):
    """A value differs from an earlier one of the same image and label, which is ``before``."""

    def __init__(self, before: float) -> None:
        """Keep the earlier value."""
        super().__init__()
        self.before = before


class Cells:
    """Values of images, in the order in which they appear."""

    def __init__(self, name: str, content: Content, more: Sequence[str]) -> None:
        """Begin a table.

        Args:
            name: of the file, for messages.
            content: of its values.
            more: names of further columns.
        """
        self.name, self.content = name, content
        self.image_ids: list[str] = []
        self.repeated = 0
        self._rows: dict[str, int] = {}
        # A label needs no double: half the memory for millions of them.
        self._values = array("f" if content is Content.LABELS else "d")
        self._lines = array("l")
        self._more: dict[str, list[str]] = {name: [] for name in more}
        self._read: dict[str, float] = {"": _UNKNOWN}
        self._last = ("", -1)  # the image of the last line and its row: most lines follow one of the same image

    def number(self, text: str, line: int, image_id: str, label: Hemorrhage) -> float:
        """Return a cell's value, NaN if it is empty. Raises DataError if it is not what the content allows."""
        known = self._read.get(text)
        if known is None:
            known = self._parse(text.strip(), line, image_id, label)
            if self.content is Content.LABELS:
                self._read[text] = known  # labels are few: parse each text once
        return known

    def add(self, line: int, image_id: str, values: Sequence[float], more: tuple[str, ...]) -> None:
        """Add an image's row. Raises DataError if it stands before with other values."""
        key = id_key(image_id)
        row = self._rows.get(key)
        if row is None:
            self._begin(key, line, image_id, values)
            for column, cell in zip(self._more.values(), more, strict=True):
                column.append(cell)
            return
        before = self._values[len(LABELS) * row : len(LABELS) * (row + 1)]
        same = all(_same(one, two) for one, two in zip(before, array(before.typecode, values), strict=True))
        if not same or any(column[row] != cell for column, cell in zip(self._more.values(), more, strict=True)):
            msg = (
                f"{self.name}: {image_id} occurs in lines {self._lines[row]} and {line} with different values. "
                "Give one row per image: remove the wrong one"
            )
            raise DataError(msg)
        self.repeated += 1

    def add_one(self, line: int, image_id: str, place: int, value: float) -> None:
        """Add the value of one label. Raises RepeatError if another value of it stands before."""
        last, row = self._last
        if image_id is not last:
            key = id_key(image_id)
            row = self._rows.get(key, -1)
            if row < 0:
                row = self._begin(key, line, image_id, [_UNKNOWN] * len(LABELS))
            self._last = image_id, row
        at = len(LABELS) * row + place
        before = self._values[at]
        self._values[at] = value
        if not math.isnan(before):
            if before != self._values[at]:
                raise RepeatError(before)
            self.repeated += 1

    def values(self) -> NDArray[np.float64]:
        """Return all values, (images, 6)."""
        return np.array(self._values, dtype=np.float64).reshape(-1, len(LABELS))

    def lines(self) -> NDArray[np.int64]:
        """Return the first line of each image."""
        return np.array(self._lines, dtype=np.int64)

    def more(self) -> Mapping[str, tuple[str, ...]]:
        """Return the further columns."""
        return {name: tuple(column) for name, column in self._more.items()}

    def _begin(self, key: str, line: int, image_id: str, values: Sequence[float]) -> int:
        row = self._rows[key] = len(self.image_ids)
        self.image_ids.append(image_id)
        self._lines.append(line)
        self._values.extend(values)
        return row

    def _parse(self, text: str, line: int, image_id: str, label: Hemorrhage) -> float:
        if not text:
            return _UNKNOWN
        pattern = _LABEL if self.content is Content.LABELS else _NUMBER
        if not pattern.fullmatch(text):
            expected = "0, 1 or nothing" if self.content is Content.LABELS else "a number in [0, 1]"
            msg = f"{self.name}: line {line} ({image_id:.80}) has {label} {text!r:.40}, expected {expected}"
            raise DataError(msg)
        value = float(text.replace(",", "."))
        if not 0.0 <= value <= 1.0:
            msg = (
                f"{self.name}: line {line} ({image_id:.80}) has {label} {text!r:.40}, outside [0, 1]. "
                "Give probabilities, not logits or percent"
            )
            raise DataError(msg)
        return value


def _same(one: float, two: float) -> bool:
    return one == two or (math.isnan(one) and math.isnan(two))
