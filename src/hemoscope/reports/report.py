"""What every report is written from: the model's identity, the findings of each study and the refused inputs.

``Report`` holds no patient identity unless the user asked for it (``patient``); ``source`` names stay relative to the
path that was given.
"""

from dataclasses import dataclass
from itertools import chain

from hemoscope.dicom.slices import Rejected
from hemoscope.files import valid_text
from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.findings import StudyFindings
from hemoscope.inference.precision import Precision

GEOMETRY_ASSUMED = "geometry_assumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which model gave the findings: ``sha256`` identifies its bundle, to the byte; how it was computed."""

    name: str
    version: str
    sha256: str
    precision: str


def model_identity(bundle: ModelBundle, precision: Precision) -> ModelIdentity:
    """Name the model of a bundle, and the precision that it was computed in."""
    card = bundle.card
    return ModelIdentity(name=card.name, version=card.version, sha256=bundle.sha256, precision=precision.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientIdentity:
    """Who was scanned: DICOM (0010,0010), (0010,0020) and (0008,0020); an empty string where the file has none."""

    name: str
    id: str
    study_date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedStudy:
    """One study as reports show it; ``patient`` is None unless the user asked for it."""

    findings: StudyFindings
    patient: PatientIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of one run."""

    model: ModelIdentity
    studies: tuple[ReportedStudy, ...]
    rejected: tuple[Rejected, ...]


def positions_known(study: StudyFindings) -> bool:
    """Whether positions in millimetres come from the scanner and may be shown, instead of being assumed."""
    notes = chain(study.quality, *(one.quality for one in study.slices))
    return all(note.code != GEOMETRY_ASSUMED for note in notes)


def unread_words(count: int, message: str) -> str:
    """Put one reason of ``unread`` into words."""
    if not count:
        return message
    return f"{count} slice{' was' if count == 1 else 's were'} not read: {message}"


def shown_probability(probability: float) -> str:
    """Two digits, never rounded up to certainty nor down to nothing: "1.00" would claim what no model knows."""
    if 0.0 < probability < 0.005:
        return "<.01"
    return ">.99" if 0.995 <= probability < 1.0 else f"{probability:.2f}"


def printable(text: str) -> str:
    r"""Make control characters visible, so that a hostile file name cannot steer a terminal.

    Examples:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'

    """
    text = valid_text(text)
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
