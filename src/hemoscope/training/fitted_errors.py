"""Strata and worst errors of a run's slices and studies, for its card."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemoscope.evaluation.strata import SliceFacts, joined_facts, series_facts, strata_table
from hemoscope.evaluation.tuning import CrossFitted
from hemoscope.inference.calibration import StrataTable
from hemoscope.inference.card_statements import CardError
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage
from hemoscope.training.held_out import HeldOut
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores

Floats = NDArray[np.float64]
_Level = Literal["slice", "study"]
_Kind = Literal["missed", "false alarm"]
# Of each level and kind.
MOST_ERRORS = 5
_FIRST = LABELS.index(Hemorrhage.ANY)


def slice_facts(scored: SliceAndStudyScores) -> SliceFacts | None:
    """Return what divides the slices (n,), in their order; None if their places are unknown."""
    places, slices = scored.places, scored.slices
    if places is None:
        return None
    truth = slices.truth[:, _FIRST]
    owners = np.array([f"{patient}\0{series}" for patient, series in zip(slices.patients, places.series, strict=True)])
    facts, order = [], []
    for owner in np.unique(owners):
        rows = np.flatnonzero(owners == owner)
        rows = rows[np.argsort(places.positions_mm[rows], kind="stable")]
        age = float(places.age[rows[0]])
        facts.append(series_facts(truth[rows], outline_px=places.outline_px[rows], age=age))
        order.append(rows)
    return joined_facts(facts).rows(np.argsort(np.concatenate(order)))


def strata(name: str, scored: SliceAndStudyScores, shown: Floats) -> tuple[StrataTable, ...] | None:
    """Return the strata of slices; None if nothing divides them.

    Args:
        name: of the data.
        scored: the slices.
        shown: (n,) probabilities of ``any`` that rank.
    """
    facts = slice_facts(scored)
    if facts is None:
        return None
    table = strata_table(name, shown, scored.slices.truth[:, _FIRST], scored.slices.patients, facts)
    return None if table is None else (table,)


def worst_errors(scored: SliceAndStudyScores, held_out: HeldOut, *, named: bool) -> tuple[CardError, ...] | None:
    """Return the worst errors about ``any`` at the operating points, worst first; None if places are unknown.

    Missed ones have the lowest probabilities, false alarms the highest.

    Args:
        scored: slices and studies with their truth.
        held_out: what is decided about them by settings that were not fitted on them.
        named: whether images and patients are named, as they may be if the dataset is published.
    """
    facts, places = slice_facts(scored), scored.places
    if facts is None or places is None:
        return None
    found = []
    levels: tuple[tuple[_Level, LevelScores, CrossFitted, Sequence[str]], ...] = (
        ("slice", scored.slices, held_out.slices, places.images),
        ("study", scored.studies, held_out.studies, scored.studies.patients),
    )
    for level, scores, shown, cases in levels:
        for kind, row in _wrong(scores, shown.probabilities[:, _FIRST], shown.decisions[:, _FIRST]):
            found.append(
                CardError(
                    level=level,
                    kind=kind,
                    case=cases[row] if named else None,
                    probability=round(float(shown.probabilities[row, _FIRST]), 4),
                    types=tuple(label.value for label in SUBTYPES if scores.truth[row, LABELS.index(label)] == 1.0),
                    strata=facts.names(row) if level == "slice" else (),
                )
            )
    return tuple(found)


def _wrong(scores: LevelScores, shown: Floats, decided: NDArray[np.bool_]) -> Iterator[tuple[_Kind, int]]:
    truth = scores.truth[:, _FIRST]
    missed, alarms = (truth == 1.0) & ~decided, (truth == 0.0) & decided
    for row in _worst(np.flatnonzero(missed), shown, scores.patients):
        yield "missed", row
    for row in _worst(np.flatnonzero(alarms), -shown, scores.patients):
        yield "false alarm", row


def _worst(rows: NDArray[np.intp], badness: Floats, patients: Sequence[str]) -> list[int]:
    """Return the rows of lowest values, one a patient."""
    kept: dict[str, int] = {}
    for row in rows[np.argsort(badness[rows], kind="stable")]:
        kept.setdefault(patients[row], int(row))
    return list(kept.values())[:MOST_ERRORS]
