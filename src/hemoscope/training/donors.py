"""Which outlined bleeds can be seen: only they are pasted into other heads and train the maps.

Readers also outline what CT does not show in one slice: a collection darker than brain, an isodense one, blood that
they know from the slices beside it. Such a slice keeps its labels. As a donor, it would teach that brain is blood.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemoscope.training.crops import Crops
from hemoscope.training.synthetic_lesions import Mask, Slice

# Brain and CSF, but neither the edge of bone nor blood beyond the outline.
_RING_HU = (-10, 60)
_BONE_HU = 150
# Distance of the ring from the outline and its width, as shares of the slice's side: 3 and 9 of 256 pixels.
_GAP = 0.012
_WIDTH = 0.036


@dataclass(frozen=True, slots=True, kw_only=True)
class Donor:
    """An outlined bleed.

    Attributes:
        row: of the crops.
        image_id: of the slice.
        lift_hu: see ``outline_lift``; None if it cannot be measured.
    """

    row: int
    image_id: str
    lift_hu: float | None

    def shows(self, least_lift: float | None) -> bool:
        """Whether the bleed is brighter than its surroundings by at least so many HU; None accepts every bleed."""
        return least_lift is None or (self.lift_hu is not None and self.lift_hu >= least_lift)


def outline_lift(hounsfield: Slice, mask: Mask) -> float | None:
    """Return the median HU inside an outline less that of the brain in a ring around it.

    Args:
        hounsfield: (S, S) of a head's crop.
        mask: (S, S), True inside the outline.

    Returns:
        The difference in HU; None if the outline or the ring holds no soft tissue.
    """
    side = hounsfield.shape[0]
    gap, width = (max(round(side * share), 1) for share in (_GAP, _WIDTH))
    near = ndimage.binary_dilation(mask, iterations=gap)
    ring = ndimage.binary_dilation(near, iterations=width) & ~near
    brain = hounsfield[ring & (hounsfield > _RING_HU[0]) & (hounsfield < _RING_HU[1])]
    within = hounsfield[mask & (hounsfield < _BONE_HU)]
    return float(np.median(within) - np.median(brain)) if brain.size and within.size else None


def measured_donors(crops: Crops, rows: Iterable[int]) -> list[Donor]:
    """Measure the outlines of the given slices; those without an outline are left out."""
    found = []
    for row in rows:
        mask = crops.mask(row) > 0
        if mask.any():
            middle = crops.stack(row)[crops.hounsfield.shape[1] // 2]
            image_id = str(crops.table["image_id"][row])
            found.append(Donor(row=row, image_id=image_id, lift_hu=outline_lift(middle, mask)))
    return found
