"""Places the boxes of a flow diagram (STARD) for an inline SVG: inputs down the middle, what left to the right."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hemoscope.evaluation.flow import counted
from hemoscope.labels import LABELS

WIDTH = 760
_LINE = 20
_PADDING = 12
_GAP = 30
_MAIN = (10, 330)  # left edge and width of the boxes in the middle
_SIDE = (400, 350)
_CHARACTERS = 42  # of a line; the font is 14 pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBox:
    """One box in pixels of the drawing: its lines of text, and whether an arrow leads to it from above or the left."""

    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]
    arrow: str

    @property
    def middle(self) -> int:
        """Vertical middle."""
        return self.y + self.height // 2


def flow_boxes(flow: Mapping[str, Any]) -> tuple[list[FlowBox], int]:
    """Return the boxes, from top to bottom, and the height of the drawing."""
    patients = [] if flow["patients"] is None else [counted(flow["patients"], "patients")]
    boxes = [_box(_MAIN, 10, [f"{flow['inputs']:,} {flow['unit']}", *([] if flow["left"] else patients)], "none")]
    if flow["left"]:
        _add_left(boxes, flow["left"])
        _add_below(boxes, _MAIN, [counted(flow["images"], "images"), *patients])
    if flow["unlabelled"]["count"]:
        _add_left(boxes, [flow["unlabelled"]])
    scored = [f"{counted(flow['scored_images'], 'images')} scored"]
    scored += [
        counted(flow[f"scored_{unit}"], unit) for unit in ("series", "patients") if flow[f"scored_{unit}"] is not None
    ]
    _add_below(boxes, _MAIN, scored)
    patients_too = "" if flow["patients"] is None else " (patients with it in any image, or in none)"
    standard = [f"Reference standard: images{patients_too}"]
    for label in LABELS:
        counts = flow["labels"][label.value]
        unknown = f", {counts['unknown']:,} unknown" if counts["unknown"] else ""
        found = f"{_count(counts, 'positive')} with, {_count(counts, 'negative')} without"
        standard.append(f"{label.display}: {found}{unknown}")
    _add_below(boxes, (_MAIN[0], 520), standard)
    return boxes, _end(boxes[-1]) + 10


def _end(box: FlowBox) -> int:
    return box.y + box.height


def _add_left(boxes: list[FlowBox], steps: Sequence[Mapping[str, Any]]) -> None:
    """Add the boxes of what left, below the last box and to the right."""
    below = _end(boxes[-1]) + _GAP
    for step in steps:
        lines = [f"{counted(step['count'], step['unit'])} left", step["reason"]]
        if step["patients"]:
            lines.append(f"patients without another image: {step['patients']:,}")
        boxes.append(_box(_SIDE, below, lines, "left"))
        below = _end(boxes[-1]) + 10


def _add_below(boxes: list[FlowBox], place: tuple[int, int], texts: list[str]) -> None:
    boxes.append(_box(place, _end(boxes[-1]) + _GAP, texts, "above"))


def _count(counts: Mapping[str, Any], which: str) -> str:
    patients = counts["patients"]
    return f"{counts[which]:,}" + ("" if patients is None else f" ({patients[which]:,})")


def _box(place: tuple[int, int], y: int, texts: list[str], arrow: str) -> FlowBox:
    characters = _CHARACTERS * place[1] // _MAIN[1]
    lines = tuple(line for text in texts for line in textwrap.wrap(text, characters))
    return FlowBox(x=place[0], y=y, width=place[1], height=len(lines) * _LINE + 2 * _PADDING, lines=lines, arrow=arrow)
