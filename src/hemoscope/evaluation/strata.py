"""How many bleeding slices are found, and how many others falsely flagged, in strata that matter to a reader.

All at one threshold of the probability of ``any``: the lowest at which the specificity over all slices is .90. It is
chosen on the same slices, so that strata, models and datasets compare at one rate of false alarms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.evaluation.metrics import Booleans, Floats
from hemoscope.evaluation.performance import proportion
from hemoscope.evaluation.thresholds import at_specificity
from hemoscope.inference.calibration import StrataTable, Stratum

SPECIFICITY = 0.9
LOWEST_SHARE = 0.4  # of the slices of a series: the base of the skull and the posterior fossa
_PIXELS = (300, 1000)
_YEARS = (2.0, 18.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceFacts:
    """What divides slices into strata, (n,) each; NaN is unknown.

    Attributes:
        edge: 1 for the first and the last slice of a bleed in its series, 0 for those between; NaN without a bleed.
        height: place in the series, from 0 (the lowest slice) to 1.
        outline_px: size of the outline in pixels as stored.
        age: of the patient, in years.
    """

    edge: Floats
    height: Floats
    outline_px: Floats
    age: Floats

    def rows(self, chosen: NDArray[np.intp] | Booleans) -> "SliceFacts":
        """Return the facts of some slices."""
        return SliceFacts(
            edge=self.edge[chosen], height=self.height[chosen], outline_px=self.outline_px[chosen], age=self.age[chosen]
        )

    def names(self, row: int) -> tuple[str, ...]:
        """Return the strata of one slice."""
        return tuple(name for _, name, members in self.strata() if members[row])

    def strata(self) -> Iterator[tuple[str, str, Booleans]]:
        """Yield what divides, the name of a stratum and its slices (n,)."""
        small, large = _PIXELS
        infant, adult = _YEARS
        yield "outline", f"under {small} px", self.outline_px < small
        yield "outline", f"{small} to {large:,} px", (self.outline_px >= small) & (self.outline_px <= large)
        yield "outline", f"over {large:,} px", self.outline_px > large
        yield "place in the bleed", "first or last slice", self.edge == 1.0
        yield "place in the bleed", "between", self.edge == 0.0
        yield "height", f"lowest {LOWEST_SHARE:.0%} of the head", self.height < LOWEST_SHARE
        yield "height", "above", self.height >= LOWEST_SHARE
        yield "age", f"up to {infant:g} years", self.age <= infant
        yield "age", "children", (self.age > infant) & (self.age < adult)
        yield "age", f"from {adult:g} years", self.age >= adult


def series_facts(truth: Floats, *, outline_px: Floats | None = None, age: float | None = None) -> SliceFacts:
    """Return the facts of one series.

    Args:
        truth: (slices,) of ``any`` from feet to head; NaN is unknown, and ends a bleed.
        outline_px: (slices,) NaN if unknown; None if all are.
        age: of the patient in years; None if unknown.
    """
    count, bleeds = len(truth), truth == 1.0
    below, above = np.concatenate([[False], bleeds[:-1]]), np.concatenate([bleeds[1:], [False]])
    unknown = np.full(count, np.nan)
    return SliceFacts(
        # A single slice has no place in its series.
        edge=np.where(bleeds, (~(below & above)).astype(float), np.nan) if count > 1 else unknown,
        height=np.arange(count) / (count - 1) if count > 1 else unknown,
        outline_px=unknown if outline_px is None else np.where(bleeds, outline_px, np.nan),
        age=unknown if age is None else np.full(count, age),
    )


def joined_facts(parts: Sequence[SliceFacts]) -> SliceFacts:
    """Return the facts of several series, one after the other."""
    return SliceFacts(
        edge=np.concatenate([one.edge for one in parts]),
        height=np.concatenate([one.height for one in parts]),
        outline_px=np.concatenate([one.outline_px for one in parts]),
        age=np.concatenate([one.age for one in parts]),
    )


def strata_table(
    name: str, probabilities: Floats, truth: Floats, patients: Sequence[str], facts: SliceFacts
) -> StrataTable | None:
    """Return the shares of every stratum that has slices; None without bleeding slices or without others.

    Args:
        name: of the data.
        probabilities: (n,) of ``any``, or any score that ranks.
        truth: (n,) 0, 1 or NaN (unknown: ignored).
        patients: (n,) the unit of the intervals.
        facts: of the slices.
    """
    known = np.isfinite(truth)
    shown, positive, owners = probabilities[known], truth[known] == 1.0, np.asarray(patients)[known]
    if positive.all() or not positive.any():
        return None
    flagged = shown >= at_specificity(shown, positive, SPECIFICITY).threshold
    every = ("slices", "all", np.ones(len(shown), dtype=bool))
    found = []
    for kind, stratum, members in (every, *facts.rows(known).strata()):
        with_it, without = members & positive, members & ~positive
        if members.any():
            found.append(
                Stratum(
                    kind=kind,
                    name=stratum,
                    found=proportion(flagged[with_it], owners[with_it]),
                    false_alarms=proportion(flagged[without], owners[without]),
                )
            )
    return StrataTable(name=name, specificity=SPECIFICITY, strata=tuple(found))
