"""The few lines of a tuning that a terminal shows."""

from collections.abc import Mapping
from typing import Any

from hemoscope.labels import LABELS

_COLUMNS = ("log loss", "calibration error", "sensitivity", "specificity", "precision")
_METRICS = ("log_loss", "ece", "recall", "specificity", "precision")


def tuning_summary(record: Mapping[str, Any]) -> str:
    """For each level and label: scores of the bundle as it was, the cross-fitted ones, and what could not be fitted."""
    groups = "" if record["n_groups"] is None else f", {record['n_groups']} groups"
    lines = [f"{record['n_images']} images{groups}; {record['folds']} folds by {record['folds_by']}"]
    for name, level in record["levels"].items():
        lines += [
            "",
            f"By {name} ({level['n']}): as it was, and tuned (cross-fitted: each fold by a fit on the others)",
        ]
        lines.append(f"{'':<18}" + "".join(f"{column:<20}" for column in _COLUMNS).rstrip())
        for label in LABELS:
            entry = level["labels"][label.value]
            cells = [_pair(entry["before"][metric], entry["cross_fitted"][metric]) for metric in _METRICS]
            lines.append(f"{label.display:<18}" + "".join(f"{cell:<20}" for cell in cells).rstrip())
        lines += ["", "Operating points"]
        for label in LABELS:
            entry = level["labels"][label.value]
            lines.append(f"{label.display:<18}{entry['threshold']:<10.4f}{entry['rule']}")
            if entry["kept"] is not None:
                lines.append(f"{'':<18}not fitted anew: {entry['kept']}")
    return "\n".join([*lines, *(f"note: {text}" for text in record["warnings"])])


def _pair(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> str:
    values = ("-" if score is None else f"{score['value']:.4f}" for score in (before, after))
    return " -> ".join(values)
