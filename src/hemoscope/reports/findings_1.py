"""Schema ``hemoscope.findings/1``, which named slices by SOP Instance UID alone: still written on request, still read.

Readings of earlier programs lie in databases in this form. Several frames of one file share a UID, so a document of
version 1 alone cannot tell which of them a finding means; ``key_slices``, stored beside it, can.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA_1 = "hemoscope.findings/1"
_ONLY_IN_2 = ("state", "unread", "triage")
_ONLY_IN_SLICES_OF_2 = ("index", "frame", "scored")


def as_version_1(document: Mapping[str, Any]) -> dict[str, Any]:
    """Write a document of version 2 as version 1: without state, frames, indices, precision and what was scored.

    Version 1 has no ``unsure``: such a study becomes ``prompt``, so that nobody reads it later than it should be.
    """
    model = {name: value for name, value in document["model"].items() if name != "precision"}
    studies = [_study_1(study) for study in document["studies"]]
    return {**document, "schema": SCHEMA_1, "model": model, "studies": studies}


def _study_1(study: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in study.items() if name not in _ONLY_IN_2}
    uids = {name: kept.pop(name) for name in ("study_instance_uid", "series_instance_uid")}
    urgency = "prompt" if study["triage"] == "unsure" else study["triage"]
    kept["findings"] = [
        {**finding, "slices": [ref["sop_instance_uid"] for ref in finding["slices"]]} for finding in study["findings"]
    ]
    kept["slices"] = [
        {name: value for name, value in one.items() if name not in _ONLY_IN_SLICES_OF_2} for one in study["slices"]
    ]
    return {**uids, "urgency": urgency, **kept}


def triage_of(study: Mapping[str, Any]) -> str:
    """The triage of a study in a document of either version."""
    return str(study["triage"] if "triage" in study else study["urgency"])


def key_slice_indices(
    finding: Mapping[str, Any],
    slices: Sequence[Mapping[str, Any]],
    key_slices: Mapping[str, Sequence[int]] | None = None,
) -> tuple[int, ...]:
    """The indices of a finding's key slices, those of the highest own score first, in a document of either version.

    Args:
        finding: one of a study's findings.
        slices: the study's slices.
        key_slices: indices by label that were stored beside a document of version 1; without them a UID that several
            frames share names no slice.
    """
    named = finding["slices"]
    if all(isinstance(one, Mapping) for one in named):
        return tuple(one["index"] for one in named)
    if key_slices is not None:
        return tuple(key_slices.get(finding["label"], ()))
    uids = [one["sop_instance_uid"] for one in slices]
    counts = Counter(uids)
    return tuple(uids.index(uid) for uid in named if counts[uid] == 1)
