"""Whether validation supports a label: enough patients with and without it, and an AUROC clearly above chance."""

import numpy as np
from numpy.typing import ArrayLike

from hemoscope.evaluation.intervals import Interval, auroc_interval
from hemoscope.evaluation.metrics import Floats

ESTABLISHED_AUROC = 0.75
# Of each class: two negative patients that rank lowest prove as little as two positive ones that rank highest.
ESTABLISHED_PATIENTS = 10


def established(auroc: Interval | None, *, positive_patients: int, negative_patients: int) -> bool:
    """Whether an AUROC establishes a label.

    Args:
        auroc: with its 95% interval, whose lower bound must be at least 0.75; None if undefined.
        positive_patients: with the label; at least ten are needed.
        negative_patients: without it, or by slice with a slice without it; at least ten are needed.
    """
    enough = min(positive_patients, negative_patients) >= ESTABLISHED_PATIENTS
    return enough and auroc is not None and auroc.low >= ESTABLISHED_AUROC


def established_by_rows(scores: Floats, truth: ArrayLike, patients: ArrayLike) -> bool:
    """Whether one label's scores establish it.

    Args:
        scores: (n,) of one label, any that rank.
        truth: (n,) of 0, 1 or NaN (unknown: the row is ignored).
        patients: (n,) the patient of each row.
    """
    labels, names = np.asarray(truth, dtype=np.float64), np.asarray(patients)
    known = np.isfinite(labels)
    if not known.any():
        return False
    return established(
        auroc_interval(scores[known], labels[known], names[known]),
        positive_patients=len(np.unique(names[labels == 1.0])),
        negative_patients=len(np.unique(names[labels == 0.0])),
    )
