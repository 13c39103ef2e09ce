"""The few lines of an evaluation that a terminal shows."""

from collections.abc import Mapping
from typing import Any

from hemoscope.labels import LABELS


def summary(report: Mapping[str, Any]) -> str:
    """AUROC and average precision of each label, the scores by image, and the warnings, as plain lines."""
    groups = "" if report["n_groups"] is None else f", {report['n_groups']} groups"
    lines = [f"{report['n_images']} images{groups}", f"{'':<18}{'AUROC':<26}average precision"]
    for label in LABELS:
        found = report["labels"][label.value]
        lines.append(f"{label.display:<18}{_score(found['auroc']):<26}{_score(found['average_precision'])}".rstrip())
    lines += [
        f"exact match        {_score(report['exact_match'])}",
        f"weighted log loss  {_score(report['weighted_log_loss'])}",
        f"  once calibrated  {_score(report['calibrated']['weighted_log_loss'])}",
        *(f"warning: {text}" for text in report["warnings"]),
    ]
    return "\n".join(lines)


def _score(score: Mapping[str, float] | None) -> str:
    return "not defined" if score is None else f"{score['value']:.4f} ({score['low']:.4f}-{score['high']:.4f})"
