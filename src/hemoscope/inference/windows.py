"""Display windows of Hounsfield units, as on a CT console and in the paper's model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """A display window, named as on a CT console: level (center) and width in HU.

    Examples:
        >>> BRAIN.bounds
        (0.0, 80.0)
        >>> BRAIN.apply(np.array([-1000.0, 40.0, 3000.0], dtype=np.float32)).tolist()
        [0.0, 0.5, 1.0]
    """

    center: float
    width: float

    def __post_init__(self) -> None:
        """Reject a window that would divide by zero."""
        if not self.width > 0:
            msg = f"window width must be positive, got {self.width} HU"
            raise ValueError(msg)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest HU shown."""
        half = self.width / 2
        return self.center - half, self.center + half

    def apply(self, hounsfield: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a new float32 array in [0, 1], of the same shape; the input is unchanged."""
        # Bounds are float32 throughout: a separately rounded width could give values slightly above 1.
        low, high = (np.float32(bound) for bound in self.bounds)
        return (np.clip(hounsfield, low, high).astype(np.float32, copy=False) - low) / (high - low)


# The three windows of Lewicki et al. 2020, section IV-A.
BRAIN = Window(center=40.0, width=80.0)
SUBDURAL = Window(center=80.0, width=200.0)
BONE = Window(center=600.0, width=2800.0)
