"""What every report is written from: the model's identity, the findings of each study and the refused inputs.

``Report`` holds no patient identity unless the user asked for it (``patients``); ``source`` names stay relative to the
path that was given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hemoscope.dicom.slices import Rejected
from hemoscope.findings import Finding, SliceFindings, StudyFindings

GEOMETRY_ASSUMED = "geometry_assumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which model gave the findings; ``sha256`` identifies its bundle, to the byte."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientIdentity:
    """Who was scanned: DICOM (0010,0010), (0010,0020) and (0008,0020); an empty string where the file has none."""

    name: str
    id: str
    study_date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of one run; ``patients`` maps Study Instance UIDs to identities and is empty unless asked for."""

    model: ModelIdentity
    studies: tuple[StudyFindings, ...]
    rejected: tuple[Rejected, ...]
    patients: Mapping[str, PatientIdentity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySlice:
    """A slice that shows a finding; ``index`` counts from 0 through the study's slices in anatomical order."""

    index: int
    findings: SliceFindings

    @property
    def number(self) -> int:
        """The slice's number for people: 1 is the lowest (nearest the feet) where positions are known."""
        return self.index + 1


def key_slices(study: StudyFindings, finding: Finding) -> tuple[KeySlice, ...]:
    """Find the slices that ``finding`` names, in its order.

    All frames of a multi-frame file share one SOP Instance UID: the n-th mention of such a UID means its n-th most
    probable frame for this label, which is how the key slices were chosen.
    """
    by_uid: dict[str, list[KeySlice]] = {}
    for index, one in enumerate(study.slices):
        by_uid.setdefault(one.sop_instance_uid, []).append(KeySlice(index=index, findings=one))
    for same_uid in by_uid.values():
        same_uid.sort(key=lambda key: -key.findings.probabilities[finding.label])
    return tuple(by_uid[uid].pop(0) for uid in finding.slices if by_uid.get(uid))


def positions_known(study: StudyFindings) -> bool:
    """Whether positions in millimetres come from the scanner and may be shown, instead of being assumed."""
    return all(note.code != GEOMETRY_ASSUMED for note in study.quality)


def printable(text: str) -> str:
    r"""Make control characters visible, so that a hostile file name cannot steer a terminal.

    Examples:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'

    """
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
